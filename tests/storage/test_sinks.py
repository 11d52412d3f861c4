"""Where sinks stand: one process at a time holds one, and every statement finds its rows by an index."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from service.storage import events, sinks
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.events import Event
from service.storage.sinks import SINK, Claimed, Standing
from service.storage.statements import Statement
from tests.storage.test_plans import plans_of, whole_tables_read
from tests.storage.world import NOW, Clock, only

NAME = "redis:fluxgate:events"
LEASE_MS = 15_000


def claim(driver: Driver, mine: str, name: str = NAME) -> Claimed | None:
    found: Claimed | None = only(driver, lambda tx: sinks.claim(tx, name, mine=mine, lease_ms=LEASE_MS))
    return found


def row(driver: Driver) -> dict[str, Any]:
    [found] = driver.read(lambda tx: tx.rows(Statement(select(SINK))))
    return dict(found)


def written(driver: Driver, count: int) -> None:
    made = [
        Event(
            id=f"evt_{number}", tenant=f"t{number % 2}", type="job.queued", job_id=None, job_seq=None,
            at_ms=NOW, data="{}",
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    only(driver, lambda tx: events.append(tx, made))


def test_a_sink_begins_before_the_first_event_and_is_one_processes_alone(driver: Driver) -> None:
    assert claim(driver, "a") == Claimed(0, None)
    assert claim(driver, "b") is None
    assert claim(driver, "a") == Claimed(0, None)
    assert claim(driver, "b", "nats:FLUXGATE") == Claimed(0, None)


def test_a_cursor_is_moved_only_by_who_holds_the_sink(driver: Driver) -> None:
    claim(driver, "a")
    assert not only(driver, lambda tx: sinks.move(tx, NAME, mine="b", seq=9, lease_ms=LEASE_MS))
    assert not only(driver, lambda tx: sinks.renew(tx, NAME, mine="b", lease_ms=LEASE_MS))
    assert only(driver, lambda tx: sinks.move(tx, NAME, mine="a", seq=7, lease_ms=LEASE_MS))
    assert row(driver)["seq"] == 7


def test_a_sink_that_is_given_back_remembers_when_and_what_was_wrong(
    driver: Driver, clock: Clock, database_url: str
) -> None:
    claim(driver, "a")
    only(driver, lambda tx: sinks.give_up(tx, NAME, mine="a", kind="denied", since_ms=NOW - 5))
    found = row(driver)
    assert (found["claim"], found["trouble"], found["trouble_since_ms"]) == (None, "denied", NOW - 5)
    assert found["until_ms"] == NOW if database_url.startswith("sqlite") else found["until_ms"] > 0
    assert claim(driver, "b") == Claimed(0, "denied")
    only(driver, lambda tx: sinks.release(tx, NAME, mine="a"))
    assert row(driver)["claim"] == "b"
    only(driver, lambda tx: sinks.move(tx, NAME, mine="b", seq=1, lease_ms=LEASE_MS))
    assert (row(driver)["trouble"], row(driver)["trouble_since_ms"]) == (None, None)
    only(driver, lambda tx: sinks.release(tx, NAME, mine="b"))
    assert row(driver)["claim"] is None
    assert row(driver)["until_ms"] is not None


def test_of_many_that_claim_at_once_one_gets_it(database_url: str, clock: Clock) -> None:
    drivers = [open_driver(database_url, clock) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        came = list(pool.map(lambda place: claim(drivers[place], f"p{place}"), range(4)))
    assert len([one for one in came if one is not None]) == 1
    for driver in drivers:
        driver.close()


def test_events_of_all_tenants_are_read_in_their_order_behind_a_number(driver: Driver) -> None:
    written(driver, 9)
    page = driver.read(lambda tx: sinks.events_after(tx, 3, most=4))
    assert [(event.seq, event.id, event.tenant) for event in page] == [
        (4, "evt_4", "t0"),
        (5, "evt_5", "t1"),
        (6, "evt_6", "t0"),
        (7, "evt_7", "t1"),
    ]
    assert driver.read(lambda tx: sinks.event_id(tx, 5)) == "evt_5"
    assert driver.read(lambda tx: sinks.event_id(tx, 50)) is None


def test_a_sinks_lag_counts_what_is_kept(driver: Driver) -> None:
    assert driver.read(lambda tx: sinks.standing(tx, [NAME])) == [
        Standing(name=NAME, lag=0, trouble=None, trouble_since_ms=None)
    ]
    written(driver, 9)
    claim(driver, "a")
    only(driver, lambda tx: sinks.move(tx, NAME, mine="a", seq=4, lease_ms=LEASE_MS))
    told = driver.read(lambda tx: sinks.standing(tx, [NAME, "kafka:t"]))
    assert [(one.name, one.lag) for one in told] == [(NAME, 5), ("kafka:t", 9)]


@pytest.mark.parametrize(
    "act",
    [
        lambda tx: sinks.claim(tx, NAME, mine="a", lease_ms=1),
        lambda tx: sinks.renew(tx, NAME, mine="a", lease_ms=1),
        lambda tx: sinks.move(tx, NAME, mine="a", seq=1, lease_ms=1),
        lambda tx: sinks.release(tx, NAME, mine="a"),
        lambda tx: sinks.give_up(tx, NAME, mine="a", kind="x", since_ms=1),
        lambda tx: sinks.events_after(tx, 1, most=9),
        lambda tx: sinks.event_id(tx, 1),
        lambda tx: sinks.standing(tx, [NAME]),
    ],
)
def test_no_statement_reads_a_whole_table(driver: Driver, act: Callable[[Tx], Any]) -> None:
    written(driver, 3)
    plans = plans_of(driver, act)
    assert plans
    for plan in plans:
        assert whole_tables_read(driver, plan) == [], plan
