"""The tail of the stream: one reading for all readers, of which each sees every event of its own once."""

import asyncio
import contextlib
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from service.flows.errors import CursorExpired
from service.flows.feed import feed
from service.flows.reader import Reader
from service.flows.ring import Size
from service.flows.runtime import Runtime
from service.flows.tail import Tail
from service.storage import events, retention
from service.storage.database import DatabaseUnavailable
from service.storage.events import Event
from tests.storage.test_retention import passed
from tests.storage.world import NOW, Process, process


@dataclass
class Scene:
    """A tail that runs, on a database whose reads are counted."""

    process: Process
    tail: Tail
    reads: list[str] = field(default_factory=list)
    broken: threading.Event = field(default_factory=threading.Event)
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def runtime(self) -> Runtime:
        return self.tail.runtime

    async def tell(
        self,
        *,
        tenant: str = "a",
        kind: str = "job.queued",
        job_id: str | None = None,
        count: int = 1,
        size: int = 0,
    ) -> None:
        """Let events happen, as flows do: one commit, then the ring of the bell."""
        made = [
            Event(
                id=f"evt_{next(self._numbers)}",
                tenant=tenant,
                type=kind,
                job_id=job_id,
                job_seq=None if job_id is None else next(self._numbers),
                at_ms=NOW,
                data='{"x":"' + "y" * size + '"}',
            )
            for _ in range(count)
        ]
        await self.runtime.door.write(lambda tx: events.append(tx, made))
        self.runtime.bell.ring({"feed"})

    async def caught_up(self) -> None:
        """Wait until the ring holds the newest event."""
        latest = await self.runtime.door.read(events.latest_seq)
        await until(lambda: self.tail.live and self.tail.ring.head >= latest)


