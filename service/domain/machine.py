"""The machine: the one place that says how a job moves.

Rule 1: `TRANSITIONS` is the machine. A pair that is not in it is recorded and moves nothing.
Rule 2: the final states are the empty rows; they are derived, never listed again.
Rule 3: `decide` is total and pure: every job, every fact with a cause of the contract, at any time, gives a decision
and raises nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.domain import attempts, facts
from service.domain.changed import changed
from service.domain.effects import WHOLE_JOB, Announce, Drop, DropAll, Effect, Schedule, Work
from service.domain.failures import ErrorCode, JobError
from service.domain.job import Attempt, Job
from service.domain.states import AttemptState, JobState, OnUncertain

_ENDINGS: Mapping[type[facts.Fact], JobState] = {
    facts.ProviderSucceeded: JobState.SUCCEEDED,
    facts.ProviderFailed: JobState.FAILED,
    facts.ProviderBlocked: JobState.BLOCKED,
    facts.CancelRequested: JobState.CANCELED,
    facts.DeadlinePassed: JobState.EXPIRED,
}

TRANSITIONS: Mapping[JobState, Mapping[type[facts.Fact], JobState]] = {
    JobState.ACCEPTED: {facts.SubmitStarted: JobState.SUBMITTING, **_ENDINGS},
    JobState.SUBMITTING: {
        facts.SubmitPostponed: JobState.ACCEPTED,
        facts.SubmitAccepted: JobState.QUEUED,
        facts.SubmitUnknown: JobState.UNCERTAIN,
        **_ENDINGS,
    },
    JobState.UNCERTAIN: {
        facts.SubmitAccepted: JobState.QUEUED,
        facts.SubmitStarted: JobState.SUBMITTING,
        **_ENDINGS,
    },
    JobState.QUEUED: {facts.ProviderStarted: JobState.RUNNING, **_ENDINGS},
    JobState.RUNNING: {facts.ProviderQueued: JobState.QUEUED, **_ENDINGS},
    JobState.SUCCEEDED: {},
    JobState.FAILED: {},
    JobState.BLOCKED: {},
    JobState.CANCELED: {},
    JobState.EXPIRED: {},
}

TERMINAL = frozenset(state for state, row in TRANSITIONS.items() if not row)

#: A result that comes after the end is asked for this long after it (contract, section 4).
LATE_ASKS_MS = (60_000, 300_000)

_NOTHING_TO_SEND = Drop(Work.SUBMIT, WHOLE_JOB)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a fact means for a job: the job after it, whether its state moved, and what is to be done."""

    job: Job
    moved: bool
    before: JobState
    effects: tuple[Effect, ...] = ()


def decide(job: Job, fact: facts.Fact, now_ms: int) -> Decision:
    """This function will decide what a fact does to a job. It never raises and never leaves a final state."""
    target = TRANSITIONS[job.state].get(type(fact))
    if target is None or not _allowed(job, fact):
        # An intent that may not be carried out leaves no trace in the job; any other fact stays a fact.
        touched = job if isinstance(fact, facts.SubmitStarted) else attempts.apply(job, fact, now_ms)
        return _stay(job, touched, fact, now_ms)
    touched = attempts.apply(job, fact, now_ms)
    waiting = fact.waiting if isinstance(fact, facts.SubmitPostponed) else None
    moved = changed(touched, state=target, version=job.version + 1, updated_ms=now_ms, waiting=waiting)
    if target in TERMINAL:
        parked = job.state is JobState.ACCEPTED
        moved = attempts.close_open(_end(moved, job, fact, now_ms), now_ms, parked=parked)
    return Decision(job=moved, moved=True, before=job.state, effects=_on_move(moved, fact, now_ms))


def _allowed(job: Job, fact: facts.Fact) -> bool:
    """What the table cannot say: which attempt a fact speaks of, and whether it is news of it."""
    match fact:
        case facts.SubmitStarted():
            return _may_start(job, fact)
        case facts.CancelRequested() | facts.DeadlinePassed():
            return True
    attempt = job.attempt(fact.attempt_id)
    if attempt is None:
        return False
    match fact:
        case facts.SubmitAccepted():
            return attempts.would_take(job, attempt, fact)
        case facts.SubmitPostponed() | facts.SubmitUnknown():
            return attempts.in_flight(job, attempt)
        case facts.ProviderStarted() | facts.ProviderQueued():
            return attempt == _followed(job)
        case facts.ProviderFailed() | facts.ProviderBlocked():
            return attempt.outcome is None and not _another_may_succeed(job, attempt)
    return attempt.outcome is None


