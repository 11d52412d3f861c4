"""Every hot statement finds its rows by an index, on both databases, whatever the planner knows of the tables."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from service.domain.effects import Work
from service.domain.endpoint import DeliveryState
from service.domain.states import AttemptState
from service.storage import (
    artifacts,
    callbacks,
    deliveries,
    endpoints,
    events,
    history,
    idempotency,
    jobs,
    keys,
    search,
    tenant_secrets,
    work,
)
from service.storage.callbacks import Tally
from service.storage.database import Driver, Tx
from service.storage.deliveries import Filters as Narrowed
from service.storage.drivers import open_driver
from service.storage.idempotency import Claimed
from service.storage.jobs import Change, Stored
from service.storage.postgres import PostgresTx
from service.storage.search import Filters
from service.storage.sqlite import SqliteTx
from service.storage.work import Due, Scheduled
from tests.storage.going_out import delivery_of, endpoint, event, insert
from tests.storage.test_deliveries import made_try
from tests.storage.test_modules import attempt_of
from tests.storage.world import NOW, Clock, insert_jobs, new_job, only

STORED = Stored(new_job(), 0, "", 0)
CHANGED = Stored(new_job(attempts=(attempt_of(1),)), 1, "", 0)
AGAIN = Stored(new_job(attempts=(attempt_of(1, state=AttemptState.RUNNING),)), 2, "", 0)
DUE = Due("job_1", Work.ASK, 1, 0)
SENT = delivery_of(event(1), tries=2, step=2)
DELIVERED = replace(SENT, state=DeliveryState.SUCCEEDED, completed_ms=NOW)
TOLD = events.Event(
    id="evt_1", tenant="t", type="job.queued", job_id="job_1", job_seq=1, at_ms=NOW, data="{}"
)


def narrowed(tx: Tx, **filters: Any) -> Any:
    return deliveries.listed(tx, tenant="default", filters=Narrowed(**filters), before_id="dlv_9", most=9)


#: What happens for every job, callback, sweep or reader, with the indexes that may carry it.
HOT: dict[str, tuple[Callable[[Tx], Any], set[str]]] = {
    "claim": (lambda tx: work.claim(tx, kind=Work.ASK, mine="p", lease_ms=1, most=5), {"work_due", "work"}),
    "next due": (lambda tx: work.next_due_ms(tx, Work.ASK), {"work_due"}),
    "renew": (lambda tx: work.renew(tx, mine="p", lease_ms=1), {"work_claimed", "work"}),
    "release": (lambda tx: work.release(tx, mine="p"), {"work_claimed", "work"}),
    "done": (lambda tx: work.done(tx, DUE, mine="p"), {"work", "work_claimed"}),
    "put off": (lambda tx: work.put_off(tx, DUE, mine="p", due_ms=1), {"work", "work_claimed"}),
    "schedule": (lambda tx: work.schedule(tx, [Scheduled("job_1", Work.ASK, 1, 1)]), set()),
    "hasten": (lambda tx: work.hasten(tx, [("job_1", Work.ASK, 1, 1)]), {"work"}),
    "drop": (lambda tx: work.drop(tx, [("job_1", Work.ASK, 1)]), {"work"}),
    "drop all": (lambda tx: work.drop_all(tx, ["job_1"]), {"work"}),
    "feed": (lambda tx: events.feed(tx, tenant="t", after=1, most=9), {"event_feed"}),
    "feed of types": (lambda tx: events.feed(tx, tenant="t", after=1, most=9, types=["a"]), {"event_feed"}),
    "append": (lambda tx: events.append(tx, [TOLD]), {"counter", "event"}),
    "load": (lambda tx: jobs.load(tx, ["job_1"]), {"job", "attempt_number_once"}),
    "load to change": (lambda tx: jobs.load(tx, ["job_1"], lock=True), {"job", "attempt_number_once"}),
    "change": (lambda tx: jobs.save_many(tx, [Change(STORED, CHANGED)], {"att_1": "t"}), {"job"}),
    "overdue": (lambda tx: jobs.overdue(tx, now_ms=NOW, most=9), {"job_due"}),
    "durations": (lambda tx: jobs.durations_ms(tx, provider="fal", model="m"), {"attempt_learned"}),
    "holder": (lambda tx: jobs.holder_of(tx, provider="fal", request_id="r"), {"provider_request_once"}),
    "successor": (lambda tx: jobs.successor(tx, "job_1"), {"job_retry_of_key"}),
    "inputs": (lambda tx: jobs.inputs(tx, ["job_1"]), {"job"}),
    "large": (lambda tx: jobs.large(tx, "job_1"), {"job", "attempt_number_once"}),
    "addressees": (lambda tx: callbacks.addressees(tx, ["h"]), {"attempt_token_hash_key", "job"}),
    "tally": (
        lambda tx: callbacks.tally(
            tx, [Tally(attempt_id="a", message_key=None, refused_callbacks=0, refused_bytes=0, hinted_ms=0)]
        ),
        {"attempt"},
    ),
    "candidate": (lambda tx: callbacks.name_candidates(tx, [("a", "r")]), {"attempt"}),
    "candidates": (lambda tx: callbacks.candidates(tx, ["a"]), {"attempt"}),
    "callbacks": (lambda tx: callbacks.of_job(tx, "job_1"), {"callback_of_job"}),
    "history": (lambda tx: history.of_job(tx, "job_1"), {"history"}),
    "key": (lambda tx: keys.find(tx, "h"), {"api_key_secret_hash_key"}),
    "artifacts": (lambda tx: artifacts.of_job(tx, "job_1"), {"artifact_position_once"}),
    "artifact": (lambda tx: artifacts.one(tx, tenant="t", artifact_id="a"), {"artifact"}),
    "list": (lambda tx: search.jobs(tx, Filters(tenant="t"), before_id="j", most=9), {"job_by_tenant"}),
    "list by metadata": (
        lambda tx: search.jobs(tx, Filters(tenant="t", metadata={"k": "v"}), before_id=None, most=9),
        {"job_by_tenant", "job_tag_by_value", "job", "job_tag"},
    ),
    "idempotency": (
        lambda tx: idempotency.take(
            tx, [Claimed(tenant="t", key="k", body_hash="h", job_id="job_1", created_ms=NOW)]
        ),
        {"idempotency"},
    ),
    "fan-out": (lambda tx: events.after(tx, 0, most=9), {"event_seq_key", "job", "counter"}),
    "fan-out cursor": (lambda tx: events.fan_out_cursor(tx, lock=True), {"counter"}),
    "holding the fan-out": (events.hold_fan_out, {"counter"}),
    "moving the fan-out": (lambda tx: events.move_fan_out(tx, 1), {"counter"}),
    "active endpoints": (lambda tx: endpoints.active_of(tx, ["t"]), {"endpoint_listed"}),
    "endpoints": (
        lambda tx: endpoints.listed(tx, tenant="t", before_id="ep_2", most=9),
        {"endpoint_listed"},
    ),
    "endpoint": (lambda tx: endpoints.load(tx, ["ep_1"]), {"endpoint"}),
    "endpoint to change": (lambda tx: endpoints.load(tx, ["ep_1"], lock=True), {"endpoint"}),
    "change of an endpoint": (lambda tx: endpoints.save_many(tx, [endpoint()]), {"endpoint"}),
    "endpoints of jobs": (
        lambda tx: endpoints.ensure_for_jobs(tx, [endpoint("ep_2", for_jobs=True)]),
        {"endpoint_once_for_jobs"},
    ),
    "endpoints to replay": (lambda tx: endpoints.replaying(tx, most=1), {"endpoint_replaying"}),
    "claim of endpoints": (
        lambda tx: endpoints.claim(tx, mine="p", lease_ms=1, most=5),
        {"endpoint_due", "endpoint"},
    ),
    "next endpoint": (endpoints.next_due_ms, {"endpoint_due"}),
    "renewal of endpoints": (
        lambda tx: (
            endpoints.claim(tx, mine="p", lease_ms=1, most=5),
            endpoints.renew(tx, mine="p", lease_ms=1),
        ),
        {"endpoint_due", "endpoint", "endpoint_claimed"},
    ),
    "release of endpoints": (
        lambda tx: endpoints.release(tx, ["ep_1"], mine="p"),
        {"endpoint", "endpoint_claimed"},
    ),
    "giving back": (
        lambda tx: endpoints.give_back(tx, "ep_1", mine="p", due_ms=None, now_ms=1),
        {"endpoint", "endpoint_claimed"},
    ),
    "unused endpoints": (
        lambda tx: (
            endpoints.ensure_for_jobs(tx, [endpoint("ep_2", for_jobs=True)]),
            endpoints.prune_for_jobs(tx, after_id="", before_ms=NOW + 1, most=5),
        ),
        {"counter", "endpoint", "endpoint_once_for_jobs", "delivery_of_endpoint"},
    ),
    "waking": (lambda tx: endpoints.wake(tx, {"ep_1": 1}), {"endpoint"}),
    "deliveries": (lambda tx: deliveries.insert(tx, [SENT]), set()),
    "reopened deliveries": (lambda tx: deliveries.reopen(tx, [SENT]), set()),
    "sendable": (
        lambda tx: deliveries.sendable(tx, endpoint_id="ep_1", now_ms=NOW, most=9),
        {"delivery_due", "delivery_in_order", "event_seq_key"},
    ),
    "next delivery": (lambda tx: deliveries.next_ms(tx, "ep_1"), {"delivery_due", "delivery_in_order"}),
    "record of a failure": (
        lambda tx: deliveries.record(tx, [(SENT, made_try(SENT))]),
        {"delivery", "delivery_in_order"},
    ),
    "record of a success": (
        lambda tx: deliveries.record(tx, [(DELIVERED, made_try(DELIVERED))]),
        {"delivery", "delivery_in_order"},
    ),
    "hastening deliveries": (
        lambda tx: deliveries.hasten(tx, "ep_1", due_ms=1),
        {"delivery", "delivery_due"},
    ),
    "burying": (
        lambda tx: deliveries.bury_pending(tx, "ep_1", reason="x", now_ms=1),
        {"delivery", "delivery_due"},
    ),
    "retry of a delivery": (lambda tx: deliveries.retry(tx, "dlv_1", due_ms=1), {"delivery"}),
    "one delivery": (lambda tx: deliveries.one(tx, "dlv_1"), {"delivery"}),
    "tries": (lambda tx: deliveries.tries_of(tx, ["dlv_1"]), {"delivery_try"}),
    "list of deliveries": (narrowed, {"delivery_of_tenant"}),
    "deliveries of an endpoint": (lambda tx: narrowed(tx, endpoint_id="ep_1"), {"delivery_of_endpoint"}),
    "dead deliveries": (lambda tx: narrowed(tx, state="dead"), {"delivery_dead"}),
    "deliveries of an event": (lambda tx: narrowed(tx, event_id="evt_1"), {"delivery_once"}),
    "deliveries of a job": (
        lambda tx: narrowed(tx, job_id="job_1"),
        {"delivery_once", "event_once_for_a_job"},
    ),
    "secret for jobs": (lambda tx: tenant_secrets.one(tx, "t"), {"tenant_secret"}),
}


#: An index of the few rows that matter is read from its beginning to the first of them; and what was just found.
READ_FROM_THE_BEGINNING = {
    "SCAN job USING INDEX job_due",
    "SCAN endpoint USING INDEX endpoint_replaying",
    "SCAN heads",
}


class Watched:
    """A transaction that asks for the plan of every statement before it runs it."""

    def __init__(self, tx: Any) -> None:
        self.tx = tx
        self.plans: list[str] = []
        self._prefix = "EXPLAIN QUERY PLAN " if tx.dialect == "sqlite" else "EXPLAIN "
        original = tx._connection if tx.dialect == "sqlite" else tx._cursor
        watched = _Explaining(original, self)
        if tx.dialect == "sqlite":
            tx._connection = watched
        else:
            tx._cursor = watched

    def explain(self, real: Any, sql: str, values: Any) -> None:
        explained = real.execute(self._prefix + sql, values).fetchall()
        lines = [
            str(row["detail"] if self.tx.dialect == "sqlite" else row["QUERY PLAN"]) for row in explained
        ]
        self.plans.append(f"{sql}\n" + "\n".join(lines))


class _Explaining:
    def __init__(self, real: Any, watched: Watched) -> None:
        self._real = real
        self._watched = watched

    def execute(self, sql: str, values: Any = ()) -> Any:
        if "clock_timestamp" not in sql:
            self._watched.explain(self._real, sql, values)
        return self._real.execute(sql, values)

    def executemany(self, sql: str, rows: Any) -> Any:
        self._watched.explain(self._real, sql, rows[0])
        return self._real.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Undone(Exception):
    """Takes a transaction back whose plans are known."""


def plans_of(driver: Driver, act: Callable[[Tx], Any]) -> list[str]:
    found: list[str] = []

    def work(tx: Tx) -> None:
        assert isinstance(tx, (SqliteTx, PostgresTx))
        watched = Watched(tx)
        # What is put off until the commit would run past the watched cursor.
        tx.run_later = tx.run_last = tx.run_all = tx.run_many  # type: ignore[assignment, method-assign]
        act(tx)
        found.extend(watched.plans)
        raise Undone

    [outcome] = driver.write([work])
    assert isinstance(outcome.error, Undone), outcome.error
    return found


def whole_tables_read(driver: Driver, plan: str) -> list[str]:
    """Give the lines of a plan that read a table from one end to the other."""
    lines = plan.split("\n")
    if driver.dialect == "postgresql":
        return [line for line in lines if "Seq Scan" in line]
    scans = [line for line in lines if line.startswith("SCAN ") and "json_each" not in line]
    return [line for line in scans if line not in READ_FROM_THE_BEGINNING]


@pytest.fixture
def filled(driver: Driver) -> Driver:
    """Give a database where the acts find something to change."""
    only(driver, lambda tx: insert_jobs(tx, [new_job(), new_job("job_2")]))
    insert(driver, endpoint(due_ms=1))
    only(driver, lambda tx: deliveries.insert(tx, [SENT]))
    return driver


@pytest.mark.parametrize("name", HOT)
def test_it_uses_an_index(filled: Driver, name: str) -> None:
    act, indexes = HOT[name]
    plans = plans_of(filled, act)
    assert plans or (filled.dialect == "sqlite" and name == "holding the fan-out")
    for plan in plans:
        assert whole_tables_read(filled, plan) == [], plan
    if filled.dialect == "postgresql":
        used = {
            line.split(" using ")[1].split()[0] if " using " in line else line.split(" on ")[1].split()[0]
            for plan in plans
            for line in plan.split("\n")
            if "Index" in line and (" using " in line or "Bitmap Index Scan on " in line)
        }
        assert used <= indexes | {f"{index}_pkey" for index in indexes}, plans


def test_changing_an_attempt_uses_an_index(driver: Driver) -> None:
    def both(tx: Tx) -> None:
        jobs.save_many(tx, [Change(CHANGED, AGAIN)], {})

    only(driver, lambda tx: insert_jobs(tx, [new_job()]))
    only(driver, lambda tx: jobs.save_many(tx, [Change(STORED, CHANGED)], {"att_1": "t"}))
    for plan in plans_of(driver, both):
        assert whole_tables_read(driver, plan) == [], plan


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("most", [1, 5, 64])
def test_a_claim_reads_what_is_due_once(postgresql_url: str, clock: Clock, most: int, known: bool) -> None:
    """Run again for each row of an outer loop, a limit that skips locked rows would claim more than it should."""
    driver = open_driver(postgresql_url, clock)
    made = [new_job(f"job_{number:04d}") for number in range(400)]
    due = [Scheduled(job.id, Work.ASK, 1, place) for place, job in enumerate(made)]
    only(driver, lambda tx: (insert_jobs(tx, made), work.schedule(tx, due)))
    if known:
        with psycopg.connect(postgresql_url, autocommit=True) as operator:
            operator.execute("ANALYZE work")
    for claiming in plans_of(
        driver, lambda tx: work.claim(tx, kind=Work.ASK, mine="p", lease_ms=1, most=most)
    ):
        lines = [line.strip(" ->") for line in claiming.split("\n")]
        loop, once, locking = (
            next(place for place, line in enumerate(lines) if line.startswith(node))
            for node in ("Nested Loop  ", "HashAggregate", "LockRows")
        )
        assert loop < once < locking, claiming
        assert once == loop + 1, claiming
    driver.close()


@pytest.mark.parametrize("known", [False, True])
def test_what_is_sent_is_looked_up_one_by_one_while_tables_grow(
    postgresql_url: str, clock: Clock, known: bool
) -> None:
    """A planner that believes a table to be small, or few rows to be pending, would read them all for each row."""
    driver = open_driver(postgresql_url, clock)
    told = [event(place, f"job_{place % 700:03d}") for place in range(1, 2_101)]
    made = [delivery_of(each) for each in told]
    only(
        driver, lambda tx: (insert(driver, endpoint()), events.append(tx, told), deliveries.insert(tx, made))
    )
    if known:
        with psycopg.connect(postgresql_url, autocommit=True) as operator:
            operator.execute("ANALYZE")
    first = replace(made[0], tries=1, step=1)
    for act in (
        lambda tx: deliveries.record(tx, [(first, made_try(first))]),
        lambda tx: deliveries.sendable(tx, endpoint_id="ep_1", now_ms=NOW, most=16),
        lambda tx: deliveries.next_ms(tx, "ep_1"),
        lambda tx: events.after(tx, 5, most=500),
    ):
        for plan in plans_of(driver, act):
            lines = plan.split("\n")
            scans = [
                place for place, line in enumerate(lines) if "Index Scan" in line or "Index Only Scan" in line
            ]
            read_whole = [lines[place] for place in scans if "Index Cond" not in lines[place + 1]]
            assert read_whole == [], plan
            assert "Join Filter" not in plan, plan
    driver.close()
