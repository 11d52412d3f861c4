"""Find what a piece of work is about: the job, its attempt, and the request as the provider knows it."""

from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL
from service.flows.runtime import Runtime
from service.providers.base import Subject
from service.storage import callbacks, jobs
from service.storage.database import Tx
from service.storage.work import Due


def attempt_of(job: Job, number: int) -> Attempt | None:
    """This function will find an attempt by its number."""
    return next((attempt for attempt in job.attempts if attempt.number == number), None)


async def subject_of(runtime: Runtime, due: Due) -> tuple[Subject | None, Job | None]:
    """This function will read the request that a piece of work is about.

    The subject is None when there is nothing left to ask: the provider has said its last word, its id is not known
    (also not as a candidate), or the provider is switched off.
    """

    def look(tx: Tx) -> tuple[Job | None, str | None]:
        stored = jobs.load(tx, [due.job_id]).get(due.job_id)
        attempt = attempt_of(stored.job, due.number) if stored else None
        if stored is None or attempt is None:
            return None, None
        candidate = attempt.provider_request_id or callbacks.candidates(tx, [attempt.id]).get(attempt.id)
        return stored.job, candidate

    job, request_id = await runtime.door.read(look)
    attempt = attempt_of(job, due.number) if job else None
    if job is None or attempt is None or request_id is None or attempt.outcome is not None:
        return None, job
    if attempt.provider not in runtime.providers:
        return None, job
    subject = Subject(
        attempt_id=attempt.id,
        model=attempt.model,
        provider_request_id=request_id,
        links=attempt.links,
        open=job.state not in TERMINAL,
        now_ms=runtime.now_ms(),
    )
    return subject, job
