"""Work that is due: held by one at a time, for as long as that one lives."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.effects import Work
from service.storage import work
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.work import Due, Scheduled
from tests.storage.world import Clock, count_in, insert_jobs, new_job, only, rows_in

LEASE_MS = 15_000


def database_now_ms(driver: Driver) -> int:
    now: int = driver.read(lambda tx: tx.clock_ms())
    return now


def scheduled(
    driver: Driver, count: int, *, due_ms: int | None = None, low: bool = False, name: str = "job"
) -> None:
    """Make jobs, each with something to ask that is due (by the database's clock) unless told otherwise."""
    due = database_now_ms(driver) - 1_000 if due_ms is None else due_ms

    def write(tx: Tx) -> None:
        ids = [f"{name}_{number:03d}" for number in range(count)]
        insert_jobs(tx, [new_job(job_id) for job_id in ids])
        work.schedule(
            tx, [Scheduled(job_id, Work.ASK, 1, due + place, low) for place, job_id in enumerate(ids)]
        )

    only(driver, write)


def claim(
    driver: Driver, mine: str, most: int = 100, *, kind: Work = Work.ASK, lease_ms: int = LEASE_MS
) -> list[Due]:
    claimed: list[Due] = only(
        driver, lambda tx: work.claim(tx, kind=kind, mine=mine, lease_ms=lease_ms, most=most)
    )
    return claimed


def test_what_is_due_is_claimed_once_the_oldest_first(driver: Driver) -> None:
    scheduled(driver, 5)
    assert sorted(due.job_id for due in claim(driver, "a", 2)) == ["job_000", "job_001"]
    assert sorted(due.job_id for due in claim(driver, "b", 2)) == ["job_002", "job_003"]
    assert [due.job_id for due in claim(driver, "a", 2)] == ["job_004"]
    assert claim(driver, "b") == []


def test_no_more_is_claimed_than_wanted(driver: Driver) -> None:
    scheduled(driver, 60)
    for most in (1, 3, 7):
        assert len(claim(driver, "a", most)) == most
    held = [row for row in driver.read(lambda tx: rows_in(tx, "work")) if row["claim"] == "a"]
    assert len(held) == 11


def test_what_is_due_later_or_of_another_kind_is_left(driver: Driver) -> None:
    scheduled(driver, 2, due_ms=database_now_ms(driver) + 60_000)
    assert claim(driver, "a") == []
    scheduled(driver, 2, name="other")
    assert claim(driver, "a", kind=Work.SUBMIT) == []
    assert len(claim(driver, "a")) == 2


def test_normal_work_comes_before_low_however_old(driver: Driver) -> None:
    scheduled(driver, 3, low=True, due_ms=1, name="low")
    scheduled(driver, 3)
    assert sorted(due.job_id for due in claim(driver, "a", 4)) == ["job_000", "job_001", "job_002", "low_000"]
    assert sorted(due.job_id for due in claim(driver, "a", 4)) == ["low_001", "low_002"]


def test_racing_claimers_never_get_the_same(database_url: str, clock: Clock) -> None:
    first = open_driver(database_url, clock)
    scheduled(first, 120)
    drivers = [open_driver(database_url, clock) for _ in range(8)]
    together = threading.Barrier(len(drivers))

    def claimer(number: int) -> list[str]:
        got: list[str] = []
        together.wait()
        for _ in range(200):
            taken = claim(drivers[number], f"p{number}", 5)
            got += [due.job_id for due in taken]
            if not taken and len(claimed_of(first)) == 120:
                return got
        raise AssertionError("not all work was claimed in 200 turns")

    with ThreadPoolExecutor(len(drivers)) as pool:
        got = list(pool.map(claimer, range(len(drivers))))
    counted = Counter(job_id for taken in got for job_id in taken)
    assert len(counted) == 120
    assert set(counted.values()) == {1}
    holders = claimed_of(first)
    assert all(holders[job_id] == f"p{number}" for number, taken in enumerate(got) for job_id in taken)
    for driver in (first, *drivers):
        driver.close()


def claimed_of(driver: Driver) -> dict[str, str]:
    rows = driver.read(lambda tx: rows_in(tx, "work"))
    return {row["job_id"]: row["claim"] for row in rows if row["claim"] is not None}


def pass_time(driver: Driver, clock: Clock, ms: int) -> None:
    """Let time pass for the leases: on SQLite by our clock, on PostgreSQL by moving what is due."""
    clock.now_ms += ms
    if driver.dialect == "postgresql":
        column = work.WORK.c.due_ms
        only(driver, lambda tx: tx.run(work.WORK.update().values(due_ms=column - ms)))


def test_a_lease_that_ends_makes_it_claimable(driver: Driver, clock: Clock) -> None:
    scheduled(driver, 1)
    assert len(claim(driver, "dead")) == 1
    pass_time(driver, clock, LEASE_MS - 2_000)
    assert claim(driver, "alive") == []
    pass_time(driver, clock, 3_000)
    assert len(claim(driver, "alive")) == 1
    assert claimed_of(driver) == {"job_000": "alive"}


def test_renewing_keeps_what_is_held_and_only_that(driver: Driver, clock: Clock) -> None:
    scheduled(driver, 3)
    assert len(claim(driver, "a", 2)) == 2
    assert len(claim(driver, "b", 1)) == 1
    pass_time(driver, clock, LEASE_MS - 2_000)
    assert only(driver, lambda tx: work.renew(tx, mine="a", lease_ms=LEASE_MS)) == 2
    assert only(driver, lambda tx: work.renew(tx, mine="nobody", lease_ms=LEASE_MS)) == 0
    pass_time(driver, clock, 3_000)
    assert [due.job_id for due in claim(driver, "c")] == ["job_002"]
    assert claimed_of(driver) == {"job_000": "a", "job_001": "a", "job_002": "c"}


def test_only_the_holder_may_end_it_or_put_it_off(driver: Driver) -> None:
    scheduled(driver, 2)
    first, second = sorted(claim(driver, "a"), key=lambda due: due.job_id)
    assert not only(driver, lambda tx: work.done(tx, first, mine="b"))
    assert not only(driver, lambda tx: work.put_off(tx, first, mine="b", due_ms=5))
    assert claimed_of(driver) == {"job_000": "a", "job_001": "a"}
    assert only(driver, lambda tx: work.done(tx, first, mine="a"))
    assert not only(driver, lambda tx: work.done(tx, first, mine="a"))
    assert only(driver, lambda tx: work.put_off(tx, second, mine="a", due_ms=5))
    assert not only(driver, lambda tx: work.put_off(tx, second, mine="a", due_ms=6))
    [row] = driver.read(lambda tx: rows_in(tx, "work"))
    assert (row["job_id"], row["due_ms"], row["tries"], row["claim"]) == ("job_001", 5, 1, None)


def test_tries_are_counted_unless_it_was_no_try(driver: Driver) -> None:
    scheduled(driver, 1)
    for expected, counts in enumerate((True, True, False)):
        [due] = claim(driver, "a")
        assert due.tries == expected
        only(
            driver,
            lambda tx, due=due, counts=counts: work.put_off(tx, due, mine="a", due_ms=1, counts=counts),
        )
    [due] = claim(driver, "a")
    assert due.tries == 2


def test_scheduling_anew_voids_the_claim(driver: Driver) -> None:
    scheduled(driver, 1)
    [due] = claim(driver, "a")
    only(driver, lambda tx: work.schedule(tx, [Scheduled("job_000", Work.ASK, 1, 7)]))
    assert not only(driver, lambda tx: work.done(tx, due, mine="a"))
    assert not only(driver, lambda tx: work.put_off(tx, due, mine="a", due_ms=8))
    assert only(driver, lambda tx: work.renew(tx, mine="a", lease_ms=LEASE_MS)) == 0
    [row] = driver.read(lambda tx: rows_in(tx, "work"))
    assert (row["due_ms"], row["tries"], row["claim"]) == (7, 0, None)


def test_a_stop_gives_everything_back_at_once(driver: Driver) -> None:
    scheduled(driver, 3)
    claim(driver, "a", 2)
    claim(driver, "b", 1)
    assert only(driver, lambda tx: work.release(tx, mine="a")) == 2
    assert sorted(due.job_id for due in claim(driver, "c")) == ["job_000", "job_001"]
    assert claimed_of(driver)["job_002"] == "b"


def test_hastening_brings_forward_and_never_back(driver: Driver) -> None:
    scheduled(driver, 2, due_ms=1_000)
    hastened = [
        ("job_000", Work.ASK, 1, 400),
        ("job_001", Work.ASK, 1, 5_000),
        ("job_000", Work.SUBMIT, 1, 1),
    ]
    assert only(driver, lambda tx: work.hasten(tx, hastened)) == 1
    dues = {row["job_id"]: row["due_ms"] for row in driver.read(lambda tx: rows_in(tx, "work"))}
    assert dues == {"job_000": 400, "job_001": 1_001}


def test_hastening_leaves_what_is_claimed(driver: Driver) -> None:
    scheduled(driver, 1)
    claim(driver, "a")
    before = driver.read(lambda tx: rows_in(tx, "work"))
    assert only(driver, lambda tx: work.hasten(tx, [("job_000", Work.ASK, 1, 0)])) == 0
    assert driver.read(lambda tx: rows_in(tx, "work")) == before


def test_dropping_takes_claimed_work_too_and_nothing_else(driver: Driver) -> None:
    scheduled(driver, 3)
    only(driver, lambda tx: work.schedule(tx, [Scheduled("job_000", Work.CANCEL, 1, 0)]))
    claim(driver, "a")
    only(driver, lambda tx: work.drop(tx, [("job_000", Work.ASK, 1), ("job_001", Work.ASK, 2)]))
    left = {(row["job_id"], row["kind"]) for row in driver.read(lambda tx: rows_in(tx, "work"))}
    assert left == {("job_000", "cancel"), ("job_001", "ask"), ("job_002", "ask")}
    only(driver, lambda tx: work.drop_all(tx, ["job_000", "job_001", "job_of_nobody"]))
    assert [row["job_id"] for row in driver.read(lambda tx: rows_in(tx, "work"))] == ["job_002"]


def test_the_next_due_time_counts_low_work_and_leases(driver: Driver) -> None:
    def look(kind: Work) -> int | None:
        told: int | None = driver.read(lambda tx: work.next_due_ms(tx, kind))
        return told

    assert look(Work.ASK) is None
    scheduled(driver, 1, due_ms=500)
    scheduled(driver, 1, due_ms=300, low=True, name="low")
    assert look(Work.ASK) == 300
    assert look(Work.SUBMIT) is None
    now = database_now_ms(driver)
    claim(driver, "a")
    told = look(Work.ASK)
    assert told is not None
    assert now + LEASE_MS <= told <= now + LEASE_MS + 10_000


def test_work_is_counted_by_kind(driver: Driver) -> None:
    scheduled(driver, 3, due_ms=100)
    only(driver, lambda tx: work.schedule(tx, [Scheduled("job_000", Work.SUBMIT, 0, 50, True)]))
    told = driver.read(lambda tx: work.counts(tx, now_ms=101))
    assert told == {"ask": (3, 2), "submit": (1, 1)}
    assert driver.read(lambda tx: count_in(tx, "work")) == 4


@pytest.mark.parametrize("act", ["renew", "release"])
def test_a_holder_does_not_block_whoever_ends_his_jobs(postgresql_url: str, clock: Clock, act: str) -> None:
    """Two transactions that touch many rows of work in different orders must not wait for each other for good."""
    driver, other = open_driver(postgresql_url, clock), open_driver(postgresql_url, clock)
    scheduled(driver, 2)
    claim(driver, "a")
    touched, go_on = threading.Event(), threading.Event()

    def ending(tx: Tx) -> None:
        work.drop_all(tx, ["job_001"])
        # Whatever is waited for brings what was put off before it.
        tx.clock_ms()
        touched.set()
        assert go_on.wait(10)
        work.drop_all(tx, ["job_000"])

    def held(tx: Tx) -> int:
        return work.renew(tx, mine="a", lease_ms=LEASE_MS) if act == "renew" else work.release(tx, mine="a")

    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(only, driver, ending)
        assert touched.wait(10)
        holding = pool.submit(only, other, held)
        if act == "renew":
            assert holding.result(10) == 1, "what is just being deleted is passed over"
        go_on.set()
        ended.result(10)
        holding.result(10)
    assert driver.read(lambda tx: count_in(tx, "work")) == 0
    driver.close()
    other.close()
