"""Expire: a deadline ends our waiting; it is no verdict on what the provider did."""

import asyncio

import structlog

from service.domain import facts
from service.domain.job import Job
from service.flows.advance import Advance, Step
from service.flows.runtime import Runtime
from service.storage import jobs

_MOST = 200

_log = structlog.get_logger("fluxgate.expire")


async def expire(runtime: Runtime, advance: Advance) -> int:
    """This function will end overdue jobs, a batch at a time, and tell how many it ended.

    :raises DatabaseUnavailable: if overdue jobs cannot be looked for.
    """
    now_ms = runtime.now_ms()
    ids = await runtime.door.read(lambda tx: jobs.overdue(tx, now_ms=now_ms, most=_MOST))

    def passed(job: Job) -> facts.Fact | None:
        overdue = job.completed_ms is None and job.deadline_ms <= now_ms
        return facts.DeadlinePassed(cause=facts.CAUSE_CLOCK) if overdue else None

    told = await asyncio.gather(
        *(advance.tell([Step(job_id=job_id, fact=passed)]) for job_id in ids), return_exceptions=True
    )
    ended = 0
    for job_id, came in zip(ids, told, strict=True):
        if isinstance(came, BaseException):
            # One that cannot be ended must not keep the others from it.
            _log.warning("expiry_failed", job_id=job_id, reason=type(came).__name__)
        elif came[0] is not None and came[0].moved:
            ended += 1
    return ended