def _may_start(job: Job, fact: facts.SubmitStarted) -> bool:
    """The first attempt, the same one again after it was put off, or the one more that was asked for."""
    if fact.attempt_id is None:
        return False
    known, current = job.attempt(fact.attempt_id), job.current
    if job.state is not JobState.ACCEPTED:
        return may_resubmit(job) and known is None
    return current is None or (known == current and current.state is AttemptState.SUBMITTING)


def _followed(job: Job) -> Attempt | None:
    """Of several attempts that the provider took, the newest shows how far the job is."""
    return next((attempt for attempt in reversed(job.attempts) if attempt.state in attempts.TAKEN), None)


def _another_may_succeed(job: Job, ended: Attempt) -> bool:
    """Whether a failure of one attempt is not yet one of the job.

    A newer attempt whose fate is unknown counts; an older one does not: it was given up when the newer one began.
    """
    return any(
        other.state in attempts.OPEN and (other == job.current or other.state is not AttemptState.UNCERTAIN)
        for other in job.attempts
        if other.id != ended.id
    )


def may_resubmit(job: Job) -> bool:
    """This function will tell whether an uncertain job may be sent once more: asked for, and not done before."""
    return (
        job.state is JobState.UNCERTAIN
        and job.on_uncertain is OnUncertain.RESUBMIT
        and len(job.attempts) == 1
    )


def _end(moved: Job, before: Job, fact: facts.Fact, now_ms: int) -> Job:
    """What a final state brings with it: who told us, when, the output or the error."""
    ended = changed(moved, completed_ms=now_ms, learned_by=facts.learned_by(fact.cause))
    match fact:
        case facts.ProviderSucceeded():
            return changed(ended, output=fact.output)
        case facts.ProviderFailed() | facts.ProviderBlocked():
            return changed(ended, error=fact.error)
        case facts.CancelRequested():
            error = JobError(code=ErrorCode.CANCELED, message="The job was canceled on request.")
            return changed(ended, error=error)
        case _:
            return changed(ended, error=_expiry(before))


def _expiry(job: Job) -> JobError:
    if job.waiting is not None:
        return JobError(
            code=job.waiting.code,
            message=f"The deadline passed while waiting: {job.waiting.message}",
            # The one that was put off was not taken; an earlier one may have been.
            retryable=all(earlier.outcome is not None for earlier in job.attempts[:-1]),
        )
    if job.state is JobState.UNCERTAIN:
        return JobError(
            code=ErrorCode.SUBMIT_UNCERTAIN,
            message="The deadline passed and it is still unknown whether the provider took the request.",
        )
    return JobError(
        code=ErrorCode.DEADLINE_EXCEEDED,
        message="The deadline passed before the provider told a result.",
        retryable=not job.attempts,
    )


def _on_move(job: Job, fact: facts.Fact, now_ms: int) -> tuple[Effect, ...]:
    """What entering a state asks for."""
    if job.state in TERMINAL:
        return (DropAll(), *_after_the_end(job, now_ms), Announce(f"job.{job.state}"))
    match fact:
        case facts.SubmitPostponed():
            return (Schedule(Work.SUBMIT, WHOLE_JOB, fact.waiting.next_try_ms),)
        case facts.SubmitUnknown():
            again = (
                Schedule(Work.SUBMIT, WHOLE_JOB, fact.resubmit_ms) if may_resubmit(job) else _NOTHING_TO_SEND
            )
            return (*_unknown(job, fact), again, Announce("job.uncertain"))
        case facts.SubmitAccepted():
            submit = () if _sending(job) else (_NOTHING_TO_SEND,)
            return (*_taken(job, fact, now_ms), *submit, Announce("job.submitted"))
        case facts.ProviderQueued() | facts.ProviderStarted():
            return (Announce(f"job.{job.state}"),)
    return ()


