"""Jobs, attempts and facts for tests of the machine; what a test does not name is plain."""

from decimal import Decimal
from typing import Any

from service.domain import facts
from service.domain.failures import ErrorCode, JobError, Waiting
from service.domain.ids import AttemptId, JobId
from service.domain.job import Attempt, Job
from service.domain.results import Image, Output
from service.domain.states import AttemptState, JobState, OnUncertain

NOW = 1_800_000_000_000
UNKNOWN_ATTEMPT = "att_of_nobody"
OUTPUT = Output(images=(Image(url="https://files.example/1.png"),), seed="15860307465884635512", raw={"a": 1})
KEPT = (Image(url="https://files.example/1.png", artifact_id="art_1", sha256="00", size_bytes=7),)
FAILURE = JobError(code=ErrorCode.PROVIDER_FAILED, message="It broke.")
BLOCKED = JobError(code=ErrorCode.CONTENT_BLOCKED, message="Not allowed.")
PARKED = Waiting(
    code=ErrorCode.INSUFFICIENT_CREDIT, message="No credit.", since_ms=NOW, next_try_ms=NOW + 60_000
)


def attempt_id(number: int) -> AttemptId:
    return AttemptId(f"att_{number}")


def attempt(number: int = 1, state: AttemptState = AttemptState.SUBMITTING, **fields: Any) -> Attempt:
    return Attempt(
        **{
            "id": attempt_id(number),
            "number": number,
            "provider": "fal",
            "model": "fal-ai/flux-2-pro",
            "state": state,
            "secret_key_id": "k1",
            "started_ms": NOW - 1_000,
            **fields,
        }
    )


def taken(number: int = 1, state: AttemptState = AttemptState.QUEUED, **fields: Any) -> Attempt:
    """Make an attempt whose id at the provider is known."""
    return attempt(
        number, state, **{"provider_request_id": f"req_{number}", "submitted_ms": NOW - 900, **fields}
    )


def job(state: JobState = JobState.ACCEPTED, *attempts: Attempt, **fields: Any) -> Job:
    """Make a job as the machine leaves one in this state."""
    final = state in {"succeeded", "failed", "blocked", "canceled", "expired"}
    ended: dict[str, Any] = {"completed_ms": NOW - 500} if final else {}
    if final:
        ended["output" if state is JobState.SUCCEEDED else "error"] = (
            OUTPUT if state is JobState.SUCCEEDED else FAILURE
        )
    return Job(
        **{
            "id": JobId("job_1"),
            "tenant": "default",
            "provider": "fal",
            "model": "fal-ai/flux-2-pro",
            "state": state,
            "version": 3,
            "created_ms": NOW - 2_000,
            "updated_ms": NOW - 1_000,
            "deadline_ms": NOW + 3_600_000,
            "deadline_s": 3600,
            "attempts": attempts,
            **ended,
            **fields,
        }
    )


def resubmitting(state: JobState, *attempts: Attempt, **fields: Any) -> Job:
    return job(state, *attempts, on_uncertain=OnUncertain.RESUBMIT, **fields)


def of(number: int) -> dict[str, Any]:
    return {"attempt_id": attempt_id(number)}


def started(number: int = 1) -> facts.SubmitStarted:
    return facts.SubmitStarted(cause="submit", secret_key_id="k1", **of(number))


def postponed(number: int = 1) -> facts.SubmitPostponed:
    return facts.SubmitPostponed(cause="submit", waiting=PARKED, **of(number))


def accepted(number: int = 1, **fields: Any) -> facts.SubmitAccepted:
    told = {"cause": "submit", "provider_request_id": f"req_{number}", "ask_ms": NOW + 30_000, **of(number)}
    return facts.SubmitAccepted(**{**told, **fields})


def unknown(number: int = 1) -> facts.SubmitUnknown:
    return facts.SubmitUnknown(
        cause="submit", reason="timeout", reconcile_ms=NOW + 10_000, resubmit_ms=NOW + 120_000, **of(number)
    )


def queued(number: int = 1, position: int | None = 4) -> facts.ProviderQueued:
    return facts.ProviderQueued(cause="poll", queue_position=position, **of(number))


def running(number: int = 1) -> facts.ProviderStarted:
    return facts.ProviderStarted(cause="poll", **of(number))


def succeeded(number: int = 1, cause: str = "callback:cb_1", **fields: Any) -> facts.ProviderSucceeded:
    return facts.ProviderSucceeded(**{"cause": cause, "output": OUTPUT, **of(number), **fields})


def failed(number: int = 1, cause: str = "poll", **fields: Any) -> facts.ProviderFailed:
    return facts.ProviderFailed(**{"cause": cause, "error": FAILURE, **of(number), **fields})


def blocked(number: int = 1, cause: str = "poll", **fields: Any) -> facts.ProviderBlocked:
    return facts.ProviderBlocked(**{"cause": cause, "error": BLOCKED, **of(number), **fields})


def cancel(cause: str = "api:key_1") -> facts.CancelRequested:
    return facts.CancelRequested(cause=cause)


def deadline() -> facts.DeadlinePassed:
    return facts.DeadlinePassed(cause="clock")


def cancel_answered(number: int = 1) -> facts.CancelAnswered:
    return facts.CancelAnswered(cause="poll", answer="too late", **of(number))


def not_used(number: int = 1) -> facts.CallbackNotUsed:
    return facts.CallbackNotUsed(
        cause="callback:cb_2", callback_id="cb_2", verdict="forged", reason="bad signature", **of(number)
    )


def kept(number: int = 1) -> facts.ResultKept:
    return facts.ResultKept(cause="clock", images=KEPT, **of(number))


def lost(number: int = 1) -> facts.ResultLost:
    return facts.ResultLost(cause="clock", reason="404", **of(number))


def every_fact(number: int) -> list[facts.Fact]:
    """Make one of each class, about the attempt with this number."""
    return [
        started(number),
        postponed(number),
        accepted(number),
        unknown(number),
        queued(number),
        running(number),
        succeeded(number, cost_usd=Decimal("0.03")),
        failed(number),
        blocked(number),
        cancel(),
        cancel_answered(number),
        deadline(),
        not_used(number),
        kept(number),
        lost(number),
    ]
