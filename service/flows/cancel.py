"""Cancel: the job at once, on the caller's word; at the provider as soon as its id is known."""

from service.domain import facts
from service.domain.job import Job
from service.domain.schedule import backoff_ms
from service.flows.advance import Advance, Step
from service.flows.errors import Conflict, NotFound
from service.flows.runtime import Runtime
from service.flows.subjects import subject_of, without_subject
from service.providers.base import NoNews
from service.storage import jobs, work
from service.storage.work import Due

#: So often a wish to cancel is repeated when it does not get through.
_TRIES = 8


async def cancel(runtime: Runtime, advance: Advance, *, tenant: str, job_id: str, cause: str) -> Job:
    """This function will end a job on its caller's wish; what the provider does all the same is a late result.

    :raises NotFound: if the tenant has no such job.
    :raises Conflict: if the job is final.
    """

    def wish(job: Job) -> facts.Fact | None:
        return (
            facts.CancelRequested(cause=cause) if job.tenant == tenant and job.completed_ms is None else None
        )

    decision = (await advance.tell([Step(job_id=job_id, fact=wish)]))[0]
    if decision is not None and decision.moved:
        return decision.job
    found = (await runtime.door.read(lambda tx: jobs.load(tx, [job_id]))).get(job_id)
    if found is None or found.job.tenant != tenant:
        raise NotFound("there is no such job")
    raise Conflict(f"the job is {found.job.state} and that is final")


async def cancel_at_provider(runtime: Runtime, advance: Advance, due: Due) -> None:
    """This function will tell the provider that an attempt is no longer wanted; its answer moves nothing."""
    subject, job = await subject_of(runtime, due)
    if subject is None or job is None:
        await without_subject(runtime, due, job)
        return
    adapter = runtime.providers[job.provider]
    answer = await runtime.talks[job.provider].run(adapter.cancel(subject))
    if isinstance(answer, NoNews) and due.tries + 1 < _TRIES:
        later = runtime.now_ms() + backoff_ms(
            tries=due.tries,
            base_ms=2_000,
            cap_ms=60_000,
            jitter=runtime.chance(),
            retry_after_ms=answer.retry_after_ms,
        )
        await runtime.door.write(lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=later))
        return
    if isinstance(answer, NoNews):
        answer = facts.CancelAnswered(cause="", answer=f"gave up: {answer.reason}")
    told = facts.CancelAnswered(cause="poll", attempt_id=subject.attempt_id, answer=answer.answer)
    await advance.tell([Step(job_id=due.job_id, fact=told)])
    await runtime.door.write(lambda tx: work.done(tx, due, mine=runtime.process_id))
