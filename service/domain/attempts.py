"""What a fact means for the attempt that it names, whatever it means for the job.

Rule 1: an attempt takes the provider's first id and its first verdict; later ones only fill in what is missing.
Rule 2: an attempt that was put off is not sent any more once any attempt of its job is known to be taken.
"""

from collections.abc import Mapping
from dataclasses import replace

from service.domain import facts
from service.domain.changed import changed
from service.domain.ids import AttemptId
from service.domain.job import Attempt, Job
from service.domain.states import AttemptState, JobState

_VERDICTS: Mapping[type[facts.Fact], AttemptState] = {
    facts.ProviderSucceeded: AttemptState.SUCCEEDED,
    facts.ProviderFailed: AttemptState.FAILED,
    facts.ProviderBlocked: AttemptState.BLOCKED,
}
#: The provider has it and has not ended it, as far as we know.
TAKEN = frozenset((AttemptState.QUEUED, AttemptState.RUNNING))
_NOT_TAKEN_YET = frozenset((AttemptState.SUBMITTING, AttemptState.UNCERTAIN))
OPEN = TAKEN | _NOT_TAKEN_YET


def in_flight(job: Job, attempt: Attempt) -> bool:
    """This function will tell whether the request may just be leaving: neither put off nor answered."""
    return attempt.state is AttemptState.SUBMITTING and job.state is not JobState.ACCEPTED


def would_take(job: Job, attempt: Attempt, fact: facts.SubmitAccepted) -> bool:
    """This function will tell whether this answer is the first to say that the attempt was taken."""
    return attempt.state in _NOT_TAKEN_YET and _may_be_called(job, attempt, fact.provider_request_id)


def _may_be_called(job: Job, attempt: Attempt, provider_request_id: str) -> bool:
    """One request belongs to one attempt, and an attempt has one request."""
    if attempt.provider_request_id is not None:
        return attempt.provider_request_id == provider_request_id
    return all(other.provider_request_id != provider_request_id for other in job.attempts)


def apply(job: Job, fact: facts.Fact, now_ms: int) -> Job:
    """This function will record a fact in its attempt and in what hangs on it, but never move the job.

    A `SubmitStarted` is taken as allowed: whether it is, the machine says.
    """
    match fact:
        case facts.SubmitStarted():
            return _started(job, fact, now_ms)
        case facts.ResultKept() | facts.ResultLost():
            return _kept(job, fact)
    attempt = job.attempt(fact.attempt_id)
    if attempt is None:
        return job
    match fact:
        case facts.SubmitAccepted() if _may_be_called(job, attempt, fact.provider_request_id):
            return _accepted(job, attempt, fact, now_ms)
        case facts.SubmitUnknown() if in_flight(job, attempt):
            return job.with_attempt(changed(attempt, state=AttemptState.UNCERTAIN))
        case facts.SubmitPostponed() if in_flight(job, attempt) and job.state is not JobState.SUBMITTING:
            return job.with_attempt(_given_up(attempt, fact, now_ms))
        case facts.SubmitPostponed() if in_flight(job, attempt):
            since_ms = attempt.postponed_since_ms if attempt.postponed_since_ms is not None else now_ms
            put_off = changed(attempt, postponed=attempt.postponed + 1, postponed_since_ms=since_ms)
            return job.with_attempt(put_off)
        case facts.ProviderQueued() if attempt.state in TAKEN:
            queued = changed(attempt, state=AttemptState.QUEUED, queue_position=fact.queue_position)
            return job.with_attempt(queued)
        case facts.ProviderStarted() if attempt.state in TAKEN:
            return job.with_attempt(changed(attempt, state=AttemptState.RUNNING, queue_position=None))
        case facts.ProviderSucceeded() | facts.ProviderFailed() | facts.ProviderBlocked():
            return job.with_attempt(_concluded(job, attempt, fact, now_ms))
    return job


