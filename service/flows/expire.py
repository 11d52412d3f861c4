"""Expire: a deadline ends our waiting; it is no verdict on what the provider did."""

from service.domain import facts
from service.domain.job import Job
from service.flows.advance import Advance, Step
from service.flows.runtime import Runtime
from service.storage import jobs

_MOST = 200


async def expire(runtime: Runtime, advance: Advance) -> int:
    """This function will end overdue jobs, a batch at a time, and tell how many it looked at."""
    now_ms = runtime.now_ms()
    ids = await runtime.door.read(lambda tx: jobs.overdue(tx, now_ms=now_ms, most=_MOST))

    def passed(job: Job) -> facts.Fact | None:
        overdue = job.completed_ms is None and job.deadline_ms <= now_ms
        return facts.DeadlinePassed(cause=facts.CAUSE_CLOCK) if overdue else None

    if ids:
        await advance.tell([Step(job_id=job_id, fact=passed) for job_id in ids])
    return len(ids)
