"""Find what a piece of work is about: the job, its attempt, and the request as the provider knows it."""

from service.domain.effects import Work
from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL
from service.flows.runtime import Runtime
from service.providers.base import Subject
from service.storage import callbacks, jobs, work
from service.storage.database import Tx
from service.storage.work import Due


def attempt_of(job: Job, number: int) -> Attempt | None:
    """This function will find an attempt by its number."""
    return next((attempt for attempt in job.attempts if attempt.number == number), None)


#: So much later work is looked at again that waits for a provider that is switched off.
_SWITCHED_OFF_MS = 30_000
#: Open jobs need these; what else a provider that is switched off cannot do is let go.
_NEEDED = (Work.ASK, Work.RECONCILE)


async def without_subject(runtime: Runtime, due: Due, job: Job | None) -> None:
    """This function will let go of work that has no subject; while only the provider's key is missing it waits."""
    off = job is not None and job.state not in TERMINAL and job.provider not in runtime.providers
    later_ms = runtime.now_ms() + _SWITCHED_OFF_MS

    def leave(tx: Tx) -> None:
        if off and due.kind in _NEEDED:
            work.put_off(tx, due, mine=runtime.process_id, due_ms=later_ms, counts=False)
        else:
            work.done(tx, due, mine=runtime.process_id)

    await runtime.door.write(leave)


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