def _started(job: Job, fact: facts.SubmitStarted, now_ms: int) -> Job:
    """An attempt that was put off is sent again as it is; otherwise a new one begins."""
    known = job.attempt(fact.attempt_id)
    if known is not None:
        return job.with_attempt(changed(known, started_ms=now_ms))
    return job.with_attempt(
        Attempt(
            id=AttemptId(fact.attempt_id or ""),
            number=len(job.attempts) + 1,
            provider=job.provider,
            model=job.model,
            state=AttemptState.SUBMITTING,
            secret_key_id=fact.secret_key_id,
            started_ms=now_ms,
        )
    )


def _accepted(job: Job, attempt: Attempt, fact: facts.SubmitAccepted, now_ms: int) -> Job:
    first = attempt.state in _NOT_TAKEN_YET
    taken = changed(
        attempt,
        provider_request_id=fact.provider_request_id,
        links=attempt.links or dict(fact.links),
        queue_position=fact.queue_position if first else attempt.queue_position,
        submitted_ms=attempt.submitted_ms or fact.submitted_ms or attempt.started_ms,
        cost_usd=attempt.cost_usd if attempt.cost_usd is not None else fact.cost_usd,
        state=AttemptState.QUEUED if first else attempt.state,
    )
    told = job.with_attempt(taken)
    if not first or job.state is not JobState.ACCEPTED:
        return told
    unsent = [other for other in told.attempts if other.state is AttemptState.SUBMITTING]
    for other in unsent:
        told = told.with_attempt(_given_up(other, fact, now_ms))
    return changed(told, waiting=None)


def _given_up(attempt: Attempt, fact: facts.Fact, now_ms: int) -> Attempt:
    """It provably never reached the provider and will not be sent any more."""
    return changed(
        attempt,
        state=AttemptState.CANCELED,
        completed_ms=now_ms,
        learned_by=facts.learned_by(fact.cause),
    )


def _concluded(job: Job, attempt: Attempt, fact: facts.ProviderVerdict, now_ms: int) -> Attempt:
    """The provider's first verdict stands; only a cost that was not known yet is still taken from a later one."""
    if attempt.outcome is not None:
        return attempt if attempt.cost_usd is not None else changed(attempt, cost_usd=fact.cost_usd)
    verdict = _VERDICTS[type(fact)]
    late = job.completed_ms is not None
    lag = now_ms - fact.provider_completed_ms if fact.provider_completed_ms is not None else None
    return changed(
        attempt,
        outcome=verdict,
        state=attempt.state if late and attempt.state not in OPEN else verdict,
        queue_position=None,
        completed_ms=now_ms,
        learned_by=facts.learned_by(fact.cause),
        # Clocks differ: a provider that ended it in our future ended it now.
        lag_ms=max(0, lag) if lag is not None else None,
        cost_usd=fact.cost_usd if fact.cost_usd is not None else attempt.cost_usd,
        output=fact.output if late and isinstance(fact, facts.ProviderSucceeded) else None,
    )


def _kept(job: Job, fact: facts.ResultKept | facts.ResultLost) -> Job:
    """Only the job's own output is kept: files of a result that came too late stay with the provider."""
    if job.output is None or not fact.images:
        return job
    if fact.attempt_id is not None:
        attempt = job.attempt(fact.attempt_id)
        if attempt is None or attempt.outcome is not AttemptState.SUCCEEDED or attempt.output is not None:
            return job
    return changed(job, output=replace(job.output, images=fact.images))


def close_open(job: Job, now_ms: int, *, parked: bool) -> Job:
    """This function will end the attempts that nobody will bring to an end after the job's.

    Those are all open ones of a canceled or expired job, and one that was put off (`parked`). Others stay open:
    whatever becomes of them is still a fact of their own.
    """
    if job.state in (JobState.CANCELED, JobState.EXPIRED):
        ended, closing = AttemptState(job.state.value), OPEN
    elif parked:
        ended, closing = AttemptState.CANCELED, frozenset((AttemptState.SUBMITTING,))
    else:
        return job
    closed = tuple(
        changed(attempt, state=ended, completed_ms=now_ms, learned_by=job.learned_by, queue_position=None)
        if attempt.state in closing
        else attempt
        for attempt in job.attempts
    )
    return changed(job, attempts=closed)