def _unknown(job: Job, fact: facts.SubmitUnknown) -> tuple[Effect, ...]:
    attempt = job.attempt(fact.attempt_id)
    return (Schedule(Work.RECONCILE, attempt.number, fact.reconcile_ms),) if attempt else ()


def _taken(job: Job, fact: facts.SubmitAccepted, now_ms: int) -> tuple[Effect, ...]:
    attempt = job.attempt(fact.attempt_id)
    if attempt is None:
        return ()
    ask_ms = fact.ask_ms if fact.ask_ms is not None else now_ms
    return (Drop(Work.RECONCILE, attempt.number), Schedule(Work.ASK, attempt.number, ask_ms))


def _sending(job: Job) -> bool:
    """While a request is in flight its row of work stays: after a crash it shows that nobody knows the answer."""
    return any(attempt.state is AttemptState.SUBMITTING for attempt in job.attempts)


def _after_the_end(job: Job, now_ms: int) -> tuple[Effect, ...]:
    """Keep the files; cancel and ask once more for what the provider may still be doing at our cost."""
    out: list[Effect] = []
    for attempt in job.attempts:
        if attempt.outcome is AttemptState.SUCCEEDED:
            if job.archive and job.output is not None and job.output.images:
                out.append(Schedule(Work.ARCHIVE, attempt.number, now_ms))
        elif attempt.outcome is None and attempt.provider_request_id is not None:
            out.extend(_wind_down(attempt, now_ms))
    return tuple(out)


def _wind_down(attempt: Attempt, now_ms: int) -> tuple[Effect, ...]:
    return (
        Schedule(Work.CANCEL, attempt.number, now_ms),
        Schedule(Work.ASK, attempt.number, now_ms + LATE_ASKS_MS[0]),
    )


def _stay(before: Job, touched: Job, fact: facts.Fact, now_ms: int) -> Decision:
    """The state does not move; the attempt may have learned something, and consumers may want to know."""
    if touched == before:
        return Decision(job=before, moved=False, before=before.state)
    told = changed(touched, version=before.version + 1, updated_ms=now_ms)
    learned = (
        _late(before, told, fact, now_ms)
        if before.state in TERMINAL
        else _meanwhile(before, told, fact, now_ms)
    )
    return Decision(job=told, moved=False, before=before.state, effects=learned)


def _meanwhile(before: Job, told: Job, fact: facts.Fact, now_ms: int) -> tuple[Effect, ...]:
    """What an attempt learned while its job goes on as it was."""
    out: list[Effect] = []
    old, new = before.attempt(fact.attempt_id), told.attempt(fact.attempt_id)
    if isinstance(fact, facts.SubmitAccepted) and _newly_named(old, new):
        out.extend(_taken(told, fact, now_ms))
    if isinstance(fact, facts.SubmitUnknown):
        out.extend(_unknown(told, fact))
    if new is not None and _newly_concluded(old, new):
        out.extend(Drop(work, new.number) for work in (Work.ASK, Work.RECONCILE))
    if _sending(before) and not _sending(told):
        out.append(_NOTHING_TO_SEND)
    return tuple(out)


def _late(before: Job, told: Job, fact: facts.Fact, now_ms: int) -> tuple[Effect, ...]:
    """What is learned after the end."""
    out: list[Effect] = []
    old, new = before.attempt(fact.attempt_id), told.attempt(fact.attempt_id)
    if new is not None and _newly_named(old, new):
        out.extend(_wind_down(new, now_ms))
    if new is not None and _newly_concluded(old, new):
        out.extend(Drop(work, new.number) for work in (Work.ASK, Work.CANCEL))
        if new.outcome is AttemptState.SUCCEEDED or new.cost_usd is not None:
            out.append(Announce("job.late_result"))
    if isinstance(fact, facts.ResultKept):
        out.append(Announce("job.archived"))
    return tuple(out)


def _newly_named(old: Attempt | None, new: Attempt | None) -> bool:
    """Whether the provider's id of an attempt without verdict has just become known."""
    if old is None or new is None or new.outcome is not None:
        return False
    return old.provider_request_id is None and new.provider_request_id is not None


def _newly_concluded(old: Attempt | None, new: Attempt) -> bool:
    return old is not None and old.outcome is None and new.outcome is not None
