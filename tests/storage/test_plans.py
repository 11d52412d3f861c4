"""Every hot statement finds its rows by an index, on both databases, whatever the planner knows of the tables."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service.domain.effects import Work
from service.domain.states import AttemptState
from service.storage import artifacts, callbacks, events, history, idempotency, jobs, keys, search, work
from service.storage.callbacks import Tally
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.idempotency import Claimed
from service.storage.jobs import Change, Stored
from service.storage.postgres import PostgresTx
from service.storage.search import Filters
from service.storage.sqlite import SqliteTx
from service.storage.work import Due, Scheduled
from tests.storage.test_modules import attempt_of
from tests.storage.world import NOW, Clock, insert_jobs, new_job, only

STORED = Stored(new_job(), 0, "", 0)
CHANGED = Stored(new_job(attempts=(attempt_of(1),)), 1, "", 0)
AGAIN = Stored(new_job(attempts=(attempt_of(1, state=AttemptState.RUNNING),)), 2, "", 0)
DUE = Due("job_1", Work.ASK, 1, 0)

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
    "numbering": (lambda tx: events.number(tx, most=1000), {"event_unnumbered", "event", "counter"}),
    "load": (lambda tx: jobs.load(tx, ["job_1"]), {"job", "attempt_number_once"}),
    "load to change": (lambda tx: jobs.load(tx, ["job_1"], lock=True), {"job", "attempt_number_once"}),
    "change": (lambda tx: jobs.save_many(tx, [Change(STORED, CHANGED)], {"att_1": "t"}), {"job"}),
    "overdue": (lambda tx: jobs.overdue(tx, now_ms=NOW, most=9), {"job_due"}),
    "next deadline": (jobs.next_deadline_ms, {"job_due"}),
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
        tx.run_later = tx.run_many  # type: ignore[assignment, method-assign]
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
    # The open jobs are an index of their own, which is read from its beginning to the first of them.
    return [line for line in scans if line != "SCAN job USING INDEX job_due"]


@pytest.fixture
def filled(driver: Driver) -> Driver:
    """Give a database where the acts find something to change."""
    only(driver, lambda tx: insert_jobs(tx, [new_job(), new_job("job_2")]))
    return driver


@pytest.mark.parametrize("name", HOT)
def test_it_uses_an_index(filled: Driver, name: str) -> None:
    act, indexes = HOT[name]
    plans = plans_of(filled, act)
    assert plans or (filled.dialect == "sqlite" and name == "numbering")
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
