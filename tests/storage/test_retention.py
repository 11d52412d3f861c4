"""Retention: what is old goes from the oldest end, and never before everybody was told."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.flows.prune import MOST, Pruned, prune
from service.flows.runtime import Runtime, Timing
from service.storage import deliveries, events, retention, stream
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.events import Event
from service.storage.statements import Statement
from service.storage.tables import METADATA
from tests.storage.test_plans import plans_of, whole_tables_read
from tests.storage.world import NOW, Clock, Process, only, process, put, rows_in

DAY = 86_400_000
KEPT = Timing(keep_events_ms=30 * DAY, keep_deliveries_ms=10 * DAY)


def told(driver: Driver, tenant: str, *ages_days: float) -> None:
    made = [
        Event(
            id=f"evt_{tenant}_{age}_{place}",
            tenant=tenant,
            type="job.queued",
            job_id=None,
            job_seq=None,
            at_ms=int(NOW - age * DAY),
            data="{}",
        )
        for place, age in enumerate(ages_days)
    ]
    only(driver, lambda tx: events.append(tx, made))


def passed(driver: Driver, seq: int) -> None:
    """Let the fan-out be done with events up to a number."""
    counter = METADATA.tables["counter"]

    def work(tx: Tx) -> None:
        tx.run(Statement(counter.delete().where(counter.c.name == "fan_out")))
        put(tx, "counter", {"name": "fan_out", "value": seq})

    only(driver, work)


def delivery(
    driver: Driver, number: int, *, event_id: str = "evt_x", ended_days: float | None, age_days: float
) -> None:
    ended = None if ended_days is None else int(NOW - ended_days * DAY)
    row = {
        "id": f"dlv_{number:04d}",
        "tenant": "a",
        "endpoint_id": f"ep_{number}",
        "event_id": event_id,
        "event_seq": 1,
        "event_type": "job.queued",
        "job_id": None,
        "state": "pending" if ended is None else "succeeded",
        "created_ms": int(NOW - age_days * DAY),
        "next_ms": NOW,
        "tries": 1,
        "step": 1,
        "completed_ms": ended,
        "status": None,
        "error": None,
    }
    tried = {"delivery_id": row["id"], "number": 1, "at_ms": NOW, "took_ms": 1}
    only(driver, lambda tx: (put(tx, "delivery", row), put(tx, "delivery_try", tried)))


def seqs(driver: Driver) -> list[int]:
    return sorted(row["seq"] for row in driver.read(lambda tx: rows_in(tx, "event")))


def pruned(driver: Driver, tenant: str) -> int:
    return int(driver.read(lambda tx: stream.pruned_seq(tx, tenant)))


def lasting(one: Process) -> Runtime:
    return replace(one.runtime, timing=KEPT, sleep=asyncio.sleep)


async def test_old_events_go_and_each_tenant_knows_up_to_where(one: Process) -> None:
    told(one.driver, "a", 40, 39)
    told(one.driver, "b", 38)
    told(one.driver, "a", 31, 29, 5)
    passed(one.driver, 6)
    assert await prune(lasting(one)) == Pruned(events=4, deliveries=0)
    assert seqs(one.driver) == [5, 6]
    assert [pruned(one.driver, tenant) for tenant in "abc"] == [4, 3, 0]
    assert await prune(lasting(one)) == Pruned(events=0, deliveries=0)


async def test_a_long_past_goes_in_small_batches(one: Process) -> None:
    told(one.driver, "a", *[40.0] * (2 * MOST + 3))
    passed(one.driver, 2 * MOST + 3)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    assert (await prune(replace(lasting(one), sleep=sleep))).events == 2 * MOST + 3
    assert len(pauses) == 2
    assert pruned(one.driver, "a") == 2 * MOST + 3


async def test_events_that_the_fan_out_has_not_passed_stay(one: Process) -> None:
    told(one.driver, "a", 40, 40, 40)
    assert (await prune(lasting(one))).events == 0, "it has not begun"
    passed(one.driver, 2)
    assert (await prune(lasting(one))).events == 2
    assert seqs(one.driver) == [3]


async def test_an_event_with_an_unfinished_delivery_stays_with_all_that_follow(one: Process) -> None:
    told(one.driver, "a", 40, 40, 40)
    passed(one.driver, 3)
    delivery(one.driver, 1, event_id="evt_a_40_0", ended_days=1, age_days=40)
    delivery(one.driver, 2, event_id="evt_a_40_1", ended_days=None, age_days=40)
    assert (await prune(lasting(one))).events == 1
    assert seqs(one.driver) == [2, 3]
    assert pruned(one.driver, "a") == 1


@pytest.mark.parametrize(
    ("until_ms", "waits"),
    [(None, True), (NOW - DAY, True), (NOW - 31 * DAY, False)],
    ids=["never let go", "served yesterday", "abandoned"],
)
async def test_events_wait_for_a_sink_as_long_as_somebody_serves_it(
    one: Process, until_ms: int | None, waits: bool
) -> None:
    told(one.driver, "a", 40, 40, 40)
    passed(one.driver, 3)
    row = {"name": "nats", "seq": 1, "claim": None, "until_ms": until_ms}
    only(one.driver, lambda tx: put(tx, "sink", row))
    await prune(lasting(one))
    assert seqs(one.driver) == ([2, 3] if waits else [])


async def test_events_wait_for_a_replay(one: Process) -> None:
    told(one.driver, "a", 40, 40, 40)
    passed(one.driver, 3)
    only(one.driver, lambda tx: put(tx, "endpoint", endpoint(replay_after=1, replay_until=3)))
    await prune(lasting(one))
    assert seqs(one.driver) == [2, 3]


async def test_a_disabled_endpoint_with_a_replay_is_not_waited_for(one: Process) -> None:
    told(one.driver, "a", 40, 40, 40)
    passed(one.driver, 3)
    disabled = endpoint(state="disabled", disabled_reason="gone", replay_after=1, replay_until=3)
    only(one.driver, lambda tx: put(tx, "endpoint", disabled))
    await prune(lasting(one))
    assert seqs(one.driver) == []


def endpoint(**fields: Any) -> dict[str, Any]:
    return {
        "id": "ep_1",
        "tenant": "a",
        "url": "https://consumer.example",
        "types": "[]",
        "description": "",
        "state": "active",
        "format": "standard",
        "signatures": "v1",
        "concurrency": 1,
        "secret": "sealed",
        "created_ms": NOW,
        "updated_ms": NOW,
        "failures": 0,
        "version": 1,
        **fields,
    }


async def test_finished_deliveries_go_with_their_tries_and_others_stay(one: Process) -> None:
    delivery(one.driver, 1, ended_days=20, age_days=20)
    delivery(one.driver, 2, ended_days=None, age_days=20)
    delivery(one.driver, 3, ended_days=5, age_days=20)
    delivery(one.driver, 4, ended_days=11, age_days=11)
    delivery(one.driver, 5, ended_days=1, age_days=1)
    assert await prune(lasting(one)) == Pruned(events=0, deliveries=2)
    for table, column in (("delivery", "id"), ("delivery_try", "delivery_id")):
        left = one.driver.read(lambda tx, table=table: rows_in(tx, table))
        assert sorted(row[column] for row in left) == ["dlv_0002", "dlv_0003", "dlv_0005"]


def test_a_delivery_that_is_sent_again_while_it_is_pruned_stays(postgresql_url: str, clock: Clock) -> None:
    driver, other = open_driver(postgresql_url, clock), open_driver(postgresql_url, clock)
    delivery(driver, 1, ended_days=20, age_days=20)

    def prune_slowly(tx: Any) -> tuple[int, str | None]:
        delete = tx.run

        def retried_before(statement: Statement, **values: Any) -> int:
            only(other, lambda tx: deliveries.retry(tx, "dlv_0001", due_ms=NOW))
            return int(delete(statement, **values))

        tx.run = retried_before
        return retention.prune_deliveries(tx, after_id="", before_ms=NOW, most=5)

    assert only(driver, prune_slowly) == (0, None)
    assert [row["state"] for row in driver.read(lambda tx: rows_in(tx, "delivery"))] == ["pending"]
    driver.close()
    other.close()


async def test_processes_that_prune_at_once_do_not_disturb_each_other(
    database_url: str, tmp_path: Path
) -> None:
    async with process(database_url, tmp_path) as one, process(database_url, tmp_path, name="q") as other:
        told(one.driver, "a", *[40.0] * 1_200, 1)
        passed(one.driver, 1_201)
        gone = await asyncio.gather(*(prune(lasting(each)) for each in (one, other, one, other)))
        assert sum(each.events for each in gone) == 1_200
        assert seqs(one.driver) == [1_201]
        assert pruned(one.driver, "a") == 1_200


def test_pruning_finds_what_is_old_by_an_index(driver: Driver) -> None:
    told(driver, "a", 40, 40)
    passed(driver, 2)
    delivery(driver, 1, ended_days=20, age_days=20)

    def work(tx: Tx) -> None:
        retention.prune_events(tx, before_ms=NOW, most=1)
        retention.prune_deliveries(tx, after_id="", before_ms=NOW, most=1)

    plans = plans_of(driver, work)
    # There is a row for each broker, and no index.
    assert len([plan for plan in plans if " sink" not in plan and whole_tables_read(driver, plan)]) == 0
    assert len(plans) >= 9


def test_who_prunes_second_goes_on_where_the_first_one_ended(postgresql_url: str, clock: Clock) -> None:
    driver = open_driver(postgresql_url, clock)
    told(driver, "a", 40, 40, 40, 40, 40)
    passed(driver, 5)
    pruned_two, go_on = threading.Event(), threading.Event()

    def first(tx: Tx) -> int:
        gone = retention.prune_events(tx, before_ms=NOW, most=2)
        pruned_two.set()
        assert go_on.wait(10)
        return gone

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(only, driver, first)
        assert pruned_two.wait(10)
        other = pool.submit(only, driver, lambda tx: retention.prune_events(tx, before_ms=NOW, most=2))
        time.sleep(0.1)
        assert not other.done()
        go_on.set()
        assert (one.result(10), other.result(10)) == (2, 2)
    assert seqs(driver) == [5]
    assert pruned(driver, "a") == 4
    driver.close()