async def until(holds: Callable[[], bool], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(url: str, folder: Path, *, size: Size | None = None) -> AsyncIterator[Scene]:
    async with process(url, folder) as made:
        tail = Tail(replace(made.runtime, sleep=asyncio.sleep), size=size)
        scene = Scene(made, tail)
        real = made.driver.read

        def counted(work: Any) -> Any:
            scene.reads.append(str(work))
            if scene.broken.is_set():
                raise DatabaseUnavailable("away")
            return real(work)

        made.driver.read = counted  # type: ignore[method-assign]
        tail.start()
        try:
            yield scene
        finally:
            scene.broken.clear()
            await tail.stop()


@pytest.fixture
async def scene(database_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with following(database_url, tmp_path) as made:
        yield made


ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def next_of(reader: Reader, most: int = 100, within_s: float = 5) -> list[Event]:
    """Read as a stream does: wait until there is something."""
    async with asyncio.timeout(within_s):
        while not (found := await reader.read(most)):
            await reader.wait(within_s)
    return found


async def nothing_for(reader: Reader, seconds: float = 0.05) -> None:
    await reader.wait(seconds)
    assert await reader.read(100) == []


async def test_a_reader_is_told_what_happens(scene: Scene) -> None:
    await scene.tell(count=3)
    with scene.tail.reader(tenant="a", after=None) as reader:
        assert [event.seq for event in await next_of(reader)] == [1, 2, 3]
        await scene.caught_up()
        reading = asyncio.create_task(next_of(reader))
        await asyncio.sleep(0.02)
        await scene.tell()
        assert [event.seq for event in await reading] == [4]


async def test_a_lost_wake_up_costs_a_second(scene: Scene) -> None:
    with scene.tail.reader(tenant="a", after=0) as reader:
        await nothing_for(reader)
        scene.runtime.bell.ring = lambda topics, **_: None  # type: ignore[method-assign]
        await scene.tell()
        assert [event.seq for event in await next_of(reader, within_s=3)] == [1]


async def test_a_reader_hears_of_its_own_tenant_job_and_types_alone(scene: Scene) -> None:
    asked: list[dict[str, Any]] = [
        {"tenant": "a"},
        {"tenant": "a", "types": ["job.succeeded"]},
        {"tenant": "a", "job_id": "job_2"},
        {"tenant": "b"},
        {"tenant": "a", "job_id": "job_2", "types": ["job.succeeded"]},
    ]
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(scene.tail.reader(after=0, **one)) for one in asked]
        reading = [asyncio.create_task(next_of(reader)) for reader in readers]
        for tenant, kind, job_id in (
            ("a", "job.queued", "job_1"),
            ("b", "job.queued", None),
            ("a", "job.queued", "job_2"),
            ("a", "job.succeeded", "job_1"),
            ("a", "job.succeeded", "job_2"),
        ):
            await scene.tell(tenant=tenant, kind=kind, job_id=job_id)
            await asyncio.sleep(0.02)
        assert [(await one)[0].seq for one in reading] == [1, 4, 3, 2, 5]


@ON_ONE_DATABASE
async def test_a_thousand_idle_readers_ask_the_database_nothing(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(scene.tail.reader(tenant=f"t{number % 50}", after=0))
            for number in range(1000)
        ]
        idle = [asyncio.create_task(reader.wait(60)) for reader in readers]
        await until(lambda: scene.tail.live)
        await asyncio.gather(*idle)  # the ring begins: each looks once more
        for reader in readers:
            assert await reader.read(10) == []
        idle = [asyncio.create_task(reader.wait(60)) for reader in readers]
        before = len(scene.reads)
        await asyncio.sleep(1.3)
        assert len(scene.reads) - before <= 2, "the sweep alone, once a second for all"
        await scene.tell(tenant="t7", count=5)
        await until(lambda: sum(task.done() for task in idle) == 20)
        await asyncio.sleep(0.02)
        assert sum(task.done() for task in idle) == 20, "nobody else is woken"
        after = len(scene.reads)
        for reader, task in zip(readers, idle, strict=True):
            if task.done():
                assert [event.seq for event in await reader.read(10)] == [1, 2, 3, 4, 5]
        assert len(scene.reads) == after, "what they read was read once for all"
        scene.tail.close()
        await asyncio.gather(*idle)


@ON_ONE_DATABASE
async def test_many_are_woken_a_few_at_a_time(scene: Scene) -> None:
    """Else one event for a thousand streams would keep everything else from its turn until all were written."""
    turns: list[int] = []
    done = 0

    async def one(reader: Reader) -> None:
        nonlocal done
        await reader.wait(60)
        done += 1

    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(scene.tail.reader(tenant="a", after=0)) for _ in range(1000)]
        await until(lambda: scene.tail.live)
        waiting = [asyncio.create_task(one(reader)) for reader in readers]
        await asyncio.sleep(0)
        await scene.tell()
        while done < 1000:
            turns.append(done)
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert len({turn for turn in turns if 0 < turn < 1000}) >= 10


@ON_ONE_DATABASE
async def test_nobody_reads_nothing_is_read(scene: Scene) -> None:
    await scene.tell(count=5)
    await asyncio.sleep(1.1)
    assert scene.reads == []
    with scene.tail.reader(tenant="a", after=0):
        await until(lambda: scene.tail.live)
    await until(lambda: not scene.tail.live, within_s=3)
    before = len(scene.reads)
    await scene.tell(count=5)
    await asyncio.sleep(1.1)
    assert len(scene.reads) == before
    assert not scene.tail.ring.since(0)


@ON_ONE_DATABASE
@pytest.mark.parametrize("size", [Size(events=10), Size(bytes=5_000)], ids=["by count", "by bytes"])
async def test_the_ring_is_bounded_and_who_falls_behind_reads_the_database(
    sqlite_url: str, tmp_path: Path, size: Size, database_url: str
) -> None:
    async with following(sqlite_url, tmp_path, size=size) as scene:
        with scene.tail.reader(tenant="a", after=0) as slow, scene.tail.reader(tenant="a", after=0) as quick:
            await until(lambda: scene.tail.live)
            for _ in range(50):
                await scene.tell(size=480)
                assert len(await next_of(quick)) == 1
            assert 8 <= len(scene.tail.ring.since(scene.tail.ring.low)) <= 10
            assert scene.tail.behind(slow.position)
            assert not scene.tail.behind(quick.position)
            seen: list[int] = []
            while len(seen) < 50:
                seen += [event.seq for event in await slow.read(7)]
            assert seen == list(range(1, 51))
            await nothing_for(slow)
            assert not scene.tail.behind(slow.position)


