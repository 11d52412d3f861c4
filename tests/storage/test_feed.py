"""The stream of events: whoever follows the cursor sees every event once, in the order of commits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from service.storage import events
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.events import EVENT, Event
from service.storage.statements import Statement
from tests.storage.world import NOW, Clock, only


def event(
    event_id: str, *, tenant: str = "default", job_id: str | None = None, job_seq: int | None = None
) -> Event:
    return Event(
        id=event_id, tenant=tenant, type="job.queued", job_id=job_id, job_seq=job_seq, at_ms=NOW, data="{}"
    )


def append(driver: Driver, *ids: str, **fields: Any) -> None:
    only(driver, lambda tx: events.append(tx, [event(each, **fields) for each in ids]))


def number(driver: Driver, most: int = 1000) -> None:
    only(driver, lambda tx: events.number(tx, most=most))


class Reader:
    """A consumer who follows the cursor."""

    def __init__(self, driver: Driver, tenant: str = "default") -> None:
        self._driver = driver
        self._tenant = tenant
        self.cursor = 0
        self.seen: list[str] = []

    def read(self, most: int = 3) -> None:
        while True:
            page = self._driver.read(
                lambda tx: events.feed(tx, tenant=self._tenant, after=self.cursor, most=most)
            )
            if not page:
                return
            seqs = [told.seq for told in page]
            assert seqs == sorted(set(seqs))
            assert seqs[0] > self.cursor
            self.cursor = seqs[-1]
            self.seen += [told.id for told in page]


class Open:
    """A transaction that stands open until the test lets it commit or fail, in a thread of its own."""

    def __init__(self, driver: Driver, pool: ThreadPoolExecutor, *ids: str) -> None:
        self._go = threading.Event()
        self._undo = False
        written = threading.Event()

        def work(tx: Tx) -> None:
            events.append(tx, [event(each) for each in ids])
            written.set()
            assert self._go.wait(10)
            if self._undo:
                raise ZeroDivisionError

        self._done = pool.submit(only, driver, work)
        assert written.wait(10)

    def commit(self) -> None:
        self._go.set()
        self._done.result(10)

    def fail(self) -> None:
        self._undo = True
        self._go.set()
        with pytest.raises(ZeroDivisionError):
            self._done.result(10)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_sqlite_numbers_at_once(sqlite_url: str, clock: Clock) -> None:
    driver = open_driver(sqlite_url, clock)
    append(driver, "evt_1", "evt_2")
    append(driver, "evt_3")
    told = driver.read(lambda tx: events.feed(tx, tenant="default", after=0, most=10))
    assert [(each.id, each.seq) for each in told] == [("evt_1", 1), ("evt_2", 2), ("evt_3", 3)]
    assert driver.read(events.latest_seq) == 3
    driver.close()


def test_an_event_is_seen_once_it_is_numbered_and_stays_as_it_was(driver: Driver) -> None:
    written = Event(
        id="evt_1",
        tenant="default",
        type="job.succeeded",
        job_id="job_1",
        job_seq=1,
        at_ms=NOW,
        data='{"state":"succeeded","prompt":"ключ 🦊"}',
    )
    assert driver.read(events.latest_seq) == 0
    only(driver, lambda tx: events.append(tx, [written]))
    number(driver)
    [told] = driver.read(lambda tx: events.feed(tx, tenant="default", after=0, most=10))
    assert (told.seq, told) == (1, Event(**{**{n: getattr(written, n) for n in Event.__slots__}, "seq": 1}))


def test_who_commits_later_is_read_later(postgresql_url: str, clock: Clock, pool: ThreadPoolExecutor) -> None:
    """A number drawn before the commit would be passed over by a reader who is already behind it."""
    driver = open_driver(postgresql_url, clock)
    reader = Reader(driver)
    slow = Open(driver, pool, "evt_slow_1", "evt_slow_2")
    append(driver, "evt_quick_1")
    reader.read()
    assert reader.seen == [], "nothing is seen before it has its number"
    number(driver)
    reader.read()
    assert reader.seen == ["evt_quick_1"]
    failing = Open(driver, pool, "evt_undone")
    slow.commit()
    append(driver, "evt_quick_2")
    number(driver)
    reader.read()
    failing.fail()
    number(driver)
    append(driver, "evt_quick_3")
    number(driver)
    reader.read()
    assert reader.seen == ["evt_quick_1", "evt_slow_1", "evt_slow_2", "evt_quick_2", "evt_quick_3"]
    assert reader.cursor == driver.read(events.latest_seq) == 5, "no number is lost to what was undone"
    driver.close()


def test_a_second_announcer_waits_and_numbers_what_came_meanwhile(
    postgresql_url: str, clock: Clock, pool: ThreadPoolExecutor
) -> None:
    """If it numbered by what it saw before it waited, or took numbers in parallel, a reader could be overtaken."""
    driver = open_driver(postgresql_url, clock)
    append(driver, "evt_1")
    numbered, go_on = threading.Event(), threading.Event()

    def announce(tx: Tx) -> None:
        events.number(tx, most=1000)
        numbered.set()
        assert go_on.wait(10)

    first = pool.submit(only, driver, announce)
    assert numbered.wait(10)
    second = pool.submit(number, driver)
    append(driver, "evt_2")
    reader = Reader(driver)
    reader.read()
    assert reader.seen == []
    go_on.set()
    first.result(10)
    second.result(10)
    reader.read()
    assert reader.seen == ["evt_1", "evt_2"]
    driver.close()


def test_writers_announcers_and_readers_all_at_once(
    database_url: str, clock: Clock, pool: ThreadPoolExecutor
) -> None:
    drivers = [open_driver(database_url, clock) for _ in range(5)]
    writing = threading.Semaphore(0)

    def write(writer: int) -> None:
        for turn in range(25):
            append(drivers[writer], f"evt_{writer}_{turn:02d}a", f"evt_{writer}_{turn:02d}b")
        writing.release()

    def until_written(act: Callable[[], None]) -> None:
        while writing._value < 3:
            act()
        act()

    readers = [Reader(drivers[3]), Reader(drivers[4])]
    running = [pool.submit(write, writer) for writer in range(3)]
    running += [pool.submit(until_written, lambda driver=driver: number(driver, 7)) for driver in drivers[3:]]
    running += [pool.submit(until_written, reader.read) for reader in readers]
    for each in running:
        each.result(60)
    for _ in range(30):
        number(drivers[0], 7)
    for reader in readers:
        reader.read()
        assert len(reader.seen) == len(set(reader.seen)) == 150
        for writer in range(3):
            own = [each for each in reader.seen if each.startswith(f"evt_{writer}_")]
            assert own == sorted(own), "one writer's commits are in their order"
    assert readers[0].seen == readers[1].seen
    assert drivers[0].read(events.latest_seq) == 150
    for driver in drivers:
        driver.close()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_however_transactions_interleave_a_reader_misses_nothing(
    postgresql_url: str, pool: ThreadPoolExecutor, data: st.DataObject
) -> None:
    with closing(open_driver(postgresql_url, Clock())) as driver:
        only(driver, lambda tx: tx.run(Statement(delete(EVENT))))
        reader = Reader(driver)
        reader.cursor = driver.read(events.latest_seq)
        committed = interleaved(driver, reader, pool, data)
        for _ in range(30):
            number(driver, 2)
        reader.read()
    assert len(reader.seen) == len(set(reader.seen))
    assert sorted(reader.seen) == sorted(committed)


def interleaved(driver: Driver, reader: Reader, pool: ThreadPoolExecutor, data: st.DataObject) -> list[str]:
    """Let transactions open, commit and fail, and events be numbered and read, in any order; tells what is committed."""
    standing: list[tuple[Open, list[str]]] = []
    committed: list[str] = []
    drawn = st.lists(st.sampled_from(["open", "commit", "fail", "number", "read"]), max_size=25)
    try:
        for place, act in enumerate(data.draw(drawn)):
            if act == "open" and len(standing) < 4:
                ids = [f"evt_{place:02d}_{more}" for more in range(1 + place % 3)]
                standing.append((Open(driver, pool, *ids), ids))
            elif act in ("commit", "fail") and standing:
                chosen, ids = standing.pop(data.draw(st.integers(0, len(standing) - 1)))
                if act == "fail":
                    chosen.fail()
                else:
                    chosen.commit()
                    committed += ids
            elif act == "number":
                number(driver, 2)
            elif act == "read":
                reader.read(2)
    finally:
        for left, _ in standing:
            left.fail()
    return committed


def test_a_tenant_sees_its_own_events_with_holes(driver: Driver) -> None:
    for turn in range(4):
        append(driver, f"evt_a{turn}", tenant="a")
        append(driver, f"evt_b{turn}", tenant="b")
    number(driver)
    readers = {tenant: Reader(driver, tenant) for tenant in "abc"}
    for reader in readers.values():
        reader.read()
    assert [reader.seen for reader in readers.values()] == [
        ["evt_a0", "evt_a1", "evt_a2", "evt_a3"],
        ["evt_b0", "evt_b1", "evt_b2", "evt_b3"],
        [],
    ]


def test_a_feed_of_some_types_is_the_feed_without_the_others(driver: Driver) -> None:
    kinds = ["job.accepted", "job.queued", "job.succeeded"] * 3
    made = [
        Event(id=f"evt_{place}", tenant="default", type=kind, job_id=None, job_seq=None, at_ms=NOW, data="{}")
        for place, kind in enumerate(kinds)
    ]
    only(driver, lambda tx: events.append(tx, made))
    number(driver)

    def read(after: int, *types: str) -> list[tuple[int, str]]:
        page = driver.read(lambda tx: events.feed(tx, tenant="default", after=after, most=2, types=types))
        return [(each.seq, each.type) for each in page]

    assert read(0, "job.queued") == [(2, "job.queued"), (5, "job.queued")]
    assert read(5, "job.queued") == [(8, "job.queued")]
    assert read(0, "job.queued", "job.accepted") == [(1, "job.accepted"), (2, "job.queued")]
    assert read(0, "job.lost") == []


def test_numbering_takes_no_more_than_wanted_and_tells_the_jobs(postgresql_url: str, clock: Clock) -> None:
    driver = open_driver(postgresql_url, clock)
    made = [event(f"evt_{place}", job_id="job_1", job_seq=place) for place in range(1, 6)]
    only(driver, lambda tx: events.append(tx, made))
    assert only(driver, lambda tx: events.number(tx, most=3)) == 3
    assert only(driver, lambda tx: events.number(tx, most=3)) == 2
    assert only(driver, lambda tx: events.number(tx, most=3)) == 0
    reader = Reader(driver)
    reader.read()
    assert reader.seen == [f"evt_{place}" for place in range(1, 6)]
    driver.close()
