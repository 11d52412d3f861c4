"""Read: jobs, histories and callbacks of one tenant, and waiting for a job."""

from collections.abc import Callable
from dataclasses import dataclass

from service.domain.history import HistoryLine
from service.domain.job import Job
from service.domain.machine import TERMINAL
from service.flows.errors import NotFound
from service.flows.runtime import Runtime
from service.storage import callbacks, history, jobs, search
from service.storage.artifacts import Artifact
from service.storage.artifacts import one as one_artifact
from service.storage.database import Tx
from service.storage.jobs import Large
from service.storage.search import Filters
from service.storage.statements import Row

#: A waiting reader looks by itself so often, should a wake-up be lost.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    """A job with its input and raw outputs, as one snapshot."""

    job: Job
    large: Large


def _own(tx: Tx, tenant: str, job_id: str) -> Job:
    stored = jobs.load(tx, [job_id]).get(job_id)
    if stored is None or stored.job.tenant != tenant:
        raise NotFound("there is no such job")
    return stored.job


async def job(runtime: Runtime, *, tenant: str, job_id: str) -> Whole:
    """This function will read one job whole.

    :raises NotFound: if the tenant has no such job.
    """

    def look(tx: Tx) -> Whole:
        found = _own(tx, tenant, job_id)
        large = jobs.large(tx, job_id)
        assert large is not None, "one snapshot"
        return Whole(found, large)

    return await runtime.door.read(look)


async def wait_for_job(
    runtime: Runtime, *, tenant: str, job_id: str, wait_s: float, gone: Callable[[], bool] = lambda: False
) -> Whole:
    """This function will read a job once it is final, or as it is after `wait_s` seconds.

    `gone` tells whether the service is stopping; then the job is given as it is.

    :raises NotFound: if the tenant has no such job.
    """
    until_ms = runtime.now_ms() + int(wait_s * 1000)
    topic = f"job:{job_id}"
    while True:
        ticket = runtime.bell.ticket(topic)
        try:
            whole = await job(runtime, tenant=tenant, job_id=job_id)
        except BaseException:
            runtime.bell.forget(topic, ticket)
            raise
        left_s = (until_ms - runtime.now_ms()) / 1000
        if whole.job.state in TERMINAL or left_s <= 0 or gone():
            runtime.bell.forget(topic, ticket)
            return whole
        await runtime.bell.wait(topic, ticket, min(left_s, _LOOK_EVERY_S))


async def listed(runtime: Runtime, filters: Filters, *, before_id: str | None, most: int) -> list[Job]:
    """This function will list jobs that fit, newest first."""
    found = await runtime.door.read(lambda tx: search.jobs(tx, filters, before_id=before_id, most=most))
    return [stored.job for stored in found]


async def history_of(
    runtime: Runtime, *, tenant: str, job_id: str, after: int, most: int
) -> list[HistoryLine]:
    """This function will read a job's history, oldest first.

    :raises NotFound: if the tenant has no such job.
    """

    def look(tx: Tx) -> list[HistoryLine]:
        _own(tx, tenant, job_id)
        return history.of_job(tx, job_id, after=after, most=most)

    return await runtime.door.read(look)


async def callbacks_of(runtime: Runtime, *, tenant: str, job_id: str, after: str, most: int) -> list[Row]:
    """This function will list a job's callbacks, oldest first, without bodies.

    :raises NotFound: if the tenant has no such job.
    """

    def look(tx: Tx) -> list[Row]:
        _own(tx, tenant, job_id)
        return callbacks.of_job(tx, job_id, after=after, most=most)

    return await runtime.door.read(look)


async def callback_body(runtime: Runtime, *, tenant: str, job_id: str, callback_id: str) -> Row:
    """This function will read the raw body of one callback, with its headers as JSON text.

    :raises NotFound: if the tenant has no such job, or the job no such callback.
    """

    def look(tx: Tx) -> Row | None:
        _own(tx, tenant, job_id)
        return callbacks.body_of(tx, job_id=job_id, callback_id=callback_id)

    found = await runtime.door.read(look)
    if found is None:
        raise NotFound("there is no such callback")
    return found


async def artifact(runtime: Runtime, *, tenant: str, artifact_id: str) -> Artifact:
    """This function will find one result file.

    :raises NotFound: if the tenant has no such file.
    """
    found = await runtime.door.read(lambda tx: one_artifact(tx, tenant=tenant, artifact_id=artifact_id))
    if found is None:
        raise NotFound("there is no such artifact")
    return found