@ON_ONE_DATABASE
async def test_who_waits_for_something_rare_does_not_fall_behind(
    sqlite_url: str, tmp_path: Path, database_url: str
) -> None:
    async with following(sqlite_url, tmp_path, size=Size(events=10)) as scene:
        with scene.tail.reader(tenant="a", types=["job.failed"], after=0) as reader:
            await until(lambda: scene.tail.live)
            waiting = asyncio.create_task(next_of(reader))
            await asyncio.sleep(0.02)
            for _ in range(5):
                await scene.tell(count=10)
                await scene.caught_up()
            before = [one for one in scene.reads if "read_stored" in one]
            await scene.tell(kind="job.failed")
            assert [event.seq for event in await waiting] == [51]
            assert [one for one in scene.reads if "read_stored" in one] == before


async def test_a_heartbeat_between_two_events_passes_over_nothing(scene: Scene) -> None:
    """The wait ends by its time in the moment in which the event has been noted and not yet been told."""
    with scene.tail.reader(tenant="a", after=0) as reader:
        await until(lambda: scene.tail.live)
        seen: list[int] = []

        async def read() -> None:
            while len(seen) < 200:
                await reader.wait(random.random() / 500)
                seen.extend(event.seq for event in await reader.read(100))

        reading = asyncio.create_task(read())
        for _ in range(200):
            await scene.tell()
        async with asyncio.timeout(10):
            await reading
        assert seen == list(range(1, 201))


async def test_readers_of_every_kind_see_each_event_once(database_url: str, tmp_path: Path) -> None:
    """Slow and quick ones, early and late ones, on a ring so small that all of them fall behind."""
    async with following(database_url, tmp_path, size=Size(events=8)) as scene:
        dice = random.Random(7)
        written = 300

        async def follow(after: int | None, *, pause_s: float, tenant: str) -> list[int]:
            seen: list[int] = []
            with scene.tail.reader(tenant=tenant, after=after) as reader:
                while reader.position < written:
                    found = await reader.read(dice.randint(1, 9))
                    seen += [event.seq for event in found]
                    await asyncio.sleep(pause_s * dice.random())
                    if not found:
                        await reader.wait(0.05)
            return seen

        async def write() -> None:
            left = written
            while left:
                count = min(left, dice.randint(1, 20))
                left -= count
                await scene.tell(tenant=dice.choice("ab"), count=count)

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            reading = []
            for place in range(24):
                pause_s = (0.0, 0.005, 0.03)[place % 3]
                after = None if place % 2 else 0
                reading.append(group.create_task(follow(after, pause_s=pause_s, tenant="ab"[place % 2])))
                await asyncio.sleep(0.002)
        for place, one in enumerate(reading):
            own = await scene.runtime.door.read(
                lambda tx, tenant="ab"[place % 2]: events.feed(tx, tenant=tenant, after=0, most=1000)
            )
            assert one.result() == [event.seq for event in own]


async def test_a_cursor_whose_events_are_pruned_is_expired(scene: Scene) -> None:
    await scene.tell(count=6)
    await scene.tell(tenant="b")
    passed(scene.process.driver, 4)
    await scene.runtime.door.write(lambda tx: retention.prune_events(tx, before_ms=NOW + 1, most=100))
    with pytest.raises(CursorExpired) as expired:
        await scene.tail.reader(tenant="a", after=3).read(10)
    assert expired.value.oldest == 4
    assert [event.seq for event in await scene.tail.reader(tenant="a", after=4).read(10)] == [5, 6]
    assert [event.seq for event in await scene.tail.reader(tenant="a", after=None).read(10)] == [5, 6]
    assert [event.seq for event in await scene.tail.reader(tenant="b", after=0).read(10)] == [7], (
        "it lost none"
    )


