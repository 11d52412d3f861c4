"""Between rows and the domain's values: plain columns here, frozen dataclasses there."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

from service.domain import exact_json
from service.domain.failures import ErrorCode, JobError, Waiting
from service.domain.ids import AttemptId, JobId
from service.domain.job import Attempt, Job
from service.domain.money import usd_text
from service.domain.results import Image, Output
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain, Priority
from service.storage.statements import Row


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _learned(text: str | None) -> LearnedBy | None:
    return None if text is None else LearnedBy(text)


def _output(text: str | None) -> Output | None:
    """The output without `raw`, which is only read where it is shown."""
    if text is None:
        return None
    kept = exact_json.loads(text)
    return Output(images=tuple(Image(**image) for image in kept["images"]), seed=kept["seed"])


def output_text(output: Output | None) -> str | None:
    """This function will write an output without its raw part, for a row."""
    if output is None:
        return None
    images = [image.as_dict() for image in output.images]
    return exact_json.dumps({"images": images, "seed": output.seed})


def waiting_text(waiting: Waiting | None) -> str | None:
    """This function will write why a job waits, for a row."""
    return None if waiting is None else exact_json.dumps(asdict(waiting))


def error_text(error: JobError | None) -> str | None:
    """This function will write an error, for a row.

    What the provider said is a text of its own in it: it may be nested as deeply as we read at all.
    """
    if error is None:
        return None
    said = exact_json.dumps(error.provider_error)
    return exact_json.dumps({**asdict(replace(error, provider_error=None)), "provider_error": said})


def _waiting(text: str | None) -> Waiting | None:
    if text is None:
        return None
    kept = exact_json.loads(text)
    return Waiting(**{**kept, "code": ErrorCode(kept["code"])})


def _error(text: str | None) -> JobError | None:
    if text is None:
        return None
    kept = exact_json.loads(text)
    said = exact_json.loads(kept["provider_error"])
    return JobError(**{**kept, "code": ErrorCode(kept["code"]), "provider_error": said})


def attempt_of(row: Row) -> Attempt:
    """This function will read an attempt from its row."""
    return Attempt(
        id=AttemptId(row["id"]),
        number=row["number"],
        provider=row["provider"],
        model=row["model"],
        state=AttemptState(row["state"]),
        secret_key_id=row["secret_key_id"],
        started_ms=row["started_ms"],
        postponed=row["postponed"],
        postponed_since_ms=row["postponed_since_ms"],
        provider_request_id=row["provider_request_id"],
        links=exact_json.loads(row["links"]) if row["links"] != "{}" else {},
        queue_position=row["queue_position"],
        submitted_ms=row["submitted_ms"],
        completed_ms=row["completed_ms"],
        learned_by=_learned(row["learned_by"]),
        lag_ms=row["lag_ms"],
        cost_usd=_decimal(row["cost_usd"]),
        outcome=None if row["outcome"] is None else AttemptState(row["outcome"]),
        output=_output(row["output"]),
    )


def attempt_values(attempt: Attempt) -> dict[str, Any]:
    """This function will give the columns of an attempt that change, with its id."""
    return {
        "id": attempt.id,
        "state": attempt.state.value,
        "started_ms": attempt.started_ms,
        "postponed": attempt.postponed,
        "postponed_since_ms": attempt.postponed_since_ms,
        "provider_request_id": attempt.provider_request_id,
        "links": exact_json.dumps(attempt.links) if attempt.links else "{}",
        "queue_position": attempt.queue_position,
        "submitted_ms": attempt.submitted_ms,
        "completed_ms": attempt.completed_ms,
        "learned_by": attempt.learned_by and attempt.learned_by.value,
        "lag_ms": attempt.lag_ms,
        "cost_usd": usd_text(attempt.cost_usd),
        "outcome": attempt.outcome and attempt.outcome.value,
        "output": output_text(attempt.output),
    }


def job_of(row: Row, attempts: Sequence[Row]) -> Job:
    """This function will read a job from its row and those of its attempts, in their order."""
    metadata: Mapping[str, str] = (
        exact_json.loads(row["metadata_json"]) if row["metadata_json"] != "{}" else {}
    )
    return Job(
        id=JobId(row["id"]),
        tenant=row["tenant"],
        provider=row["provider"],
        model=row["model"],
        state=JobState(row["state"]),
        version=row["version"],
        created_ms=row["created_ms"],
        updated_ms=row["updated_ms"],
        deadline_ms=row["deadline_ms"],
        deadline_s=row["deadline_s"],
        on_uncertain=OnUncertain(row["on_uncertain"]),
        priority=Priority(row["priority"]),
        archive=bool(row["archive"]),
        metadata=metadata,
        webhook_url=row["webhook_url"],
        retry_of=row["retry_of"] and JobId(row["retry_of"]),
        estimated_usd=_decimal(row["estimated_usd"]),
        completed_ms=row["completed_ms"],
        learned_by=_learned(row["learned_by"]),
        waiting=_waiting(row["waiting"]),
        error=_error(row["error"]),
        output=_output(row["output"]),
        attempts=tuple(attempt_of(attempt) for attempt in attempts),
    )


def job_values(job: Job) -> dict[str, Any]:
    """This function will give the columns of a job that change, with its id."""
    return {
        "id": job.id,
        "state": job.state.value,
        "version": job.version,
        "updated_ms": job.updated_ms,
        "completed_ms": job.completed_ms,
        "learned_by": job.learned_by and job.learned_by.value,
        "waiting": waiting_text(job.waiting),
        "error": error_text(job.error),
        "output": output_text(job.output),
    }
