"""The job as callers and consumers see it (contract, section 4)."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from service.domain.failures import JobError, Waiting
from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL
from service.domain.money import total, usd_text
from service.domain.results import Image, Output
from service.domain.timestamps import maybe_rfc3339, rfc3339


def job_object(job: Job, *, artifacts_url: str) -> dict[str, Any]:
    """This function will show a job without its input and raw output, as events carry it.

    `artifacts_url` is the base before `/v1/artifacts/…` of files that we keep; empty for relative URLs.
    """
    return {
        "id": job.id,
        "object": "job",
        "state": job.state.value,
        "provider": job.provider,
        "model": job.model,
        "output": _output(job.output, artifacts_url),
        "error": _error(job.error),
        "learned_by": job.learned_by and job.learned_by.value,
        "waiting": _waiting(job.waiting),
        "attempts": [_attempt(attempt, artifacts_url) for attempt in job.attempts],
        "cost": {"estimated_usd": usd_text(job.estimated_usd), "settled_usd": usd_text(settled_usd(job))},
        "metadata": dict(job.metadata),
        "priority": job.priority.value,
        "on_uncertain": job.on_uncertain.value,
        "archive": job.archive,
        "webhook_url": job.webhook_url,
        "retry_of": job.retry_of,
        "deadline_s": job.deadline_s,
        "deadline_at": rfc3339(job.deadline_ms),
        "created_at": rfc3339(job.created_ms),
        "updated_at": rfc3339(job.updated_ms),
        "completed_at": maybe_rfc3339(job.completed_ms),
        "version": job.version,
    }


def settled_usd(job: Job) -> Decimal | None:
    """This function will add what the attempts are known to cost, once the job is final."""
    return total([attempt.cost_usd for attempt in job.attempts]) if job.state in TERMINAL else None


def _attempt(attempt: Attempt, artifacts_url: str) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "number": attempt.number,
        "provider": attempt.provider,
        "model": attempt.model,
        "state": attempt.state.value,
        "provider_request_id": attempt.provider_request_id,
        "queue_position": attempt.queue_position,
        "submitted_at": maybe_rfc3339(attempt.submitted_ms),
        "completed_at": maybe_rfc3339(attempt.completed_ms),
        "learned_by": attempt.learned_by and attempt.learned_by.value,
        "lag_ms": attempt.lag_ms,
        "cost_usd": usd_text(attempt.cost_usd),
        "output": _output(attempt.output, artifacts_url),
    }


def _output(output: Output | None, artifacts_url: str) -> dict[str, Any] | None:
    if output is None:
        return None
    return {"images": [_image(image, artifacts_url) for image in output.images], "seed": output.seed}


def _image(image: Image, artifacts_url: str) -> dict[str, Any]:
    shown = image.as_dict()
    if image.artifact_id is not None:
        shown["url"] = f"{artifacts_url}/v1/artifacts/{image.artifact_id}"
    return shown


def _waiting(waiting: Waiting | None) -> dict[str, Any] | None:
    if waiting is None:
        return None
    return {
        "code": waiting.code.value,
        "message": waiting.message,
        "since": rfc3339(waiting.since_ms),
        "next_try_at": rfc3339(waiting.next_try_ms),
    }


def _error(error: JobError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "code": error.code.value,
        "message": error.message,
        "retryable": error.retryable,
        "provider_status": error.provider_status,
        "provider_error": error.provider_error,
    }


def without_prompts(shown: dict[str, Any]) -> dict[str, Any]:
    """This function will cut what an error of the provider quotes of the input (`detail[].input`), for events."""
    error = shown["error"]
    if error is None or not isinstance(error["provider_error"], Mapping):
        return shown
    detail = error["provider_error"].get("detail")
    if not isinstance(detail, list):
        return shown
    cut = [
        {key: value for key, value in item.items() if key != "input"} if isinstance(item, Mapping) else item
        for item in detail
    ]
    return {**shown, "error": {**error, "provider_error": {**error["provider_error"], "detail": cut}}}