async def test_a_reader_that_is_overtaken_by_the_pruning_hears_of_it(
    database_url: str, tmp_path: Path
) -> None:
    async with following(database_url, tmp_path, size=Size(events=2)) as scene:
        with scene.tail.reader(tenant="a", after=0) as reader:
            await until(lambda: scene.tail.live)
            await scene.tell(count=10)
            assert [event.seq for event in await next_of(reader, 3)] == [1, 2, 3]
            await scene.caught_up()
            passed(scene.process.driver, 7)
            await scene.runtime.door.write(lambda tx: retention.prune_events(tx, before_ms=NOW + 1, most=100))
            with pytest.raises(CursorExpired):
                await reader.read(3)


async def test_a_reader_outlives_an_outage_of_the_database(scene: Scene) -> None:
    with scene.tail.reader(tenant="a", after=0) as reader:
        await until(lambda: scene.tail.live)
        assert await reader.read(10) == []
        scene.broken.set()
        scene.runtime.bell.ring({"feed"})
        await nothing_for(reader)
        scene.broken.clear()
        await scene.tell()
        assert [event.seq for event in await next_of(reader)] == [1]


async def test_closing_ends_every_reader_at_once(scene: Scene) -> None:
    interrupted: list[bool] = []
    with scene.tail.reader(tenant="a", after=0) as waits, scene.tail.reader(tenant="a", after=0) as busy:
        await until(lambda: scene.tail.live)
        busy.interrupted_by(lambda: interrupted.append(True))
        waiting = asyncio.create_task(waits.wait(60))
        await asyncio.sleep(0.01)
        scene.tail.close()
        async with asyncio.timeout(1):
            await waiting
        assert (waits.ended, busy.ended, interrupted) == (True, True, [True])
    with scene.tail.reader(tenant="a", after=0) as late:
        assert late.ended
        async with asyncio.timeout(1):
            await late.wait(60)


async def test_a_long_poll_is_a_reader_too(scene: Scene) -> None:
    asked: dict[str, Any] = {"tenant": "a", "types": None, "most": 10}
    polling = [asyncio.create_task(feed(scene.tail, after=0, wait_s=30, **asked)) for _ in range(50)]
    await until(lambda: scene.tail.live)
    await asyncio.sleep(0.1)
    before = len(scene.reads)
    await scene.tell(count=2)
    for page in await asyncio.gather(*polling):
        assert ([event.seq for event in page.events], page.following) == ([1, 2], 2)
    assert len(scene.reads) - before < 10, "they did not ask one by one"
    over = await feed(scene.tail, after=2, wait_s=0.05, **asked)
    assert (over.events, over.following) == ([], 2)
    gone = await feed(scene.tail, after=2, wait_s=30, gone=lambda: True, **asked)
    assert gone.events == []


async def test_a_closing_service_answers_long_polls(scene: Scene) -> None:
    polling = asyncio.create_task(feed(scene.tail, tenant="a", after=0, types=None, most=10, wait_s=30))
    await until(lambda: scene.tail.live)
    await asyncio.sleep(0.05)
    scene.tail.close()
    async with asyncio.timeout(1):
        assert (await polling).events == []


async def test_what_happens_while_the_ring_begins_is_not_passed_over(
    database_url: str, tmp_path: Path
) -> None:
    async with process(database_url, tmp_path) as made:
        tail = Tail(replace(made.runtime, sleep=asyncio.sleep))
        scene = Scene(made, tail)
        with tail.reader(tenant="a", after=0) as reader:
            assert await reader.read(10) == []
            waiting = asyncio.create_task(reader.wait(10))
            await asyncio.sleep(0.01)
            await scene.tell(count=3)
            tail.start()
            async with asyncio.timeout(5):
                await waiting
            assert [event.seq for event in await next_of(reader)] == [1, 2, 3]
        await tail.stop()
