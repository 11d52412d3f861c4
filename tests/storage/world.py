"""What the tests of the storage share: processes of the service without any network, sample rows, reading all back."""

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import bindparam, func, insert, select

from service.domain import facts
from service.domain.history import HistoryLine
from service.domain.ids import JobId
from service.domain.job import Attempt, Job
from service.domain.secrets import KeyRing
from service.domain.states import JobState
from service.flows.accept import Accept, Request
from service.flows.advance import Advance, Step
from service.flows.bell import Bell
from service.flows.learn import Learned
from service.flows.measures import Measures
from service.flows.runtime import Runtime
from service.storage import events, history, jobs
from service.storage.database import Driver, Tx
from service.storage.door import Door
from service.storage.drivers import open_driver
from service.storage.events import Event
from service.storage.files import Files
from service.storage.jobs import NewJob, Stored
from service.storage.statements import Statement
from service.storage.tables import METADATA

NOW = 1_800_000_000_000
KEY = b"0123456789abcdef0123456789abcdef"


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now_ms: int = NOW

    def __call__(self) -> int:
        return self.now_ms


class Inline(Executor):
    """Runs everything at once, in the thread of the caller."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Ids:
    """Ids that sort by creation within this object and are unique among all."""

    def __init__(self) -> None:
        self._own = secrets.token_hex(4)
        self._count = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{next(self._count):08d}{self._own}"


#: Enough of a provider for jobs to be accepted: every input is fine and nothing is known of prices.
ANY_PROVIDER = SimpleNamespace(validate=lambda model, given: [], estimate_usd=lambda model, given: None)


@dataclass(frozen=True)
class Process:
    """One process of the service, as far as it needs no network."""

    driver: Driver
    runtime: Runtime
    accept: Accept
    advance: Advance

    @property
    def door(self) -> Door:
        return self.runtime.door

    async def started(self, job_id: str, attempt_id: str | None = None) -> Attempt:
        """Commit the intent to send an attempt."""
        [decision] = await self.advance.tell([Step(job_id=job_id, fact=self.start(attempt_id))])
        assert decision is not None
        assert decision.moved
        current = decision.job.current
        assert current is not None
        return current

    def start(self, attempt_id: str | None = None) -> facts.SubmitStarted:
        return facts.SubmitStarted(
            cause="submit",
            attempt_id=attempt_id or self.runtime.make_id("att"),
            secret_key_id=self.runtime.keys.current,
        )

    async def taken(self, job_id: str) -> Attempt:
        """Move a job on as if the provider had taken it."""
        attempt = await self.started(job_id)
        told = facts.SubmitAccepted(
            cause="submit", attempt_id=attempt.id, provider_request_id=f"req-{attempt.id}"
        )
        await self.advance.tell([Step(job_id=job_id, fact=told)])
        return attempt


@asynccontextmanager
async def process(
    url: str, folder: Path, *, clock: Clock | None = None, name: str = "p"
) -> AsyncIterator[Process]:
    """Run one process on a database: with the real driver, its own threads, ids and bell."""
    clock = clock or Clock()
    driver = open_driver(url, clock)
    with ThreadPoolExecutor(driver.lanes) as writers, ThreadPoolExecutor(2) as readers:
        door = Door(driver, writers=writers, readers=readers)
        runtime = Runtime(
            door=door,
            now_ms=clock,
            make_id=Ids(),
            chance=lambda: 0.5,
            salt=lambda: secrets.token_hex(16),
            sleep=_no_sleep,
            keys=KeyRing([KEY]),
            providers=cast(Any, {"fal": ANY_PROVIDER}),
            talks={},
            downloads=cast(Any, None),
            egress=cast(Any, None),
            files=Files(folder / "artifacts"),
            bell=Bell(),
            measures=Measures(),
            process_id=name,
            learned=Learned(),
            public_url="https://fluxgate.example",
        )
        yield Process(driver, runtime, Accept(runtime), Advance(runtime))
        await door.close()


async def _no_sleep(seconds: float) -> None:
    raise AssertionError("nothing here may sleep")


def request(**fields: Any) -> Request:
    """Make a request for a job; what a test does not name is plain."""
    return Request(
        **{
            "tenant": "default",
            "cause": "api:key_1",
            "provider": "fal",
            "model": "fal-ai/flux-2-pro",
            "input": {"prompt": "a fox"},
            "input_text": '{"prompt":"a fox"}',
            **fields,
        }
    )


def new_job(job_id: str = "job_1", **fields: Any) -> Job:
    """Make a job as it is when it has just been accepted."""
    return Job(
        **{
            "id": JobId(job_id),
            "tenant": "default",
            "provider": "fal",
            "model": "fal-ai/flux-2-pro",
            "state": JobState.ACCEPTED,
            "version": 1,
            "created_ms": NOW,
            "updated_ms": NOW,
            "deadline_ms": NOW + 3_600_000,
            "deadline_s": 3600,
            **fields,
        }
    )


def insert_jobs(tx: Tx, made: Iterable[Job]) -> None:
    """Insert jobs without history or events."""
    jobs.insert_many(tx, [NewJob(Stored(job, 0, "", 0), "{}") for job in made])


def only(driver: Driver, work: Any) -> Any:
    """Run one piece of work in a transaction of its own; gives its value or raises what it raised."""
    [outcome] = driver.write([work])
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def walk(driver: Driver, read: Callable[[Tx, Any], list[Any]]) -> list[Any]:
    """Read page after page until one is empty, each from behind the last thing of the one before."""
    seen: list[Any] = []
    while page := driver.read(partial(lambda last, tx: read(tx, last), seen[-1] if seen else None)):
        seen += page
    return seen


def put(tx: Tx, table: str, values: Mapping[str, Any]) -> None:
    """Insert one row as it is given."""
    found = METADATA.tables[table]
    tx.run(Statement(insert(found).values({name: bindparam(name) for name in values})), **values)


def rows_in(tx: Tx, table: str) -> list[dict[str, Any]]:
    """Read a whole table."""
    return tx.rows(Statement(select(METADATA.tables[table])))


def count_in(tx: Tx, table: str) -> int:
    return int(
        tx.rows(Statement(select(func.count().label("n")).select_from(METADATA.tables[table])))[0]["n"]
    )


@dataclass(frozen=True)
class Story:
    """Everything that is stored about one job."""

    stored: Stored
    lines: list[HistoryLine]
    events: list[Event] = field(default_factory=list)


async def story_of(door: Door, job_id: str, *, tenant: str = "default") -> Story:
    def look(tx: Tx) -> Story:
        told = [
            event for event in events.feed(tx, tenant=tenant, after=0, most=100_000) if event.job_id == job_id
        ]
        return Story(jobs.load(tx, [job_id])[job_id], history.of_job(tx, job_id, most=10_000), told)

    return await door.read(look)
