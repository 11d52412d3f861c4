"""Submit: claim, call, record.

Rule 1: the intent to send is committed before the request leaves; an intent that did not move stops here.
Rule 2: the request leaves within 5 s of its intent's commit or not at all: later, another process may already have
called it uncertain.
Rule 3: what provably was not taken is put off with the same attempt; what may have been taken is `uncertain` and is
not sent again from here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from service.domain import exact_json, facts
from service.domain.attempts import in_flight
from service.domain.failures import ErrorCode, Waiting
from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL
from service.domain.schedule import backoff_ms
from service.domain.states import JobState
from service.flows import learn
from service.flows.advance import Advance, Step
from service.flows.runtime import Runtime
from service.providers.base import MaybeTaken, NotTaken, Order, Refusal
from service.storage import jobs, work
from service.storage.database import DatabaseUnavailable, WriteConflict
from service.storage.drivers import CONSTRAINT_ERRORS
from service.storage.work import Due

_log = structlog.get_logger("fluxgate.submit")

LEAVES_WITHIN_MS = 5_000
#: How long after a submit of unknown outcome it is looked for first.
_RECONCILE_AFTER_MS = 2_000
#: So often an answer is tried to be recorded that fails for another reason than the database being away.
_TRIES_TO_RECORD = 6
#: Backoff of a put-off submit: what an operator must mend is tried less often than what mends itself.
_BACKOFF_MS = {
    ErrorCode.AUTHENTICATION: (15_000, 300_000),
    ErrorCode.INSUFFICIENT_CREDIT: (15_000, 300_000),
    ErrorCode.RATE_LIMITED: (2_000, 60_000),
    ErrorCode.PROVIDER_UNAVAILABLE: (1_000, 60_000),
}


@dataclass(frozen=True, slots=True)
class Sending:
    """An attempt whose intent is committed, with what is to be sent."""

    due: Due
    job: Job
    attempt: Attempt
    input_text: str


async def start(runtime: Runtime, advance: Advance, dues: Sequence[Due]) -> list[Sending]:
    """This function will commit the intents of claimed submits and say which of them may be sent now.

    A job found in `submitting` was interrupted: its request may have left, so it becomes uncertain. Inputs are read
    before the intents are committed: afterwards nothing may fail that keeps a request from leaving.
    """
    ids = [due.job_id for due in dues]
    inputs = await runtime.door.read(lambda tx: jobs.inputs(tx, ids))
    decisions = await advance.tell(
        [Step(job_id=due.job_id, fact=_Intent(runtime, runtime.make_id("att"))) for due in dues]
    )
    started: list[tuple[Due, Job]] = []
    idle: list[Due] = []
    for due, decision in zip(dues, decisions, strict=True):
        if decision is not None and decision.moved and decision.job.state is JobState.SUBMITTING:
            started.append((due, decision.job))
        elif decision is None or not decision.moved:
            idle.append(due)
    if idle:
        await runtime.door.write(lambda tx: [work.done(tx, due, mine=runtime.process_id) for due in idle])
    return [Sending(due, job, _current(job), inputs[due.job_id]) for due, job in started]


def _current(job: Job) -> Attempt:
    assert job.current is not None, "a job in submitting has an attempt"
    return job.current


@dataclass(frozen=True, slots=True)
class _Intent:
    """What to tell about a claimed job: that it is being sent, or that it was interrupted while it was."""

    runtime: Runtime
    attempt_id: str

    def __call__(self, job: Job) -> facts.Fact | None:
        if job.state in TERMINAL:
            return None
        if job.current is not None and in_flight(job, job.current):
            return unknown(self.runtime, job.current.id, "the process that was sending it stopped")
        if job.deadline_ms <= self.runtime.now_ms():
            # After a long stop much is due at once, and nobody waits for it any more.
            return facts.DeadlinePassed(cause=facts.CAUSE_CLOCK)
        current = job.current if job.state is JobState.ACCEPTED else None
        return facts.SubmitStarted(
            cause=facts.CAUSE_SUBMIT,
            attempt_id=current.id if current else self.attempt_id,
            secret_key_id=self.runtime.keys.current,
        )


def unknown(runtime: Runtime, attempt_id: str, reason: str) -> facts.SubmitUnknown:
    """This function will make the fact that nobody can tell whether an attempt was taken."""
    now_ms = runtime.now_ms()
    return facts.SubmitUnknown(
        cause=facts.CAUSE_SUBMIT,
        attempt_id=attempt_id,
        reason=reason,
        reconcile_ms=now_ms + _RECONCILE_AFTER_MS,
        resubmit_ms=now_ms + runtime.timing.uncertain_ms,
    )


async def send(runtime: Runtime, advance: Advance, sending: Sending) -> None:
    """This function will send one attempt and record what came of it."""
    attempt, job = sending.attempt, sending.job
    kept_back = _kept_back(runtime, sending)
    if kept_back is not None:
        await record(runtime, advance, [Step(job_id=job.id, fact=_postponed(runtime, sending, kept_back))])
        return
    provider = runtime.providers[job.provider]
    order = Order(
        attempt_id=attempt.id,
        model=job.model,
        input=exact_json.loads(sending.input_text),
        callback_url=runtime.callback_url(job.provider, attempt.secret_key_id, attempt.id),
        secret=runtime.keys.webhook_secret(attempt.secret_key_id, attempt.id) or "",
        priority=job.priority.value,
        now_ms=runtime.now_ms(),
        deadline_ms=job.deadline_ms,
    )
    try:
        came, _ = await asyncio.gather(
            runtime.talks[job.provider].run(provider.submit(order)), learn.meanwhile(runtime, job)
        )
    except BaseException as error:
        # Stopped, or our own adapter failed: the request may have left all the same.
        reason = f"sending ended with {type(error).__name__}"
        await record(runtime, advance, [Step(job_id=job.id, fact=unknown(runtime, attempt.id, reason))])
        raise
    runtime.measures.calls.labels(job.provider, "submit", _outcome(came)).inc()
    await record(runtime, advance, _steps(runtime, sending, came))


def _kept_back(runtime: Runtime, sending: Sending) -> NotTaken | None:
    """Why a request does not leave at all, if so."""
    if sending.job.provider not in runtime.providers:
        return NotTaken(
            refusal=Refusal.AUTHENTICATION, message="The provider has no key here and is switched off."
        )
    if runtime.now_ms() - sending.attempt.started_ms > LEAVES_WITHIN_MS:
        return NotTaken(refusal=Refusal.UNREACHABLE, message="It was not sent in time by ourselves.")
    return None


def _outcome(came: object) -> str:
    if isinstance(came, NotTaken):
        return came.refusal.value
    return "unknown" if isinstance(came, MaybeTaken) else "answered"


def _steps(runtime: Runtime, sending: Sending, came: object) -> list[Step]:
    job, attempt = sending.job, sending.attempt
    if isinstance(came, NotTaken):
        told: tuple[facts.Fact, ...] = (_postponed(runtime, sending, came),)
    elif isinstance(came, MaybeTaken):
        told = (unknown(runtime, attempt.id, came.reason),)
    else:
        assert isinstance(came, tuple)
        told = tuple(_completed(runtime, job, attempt, fact) for fact in came)
    return [Step(job_id=job.id, fact=fact) for fact in told]


def _completed(runtime: Runtime, job: Job, attempt: Attempt, fact: facts.Fact) -> facts.Fact:
    """What only we know of an answer: when the request left, and when to ask about it first."""
    named = replace(fact, attempt_id=attempt.id)
    if not isinstance(named, facts.SubmitAccepted):
        return named
    return replace(
        named,
        submitted_ms=attempt.started_ms,
        ask_ms=learn.first_ask_ms(runtime, job, runtime.now_ms()),
    )


def _postponed(runtime: Runtime, sending: Sending, came: NotTaken) -> facts.SubmitPostponed:
    now_ms, job = runtime.now_ms(), sending.job
    code = ErrorCode(came.refusal.value)
    base_ms, cap_ms = _BACKOFF_MS[code]
    attempt = sending.attempt
    next_ms = now_ms + backoff_ms(
        tries=attempt.postponed,
        base_ms=base_ms,
        cap_ms=cap_ms,
        jitter=runtime.chance(),
        retry_after_ms=came.retry_after_ms,
    )
    runtime.measures.postponed.labels(job.provider, code.value).inc()
    since_ms = attempt.postponed_since_ms if attempt.postponed_since_ms is not None else now_ms
    waiting = Waiting(code=code, message=came.message, since_ms=since_ms, next_try_ms=next_ms)
    return facts.SubmitPostponed(cause=facts.CAUSE_SUBMIT, attempt_id=attempt.id, waiting=waiting)


async def record(runtime: Runtime, advance: Advance, steps: list[Step]) -> None:
    """This function will commit what a submit brought; it does not give up, because nobody else knows it.

    When the provider's id already belongs to another attempt, or the answer cannot be written down whatever is
    tried, it proves nothing: the attempt is uncertain.
    """
    wait_s, failed = 0.05, 0
    while True:
        try:
            await advance.tell(steps)
            return
        except CONSTRAINT_ERRORS:
            steps = _nothing_known(runtime, steps, "the provider answered with the id of another request")
        except (DatabaseUnavailable, WriteConflict):
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the attempt must not stay as it is
            _log.exception("answer_not_recorded", job_id=steps[0].job_id)
            failed += 1
            if failed >= _TRIES_TO_RECORD:
                reason = f"the answer could not be recorded: {type(error).__name__}"
                steps = _nothing_known(runtime, steps, reason)
        await runtime.sleep(wait_s)
        wait_s = min(wait_s * 2, 2.0)


def _nothing_known(runtime: Runtime, steps: Sequence[Step], reason: str) -> list[Step]:
    attempt_id = next(step.fact.attempt_id for step in steps if isinstance(step.fact, facts.Fact))
    return [Step(job_id=steps[0].job_id, fact=unknown(runtime, attempt_id or "", reason))]
