"""Retry: the same request of a job that ended badly, as a new job that names the old one."""

from service.domain import exact_json
from service.domain.ids import JobId
from service.domain.job import Job
from service.domain.states import JobState
from service.flows.accept import Accept, Accepted, Request
from service.flows.errors import Conflict, NotFound
from service.flows.runtime import Runtime
from service.storage import jobs
from service.storage.database import Tx

_RETRYABLE = (JobState.FAILED, JobState.EXPIRED)


async def retry(runtime: Runtime, accept: Accept, *, tenant: str, job_id: str, cause: str) -> Accepted:
    """This function will accept a failed or expired job anew; a repeat gives the same successor.

    :raises NotFound: if the tenant has no such job.
    :raises Conflict: if the job is not `failed` or `expired`, or its provider is switched off.
    """

    def look(tx: Tx) -> tuple[Job | None, str]:
        stored = jobs.load(tx, [job_id]).get(job_id)
        return (None, "") if stored is None else (stored.job, jobs.inputs(tx, [job_id])[job_id])

    old, input_text = await runtime.door.read(look)
    if old is None or old.tenant != tenant:
        raise NotFound("there is no such job")
    if old.state not in _RETRYABLE:
        raise Conflict(f"the job is {old.state}; only a failed or expired job can be retried")
    if old.provider not in runtime.providers:
        raise Conflict(f"the provider {old.provider} has no key and is switched off")
    return await accept(
        Request(
            tenant=tenant,
            cause=cause,
            provider=old.provider,
            model=old.model,
            input=exact_json.loads(input_text),
            input_text=input_text,
            deadline_s=old.deadline_s,
            priority=old.priority,
            on_uncertain=old.on_uncertain,
            archive=old.archive,
            metadata=old.metadata,
            webhook_url=old.webhook_url,
            retry_of=JobId(job_id),
        )
    )
