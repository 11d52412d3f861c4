"""The narrow door: what is written together, what is refused, and what nobody waits for in vain."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.domain import effects
from service.storage import jobs, lanes, statements, work
from service.storage.batch import Batch
from service.storage.database import DatabaseUnavailable, Driver, Outcome, Tx, Work, WriteConflict
from service.storage.door import Door
from service.storage.drivers import CONSTRAINT_ERRORS, open_driver
from service.storage.jobs import JOB
from service.storage.statements import Statement
from tests.storage.world import Clock, Inline, count_in, insert_jobs, new_job


@asynccontextmanager
async def opened(driver: Driver) -> AsyncIterator[Door]:
    with ThreadPoolExecutor(driver.lanes) as writers, ThreadPoolExecutor(2) as readers:
        door = Door(driver, writers=writers, readers=readers)
        yield door
        await door.close()


@pytest.fixture
async def door(database_url: str, clock: Clock) -> AsyncIterator[Door]:
    async with opened(open_driver(database_url, clock)) as door:
        yield door


class SlowDriver:
    """Stands in for a database whose commits take as long as the test wants."""

    dialect = "sqlite"
    lanes = 1
    group = 512

    def __init__(self) -> None:
        self.go = threading.Event()
        self.groups: list[int] = []

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        assert self.go.wait(10)
        self.groups.append(len(works))
        return [Outcome(value=work(None)) for work in works]  # type: ignore[arg-type]

    def read(self, work: Work) -> Any:
        raise AssertionError("nothing is read")

    def close(self) -> None:
        pass


def inserts(job_id: str) -> Callable[[Tx], str]:
    def insert(tx: Tx) -> str:
        insert_jobs(tx, [new_job(job_id)])
        return job_id

    return insert


async def test_what_was_written_is_read_at_once(door: Door) -> None:
    for number in range(20):
        assert await door.write(inserts(f"job_{number}")) == f"job_{number}"
        assert await door.read(lambda tx: count_in(tx, "job")) == number + 1


async def test_one_after_the_other_nobody_waits_in_vain(door: Door) -> None:
    """Who writes again in the moment that his first write returns must not find the lane asleep."""

    async def busily() -> None:
        for _ in range(30):
            await door.write(lambda tx: None)

    async with asyncio.timeout(20):
        await busily()
        await asyncio.gather(*(busily() for _ in range(5)))


async def test_one_after_the_other_no_item_of_a_batch_waits_in_vain(door: Door) -> None:
    batch = Batch[int, int](door, lambda tx, items: items)

    async def busily() -> list[int]:
        return [await batch(number) for number in range(30)]

    async with asyncio.timeout(20):
        assert await asyncio.gather(*(busily() for _ in range(3))) == [list(range(30))] * 3


async def test_a_reader_sees_one_moment(door: Door) -> None:
    await door.write(inserts("job_1"))
    began, written = threading.Event(), threading.Event()

    def look(tx: Tx) -> tuple[int, int]:
        before = count_in(tx, "job")
        began.set()
        assert written.wait(10)
        return before, count_in(tx, "job")

    reading = asyncio.create_task(door.read(look))
    assert await asyncio.to_thread(began.wait, 10)
    await door.write(inserts("job_2"))
    written.set()
    assert await reading == (1, 1)
    assert await door.read(lambda tx: count_in(tx, "job")) == 2


async def test_a_read_cannot_write_for_good(door: Door) -> None:
    with suppress(DatabaseUnavailable):
        await door.read(inserts("job_1"))
    assert await door.read(lambda tx: count_in(tx, "job")) == 0


async def test_a_failing_piece_harms_only_itself(door: Door) -> None:
    def halfway(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_half")])
        raise ZeroDivisionError

    def twice(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_twice")])
        insert_jobs(tx, [new_job("job_twice")])

    works: list[Callable[[Tx], Any]] = [inserts(f"job_{number}") for number in range(10)]
    works.insert(3, halfway)
    works.insert(7, twice)
    done = await asyncio.gather(*(door.write(work) for work in works), return_exceptions=True)
    assert isinstance(done.pop(7), CONSTRAINT_ERRORS)
    assert isinstance(done.pop(3), ZeroDivisionError)
    assert done == [f"job_{number}" for number in range(10)]
    kept = await door.read(lambda tx: jobs.load(tx, ["job_half", "job_twice", *done]))
    assert sorted(kept) == sorted(done)


async def test_a_failing_item_harms_only_itself(door: Door) -> None:
    def handle(tx: Tx, items: list[str]) -> list[str]:
        insert_jobs(tx, [new_job(item) for item in items])
        if "job_bad" in items:
            raise ZeroDivisionError
        return [item.upper() for item in items]

    batch = Batch[str, str](door, handle)
    done = await asyncio.gather(*map(batch, ["job_a", "job_bad", "job_b"]), return_exceptions=True)
    assert (done[0], done[2]) == ("JOB_A", "JOB_B")
    assert isinstance(done[1], ZeroDivisionError)
    assert await door.read(lambda tx: sorted(jobs.load(tx, ["job_a", "job_bad", "job_b"]))) == [
        "job_a",
        "job_b",
    ]


async def test_a_swallowed_refusal_is_not_reported_as_written(door: Door) -> None:
    """PostgreSQL turns the COMMIT of a failed transaction into a silent ROLLBACK."""
    await door.write(inserts("job_1"))

    def swallowing(tx: Tx) -> str:
        insert_jobs(tx, [new_job("job_2")])
        with suppress(CONSTRAINT_ERRORS):
            insert_jobs(tx, [new_job("job_1")])
        return "written"

    try:
        said = await door.write(swallowing)
    except Exception:
        said = "refused"
    stored = await door.read(lambda tx: count_in(tx, "job"))
    assert (said, stored) in {("written", 2), ("refused", 1)}


async def test_work_is_decided_again_after_a_lost_race(driver: Driver) -> None:
    """On SQLite nobody can be quicker within one transaction, so only PostgreSQL tries again by itself."""
    tries = []

    def lost_twice(tx: Tx) -> str:
        insert_jobs(tx, [new_job(f"job_{len(tries)}")])
        tries.append(1)
        if len(tries) < 3:
            raise WriteConflict
        return "won"

    [outcome] = driver.write([lost_twice])
    if driver.dialect == "postgresql":
        assert outcome == Outcome(value="won")
        assert [row["id"] for row in driver.read(lambda tx: tx.rows(Statement(JOB.select())))] == ["job_2"]
    else:
        assert isinstance(outcome.error, WriteConflict)
        assert driver.read(lambda tx: count_in(tx, "job")) == 0


async def test_a_race_that_is_always_lost_is_told(driver: Driver) -> None:
    tries = []

    def lost(tx: Tx) -> None:
        tries.append(1)
        raise WriteConflict

    [outcome] = driver.write([lost])
    assert isinstance(outcome.error, WriteConflict)
    assert 1 <= len(tries) <= 20


async def test_what_a_canceled_caller_asked_for_is_written(door: Door) -> None:
    waiting = [asyncio.create_task(door.write(inserts(f"job_{number}"))) for number in range(8)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)
    await door.write(inserts("job_last"))
    while await door.read(lambda tx: count_in(tx, "job")) < 9:
        await asyncio.sleep(0.005)


async def test_closing_finishes_what_waits(database_url: str, clock: Clock) -> None:
    async with opened(open_driver(database_url, clock)) as door:
        waiting = [asyncio.create_task(door.write(inserts(f"job_{number}"))) for number in range(20)]
        await asyncio.sleep(0)
    assert sorted(task.result() for task in waiting) == sorted(f"job_{number}" for number in range(20))


async def test_more_waiting_work_than_it_can_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_WAITING", 5)
    driver = SlowDriver()
    async with opened(driver) as door:
        first = asyncio.create_task(door.write(lambda tx: 0))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(door.write(lambda tx: 1)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await door.write(lambda tx: 2)
        driver.go.set()
        assert await asyncio.gather(first, *waiting) == [0, 1, 1, 1, 1, 1]
        assert await door.write(lambda tx: 3) == 3
    assert driver.groups == [1, 5, 1], "what waits meanwhile goes into one commit"


async def test_more_waiting_items_than_it_can_do_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_WAITING", 5)
    driver = SlowDriver()
    async with opened(driver) as door:
        batch = Batch[int, int](door, lambda tx, items: items, most=3)
        first = asyncio.create_task(batch(0))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(batch(number)) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await batch(9)
        driver.go.set()
        assert await asyncio.gather(first, *waiting) == [0, 0, 1, 2, 3, 4]


async def test_executors_are_arguments(database_url: str, clock: Clock) -> None:
    """A simulation runs everything in one thread, in its own order."""
    driver = open_driver(database_url, clock)
    door = Door(driver, writers=Inline(), readers=Inline())
    threads: list[str] = []

    def look(tx: Tx) -> int:
        threads.append(threading.current_thread().name)
        return count_in(tx, "job")

    assert await door.write(look) == 0
    assert await asyncio.gather(door.write(inserts("job_1")), door.write(inserts("job_2"))) == [
        "job_1",
        "job_2",
    ]
    assert await door.read(look) == 2
    await door.close()
    assert set(threads) == {threading.current_thread().name}


async def test_times_of_leases_are_the_databases_own(door: Door, clock: Clock) -> None:
    told = await door.read(lambda tx: tx.clock_ms())
    if door.dialect == "sqlite":
        assert told == clock.now_ms
    else:
        assert told != clock.now_ms
        assert await door.read(lambda tx: tx.clock_ms()) >= told


async def test_statements_count_the_rows_they_touch(door: Door) -> None:
    await door.write(lambda tx: insert_jobs(tx, [new_job(f"job_{number}") for number in range(5)]))
    touched = await door.write(lambda tx: tx.run(Statement(update(JOB).values(version=2))))
    assert touched == 5
    assert (
        await door.write(lambda tx: tx.run(Statement(update(JOB).where(JOB.c.id == "no").values(version=3))))
        == 0
    )


async def test_large_sets_of_rows_are_written_whole(door: Door, tmp_path: Path) -> None:
    made = [new_job(f"job_{number:04d}", metadata={"ключ": f"значение {number}"}) for number in range(1500)]
    await door.write(lambda tx: insert_jobs(tx, made))
    found = await door.read(lambda tx: jobs.load(tx, [job.id for job in made]))
    assert [found[job.id].job for job in made] == made


async def test_a_set_too_large_for_one_parameter_is_written_whole(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "PARAMETER_BYTES", 2_000)
    made = [new_job(f"job_{number:02d}", model="x" * (1 + 300 * (number % 9))) for number in range(40)]
    await door.write(lambda tx: insert_jobs(tx, made))
    found = await door.read(lambda tx: jobs.load(tx, [job.id for job in made]))
    assert [found[job.id].job for job in made] == made


async def test_a_row_with_a_broken_reference_is_refused(door: Door) -> None:
    due = work.Scheduled("job_of_nobody", effects.Work.ASK, 1, 0)
    with pytest.raises(CONSTRAINT_ERRORS):
        await door.write(lambda tx: work.schedule(tx, [due]))
