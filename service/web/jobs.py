"""Calls about jobs: submit, read, list, cancel, retry."""

import asyncio
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from service.domain import canonical, exact_json
from service.domain.cursors import cursor
from service.domain.failures import FieldError
from service.domain.job import Job
from service.domain.states import OnUncertain, Priority
from service.flows import cancel as cancel_flow
from service.flows import pages, read, webhook_url
from service.flows import retry as retry_flow
from service.flows.accept import Request
from service.flows.read import Whole
from service.storage.jobs import Large
from service.storage.search import Filters
from service.web import shown
from service.web.json_body import json_object, nothing_said
from service.web.problems import Problem, wrong
from service.web.replies import id_in_path, json_reply
from service.web.submission import JobRequest, checked
from service.web.visit import Visit

MOST_INPUT = 1024 * 1024
#: Beside the input there is room for metadata in its longest spelling.
_MOST_BODY = MOST_INPUT + 128 * 1024
#: Hashing a body larger than this takes long enough to be done beside the loop.
_LARGE_INPUT = 64 * 1024
#: Bytes of one character in UTF-8, at most.
_WIDEST = 4


async def submit(visit: Visit) -> Response:
    """This function will accept a job: 202 once it is committed, 200 with the first one for a repeated key."""
    key = _idempotency_key(visit)
    body = await json_object(visit, most=_MOST_BODY)
    request = checked(body, visit.service)
    if request.webhook_url is not None:
        await webhook_url.judge(
            visit.service.runtime, request.webhook_url, tenant=visit.caller.tenant, idempotency_key=key
        )
    input_text = exact_json.dumps(request.input)
    if len(input_text) * _WIDEST > MOST_INPUT and len(input_text.encode()) > MOST_INPUT:
        message = "may have at most 1 MiB of JSON"
        raise Problem("too_large", f"the input {message}", errors=[FieldError(path="input", message=message)])
    wanted = _request(visit, request, input_text)
    if key is not None:
        wanted = replace(wanted, idempotency_key=key, body_hash=await _digest(body, len(input_text)))
    accepted = await visit.service.accept(wanted)
    if accepted.replayed:
        return await _whole(visit, accepted.job, headers={"Idempotent-Replayed": "true"})
    large = Large(input_text, None, {})
    return json_reply(_text(visit, accepted.job, large), status=202, headers=_location(accepted.job))


def _request(visit: Visit, asked: JobRequest, input_text: str) -> Request:
    return Request(
        tenant=visit.caller.tenant,
        cause=f"api:{visit.caller.id}",
        provider=asked.provider,
        model=asked.model,
        input=asked.input,
        input_text=input_text,
        deadline_s=asked.deadline_s,
        priority=Priority(asked.priority),
        on_uncertain=OnUncertain(asked.on_uncertain),
        archive=asked.archive,
        metadata=asked.metadata,
        webhook_url=asked.webhook_url,
    )


def _idempotency_key(visit: Visit) -> str | None:
    given = visit.header("idempotency-key")
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= 255 or not all(" " <= character <= "~" for character in key):
        raise wrong("Idempotency-Key", "must be given once, with 1 to 255 printable ASCII characters")
    return key


async def _digest(body: dict[str, Any], size: int) -> str:
    if size <= _LARGE_INPUT:
        return canonical.digest(body)
    return await asyncio.to_thread(canonical.digest, body)


async def one(visit: Visit) -> Response:
    """This function will show one job, with `wait` once it is final."""
    runtime, wait_s = visit.service.runtime, visit.query.get("wait", 0)
    job_id = id_in_path(visit, "job_id", "job")
    async with visit.patience(wait_s) as patience:
        whole = await read.wait_for_job(
            runtime, tenant=visit.caller.tenant, job_id=job_id, wait_s=wait_s, gone=patience.over
        )
    return _shown(visit, whole)


async def listed(visit: Visit) -> Response:
    """This function will list the tenant's jobs that fit the filters, newest first."""
    query = visit.query
    filters = Filters(
        tenant=visit.caller.tenant,
        states=query.get("state", ()),
        provider=query.get("provider"),
        model=query.get("model"),
        created_after_ms=query.get("created_after"),
        created_before_ms=query.get("created_before"),
        metadata=query.get("metadata", {}),
    )
    page = await pages.page(
        visit.service.runtime, filters, before_id=query.get("cursor"), most=query.get("limit", 50)
    )
    following = cursor("jobs", page.jobs[-1].job.id) if page.more else None
    rows = [_text(visit, whole.job, whole.large) for whole in page.jobs]
    return json_reply(shown.list_text(rows, following))


async def cancel(visit: Visit) -> Response:
    """This function will end a job on its caller's wish."""
    job_id = id_in_path(visit, "job_id", "job")
    await nothing_said(visit)
    service, key = visit.service, visit.caller
    job = await cancel_flow.cancel(
        service.runtime, service.advance, tenant=key.tenant, job_id=job_id, cause=f"api:{key.id}"
    )
    return await _whole(visit, job)


async def retry(visit: Visit) -> Response:
    """This function will accept a failed or expired job anew: 202, or 200 with the successor it has already."""
    job_id = id_in_path(visit, "job_id", "job")
    await nothing_said(visit)
    service, key = visit.service, visit.caller
    accepted = await retry_flow.retry(
        service.runtime, service.accept, tenant=key.tenant, job_id=job_id, cause=f"api:{key.id}"
    )
    if accepted.replayed:
        return await _whole(visit, accepted.job, headers={"Idempotent-Replayed": "true"})
    return await _whole(visit, accepted.job, status=202, headers=_location(accepted.job))


async def _whole(
    visit: Visit, job: Job, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The job with what of it may be large, as it is now."""
    whole = await read.job(visit.service.runtime, tenant=visit.caller.tenant, job_id=job.id)
    return _shown(visit, whole, status=status, headers=headers)


def _shown(
    visit: Visit, whole: Whole, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return json_reply(_text(visit, whole.job, whole.large), status=status, headers=headers)


def _text(visit: Visit, job: Job, large: Large) -> bytes:
    return shown.job_text(job, large, artifacts_url=visit.service.runtime.public_url or "")


def _location(job: Job) -> dict[str, str]:
    return {"Location": f"/v1/jobs/{job.id}"}
