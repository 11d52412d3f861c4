"""The stream of events: whoever follows the cursor sees every event once, in the order of commits."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, literal, select

from service.storage import events
from service.storage.database import DatabaseUnavailable, Driver, Tx
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
    """A transaction that stands open in a thread of its own and does what it is told, one thing after the other.

    What it is told may have to wait for another one's lock; then the rest waits behind it.
    """

    def __init__(self, driver: Driver, pool: ThreadPoolExecutor, *ids: str, early: bool = False) -> None:
        self.ids = ids
        self._told: SimpleQueue[str] = SimpleQueue()
        begun = threading.Event()

        def work(tx: Tx) -> None:
            tx.rows(Statement(select(literal(1).label("one"))))
            begun.set()
            if early:
                # As bad as it can be: the numbers are taken long before the commit, and held until then.
                tx.run_last = tx.run_many  # type: ignore[assignment, method-assign]
            events.append(tx, [event(each) for each in ids])
            if self._told.get(timeout=20) == "fail":
                raise ZeroDivisionError

        self._done = pool.submit(only, driver, work)
        assert begun.wait(10)

    def begin_to_end(self, how: str) -> None:
        self._told.put(how)

    def ended(self) -> bool:
        """Wait for the end; tells whether it was a commit."""
        error = self._done.exception(20)
        assert error is None or isinstance(error, ZeroDivisionError), error
        return error is None

    def result(self) -> None:
        self._done.result(20)

    def commit(self) -> None:
        self.begin_to_end("commit")
        self.result()

    def fail(self) -> None:
        self.begin_to_end("fail")
        with pytest.raises(ZeroDivisionError):
            self._done.result(20)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_events_are_numbered_in_the_order_in_which_they_were_written(driver: Driver) -> None:
    append(driver, "evt_1", "evt_2")
    append(driver, "evt_3")
    told = driver.read(lambda tx: events.feed(tx, tenant="default", after=0, most=10))
    assert [(each.id, each.seq) for each in told] == [("evt_1", 1), ("evt_2", 2), ("evt_3", 3)]
    assert driver.read(events.latest_seq) == 3


def test_an_event_stays_as_it_was(driver: Driver) -> None:
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
    [told] = driver.read(lambda tx: events.feed(tx, tenant="default", after=0, most=10))
    assert (told.seq, told) == (1, Event(**{**{n: getattr(written, n) for n in Event.__slots__}, "seq": 1}))


def test_who_commits_later_is_read_later(postgresql_url: str, clock: Clock, pool: ThreadPoolExecutor) -> None:
    """A number drawn before the commit would be passed over by a reader who is already behind it."""
    driver = open_driver(postgresql_url, clock)
    reader = Reader(driver)
    slow = Open(driver, pool, "evt_slow_1", "evt_slow_2")
    append(driver, "evt_quick_1")
    reader.read()
    assert reader.seen == ["evt_quick_1"]
    failing = Open(driver, pool, "evt_undone")
    slow.commit()
    append(driver, "evt_quick_2")
    reader.read()
    failing.fail()
    append(driver, "evt_quick_3")
    reader.read()
    assert reader.seen == ["evt_quick_1", "evt_slow_1", "evt_slow_2", "evt_quick_2", "evt_quick_3"]
    assert reader.cursor == driver.read(events.latest_seq) == 5, "no number is lost to what was undone"
    driver.close()


def test_who_has_taken_numbers_holds_up_the_others_until_its_commit(
    postgresql_url: str, clock: Clock, pool: ThreadPoolExecutor
) -> None:
    """If the next one numbered and committed meanwhile, a reader could pass over what commits later."""
    driver = open_driver(postgresql_url, clock)
    holding = Open(driver, pool, "evt_1", "evt_2", early=True)
    until_somebody_holds_the_counter(postgresql_url)
    behind = pool.submit(append, driver, "evt_3")
    reader = Reader(driver)
    reader.read()
    assert reader.seen == []
    assert not behind.done()
    holding.commit()
    behind.result(10)
    reader.read()
    assert reader.seen == ["evt_1", "evt_2", "evt_3"]
    assert reader.cursor == 3
    driver.close()


def test_who_dies_with_numbers_in_his_hands_leaves_no_hole(
    postgresql_url: str, clock: Clock, pool: ThreadPoolExecutor
) -> None:
    driver = open_driver(postgresql_url, clock)
    append(driver, "evt_1")
    dying = Open(driver, pool, "evt_lost_1", "evt_lost_2", early=True)
    until_somebody_holds_the_counter(postgresql_url)
    behind = pool.submit(append, driver, "evt_2")
    with psycopg.connect(postgresql_url, autocommit=True) as operator:
        holders = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
        [(pid,)] = operator.execute(holders).fetchall()
        operator.execute("SELECT pg_terminate_backend(%s)", [pid])
    behind.result(10)
    dying.begin_to_end("commit")
    with pytest.raises(DatabaseUnavailable):
        dying.result()
    append(driver, "evt_3")
    reader = Reader(driver)
    reader.read()
    assert reader.seen == ["evt_1", "evt_2", "evt_3"]
    assert reader.cursor == driver.read(events.latest_seq) == 3
    driver.close()


def until_somebody_holds_the_counter(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as operator:
        for _ in range(500):
            try:
                operator.execute("SELECT 1 FROM counter WHERE name = 'event_seq' FOR UPDATE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                return
            time.sleep(0.01)
    raise AssertionError("nobody took a number")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_however_transactions_interleave_a_reader_misses_nothing(
    postgresql_url: str, pool: ThreadPoolExecutor, data: st.DataObject
) -> None:
    with closing(open_driver(postgresql_url, Clock())) as driver:
        only(driver, lambda tx: tx.run(Statement(delete(EVENT))))
        reader = Reader(driver)
        reader.cursor = driver.read(events.latest_seq)
        began = reader.cursor
        committed = interleaved(driver, reader, pool, data)
        reader.read()
        assert len(reader.seen) == len(set(reader.seen))
        assert sorted(reader.seen) == sorted(committed)
        assert reader.cursor == began + len(committed) == driver.read(events.latest_seq), (
            "and there are no holes"
        )


def interleaved(driver: Driver, reader: Reader, pool: ThreadPoolExecutor, data: st.DataObject) -> list[str]:
    """Let transactions begin, number early or with the commit, commit, fail and be read in any order; tells what is committed."""
    began: list[Open] = []
    open_still: list[Open] = []
    acts = st.sampled_from(["open", "open early", "commit", "commit", "fail", "read"])
    try:
        for place, act in enumerate(data.draw(st.lists(acts, max_size=25))):
            if act.startswith("open") and len(open_still) < 6:
                ids = [f"evt_{place:02d}_{more}" for more in range(1 + place % 3)]
                open_still.append(Open(driver, pool, *ids, early=act == "open early"))
                began.append(open_still[-1])
            elif act in ("commit", "fail") and open_still:
                open_still.pop(data.draw(st.integers(0, len(open_still) - 1))).begin_to_end(act)
            elif act == "read":
                reader.read(2)
    finally:
        for left in open_still:
            left.begin_to_end("fail")
        # Also when the drawing broke off: what is told to commit must not do so in the next example.
        ended = [opened.ended() for opened in began]
    return [each for opened, kept in zip(began, ended, strict=True) if kept for each in opened.ids]


def test_writers_and_readers_all_at_once(database_url: str, clock: Clock, pool: ThreadPoolExecutor) -> None:
    drivers = [open_driver(database_url, clock) for _ in range(5)]
    writing = [threading.Event() for _ in range(3)]

    def write(writer: int) -> None:
        try:
            for turn in range(30):
                append(drivers[writer], f"evt_{writer}_{turn:02d}a", f"evt_{writer}_{turn:02d}b")
        finally:
            writing[writer].set()

    def until_written(act: Callable[[], None]) -> None:
        while not all(done.is_set() for done in writing):
            act()
        act()

    readers = [Reader(drivers[3]), Reader(drivers[4])]
    running = [pool.submit(write, writer) for writer in range(3)]
    running += [pool.submit(until_written, reader.read) for reader in readers]
    for each in running:
        each.result(60)
    for reader in readers:
        assert len(reader.seen) == len(set(reader.seen)) == 180
        for writer in range(3):
            own = [each for each in reader.seen if each.startswith(f"evt_{writer}_")]
            assert own == sorted(own), "one writer's commits are in their order"
    assert readers[0].seen == readers[1].seen
    assert drivers[0].read(events.latest_seq) == 180
    for driver in drivers:
        driver.close()


def test_a_tenant_sees_its_own_events_with_holes(driver: Driver) -> None:
    for turn in range(4):
        append(driver, f"evt_a{turn}", tenant="a")
        append(driver, f"evt_b{turn}", tenant="b")
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

    def read(after: int, *types: str) -> list[tuple[int, str]]:
        page = driver.read(lambda tx: events.feed(tx, tenant="default", after=after, most=2, types=types))
        return [(each.seq, each.type) for each in page]

    assert read(0, "job.queued") == [(2, "job.queued"), (5, "job.queued")]
    assert read(5, "job.queued") == [(8, "job.queued")]
    assert read(0, "job.queued", "job.accepted") == [(1, "job.accepted"), (2, "job.queued")]
    assert read(0, "job.lost") == []
