"""What is special about PostgreSQL: connections that die, and a server that says no for a while."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from service.storage import idempotency, jobs, notify
from service.storage import postgres as postgresql
from service.storage.database import DatabaseUnavailable, Driver, Tx
from service.storage.drivers import open_driver
from service.storage.idempotency import Claimed
from service.storage.notify import Notifier
from service.storage.postgres import PostgresDriver
from tests.databases import PostgresDatabases
from tests.storage.world import Clock, count_in, insert_jobs, new_job, only, process, request


@pytest.fixture
def postgres(postgresql_url: str, clock: Clock) -> Iterator[Driver]:
    driver = open_driver(postgresql_url, clock)
    yield driver
    driver.close()


@pytest.fixture
def operator(postgresql_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Give somebody else's connection to the same server."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        yield connection


def cut_all(operator: psycopg.Connection[Any]) -> int:
    """End every other connection to this database."""
    found = operator.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(found.fetchall())


def set_for_all(operator: psycopg.Connection[Any], setting: str, value: str) -> None:
    name = operator.execute("SELECT current_database()").fetchone()
    assert name is not None
    operator.execute(
        sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(name[0]), sql.SQL(setting), sql.SQL(value)
        )
    )


def test_dead_idle_connections_are_replaced_without_an_error(
    postgres: Driver, operator: psycopg.Connection[Any]
) -> None:
    together = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: only(postgres, lambda tx: together.wait(10)), range(3)))
    assert cut_all(operator) == 3
    only(postgres, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    assert postgres.read(lambda tx: count_in(tx, "job")) == 1


def test_a_connection_that_dies_at_work_is_told_and_replaced(
    postgres: Driver, operator: psycopg.Connection[Any]
) -> None:
    def cut_in_the_middle(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_1")])
        cut_all(operator)
        insert_jobs(tx, [new_job("job_2")])

    def cut_before_the_commit(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_3")])
        cut_all(operator)

    for work in (cut_in_the_middle, cut_before_the_commit):
        with pytest.raises(DatabaseUnavailable):
            only(postgres, work)
        assert postgres.read(lambda tx: count_in(tx, "job")) == 0

    def cut_reading(tx: Tx) -> int:
        cut_all(operator)
        return count_in(tx, "job")

    with pytest.raises(DatabaseUnavailable):
        postgres.read(cut_reading)
    assert postgres.read(lambda tx: count_in(tx, "job")) == 0


def test_a_server_that_is_away_is_unavailable(postgresql_url: str, clock: Clock, tmp_path: Path) -> None:
    away = PostgresDriver(f"postgresql://postgres@/{'x' * 8}?host={tmp_path}")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            only(away, lambda tx: 1)
        with pytest.raises(DatabaseUnavailable):
            away.read(lambda tx: 1)
    away.close()


def test_a_server_that_lets_nobody_in_is_unavailable_until_it_does(
    postgres: Driver, postgresql_url: str, postgres_databases: PostgresDatabases
) -> None:
    only(postgres, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    name = psycopg.conninfo.conninfo_to_dict(postgresql_url)["dbname"]
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgres_databases.url("postgres"), autocommit=True) as admin:
        admin.execute(allow.format(sql.Identifier(str(name)), sql.SQL("false")))
        cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        admin.execute(cut, [name])
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                only(postgres, lambda tx: 1)
        admin.execute(allow.format(sql.Identifier(str(name)), sql.SQL("true")))
    only(postgres, lambda tx: insert_jobs(tx, [new_job("job_2")]))
    assert postgres.read(lambda tx: count_in(tx, "job")) == 2


def test_after_a_failover_no_connection_to_the_old_server_is_kept(
    postgres: Driver, operator: psycopg.Connection[Any]
) -> None:
    """A server that became a standby refuses to write; the next connection reaches its successor."""
    set_for_all(operator, "default_transaction_read_only", "on")
    with pytest.raises(DatabaseUnavailable):
        only(postgres, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    set_for_all(operator, "default_transaction_read_only", "off")
    only(postgres, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    assert postgres.read(lambda tx: count_in(tx, "job")) == 1


def test_a_lock_that_somebody_keeps_is_not_waited_for_for_ever(
    postgresql_url: str, clock: Clock, operator: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = postgresql._POSTGRES_PATIENCE.replace(
        f"lock_timeout={postgresql.BUSY_TIMEOUT_MS}", "lock_timeout=50"
    )
    assert shorter != postgresql._POSTGRES_PATIENCE
    monkeypatch.setattr(postgresql, "_POSTGRES_PATIENCE", shorter)
    driver = open_driver(postgresql_url, clock)
    only(driver, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    with operator.transaction():
        operator.execute("SELECT 1 FROM job FOR UPDATE")
        with pytest.raises(DatabaseUnavailable):
            only(driver, lambda tx: jobs.load(tx, ["job_1"], lock=True))
    assert only(driver, lambda tx: list(jobs.load(tx, ["job_1"], lock=True))) == ["job_1"]
    driver.close()


def test_a_process_that_stands_still_does_not_keep_its_locks(
    postgresql_url: str, clock: Clock, operator: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = postgresql._POSTGRES_PATIENCE.replace("session_timeout=60000", "session_timeout=50")
    assert shorter != postgresql._POSTGRES_PATIENCE
    monkeypatch.setattr(postgresql, "_POSTGRES_PATIENCE", shorter)
    driver = open_driver(postgresql_url, clock)

    def stand_still(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_1")])
        assert count_in(tx, "job") == 1
        time.sleep(0.3)
        count_in(tx, "job")

    with pytest.raises(DatabaseUnavailable):
        only(driver, stand_still)
    assert only(driver, lambda tx: count_in(tx, "job")) == 0
    driver.close()


def test_nothing_is_left_open_after_work(postgres: Driver, operator: psycopg.Connection[Any]) -> None:
    def fail(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_1")])
        raise ZeroDivisionError

    def refused(tx: Tx) -> None:
        insert_jobs(tx, [new_job("job_2"), new_job("job_2")])

    for work in (fail, refused, lambda tx: count_in(tx, "job")):
        postgres.write([work])
    postgres.read(lambda tx: count_in(tx, "job"))
    found = operator.execute(
        "SELECT state, count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY state"
    ).fetchall()
    assert found == [("idle", 1)], "one connection, used again and again"


def test_two_transactions_that_block_each_other_are_both_done(postgresql_url: str, clock: Clock) -> None:
    """PostgreSQL ends one of them after a second; that one is decided again."""
    drivers = [open_driver(postgresql_url, clock) for _ in range(2)]
    only(drivers[0], lambda tx: insert_jobs(tx, [new_job("job_0"), new_job("job_1")]))
    together = threading.Barrier(2)
    tries: list[int] = []

    def crossing(number: int) -> None:
        def work(tx: Tx) -> None:
            tries.append(number)
            jobs.load(tx, [f"job_{number}"], lock=True)
            if len(tries) <= 2:
                together.wait(10)
            jobs.load(tx, [f"job_{1 - number}"], lock=True)

        only(drivers[number], work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(crossing, range(2)))
    assert len(tries) >= 3
    for driver in drivers:
        driver.close()


async def test_a_process_recovers_by_itself_while_it_works(
    postgresql_url: str, tmp_path: Path, operator: psycopg.Connection[Any]
) -> None:
    async with process(postgresql_url, tmp_path) as one:
        done, refused = 0, 0
        for turn in range(60):
            if turn % 10 == 5:
                await asyncio.to_thread(cut_all, operator)
            try:
                await asyncio.gather(*(one.accept(request()) for _ in range(3)))
                done += 3
            except DatabaseUnavailable:
                refused += 1
        assert (done, refused) == (180, 0), "nobody was at work when the connections were cut"
        assert await one.door.read(lambda tx: count_in(tx, "job")) == 180


async def test_wake_ups_cross_processes_and_survive_a_cut(
    postgresql_url: str, operator: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_RETRY_S", 0.01)
    heard: list[set[str]] = [set(), set()]
    notifiers = [
        Notifier(postgresql_url, process_id=f"p{number}", heard=heard[number].update) for number in range(2)
    ]
    for notifier in notifiers:
        notifier.start()

    async def passed_on(topic: str) -> None:
        async with asyncio.timeout(10):
            while topic not in heard[1]:
                notifiers[0].relay({topic})
                await asyncio.sleep(0.03)

    await passed_on("submit")
    await asyncio.to_thread(cut_all, operator)
    await passed_on("feed")
    notifiers[0].relay({f"job:{number:0100d}" for number in range(200)} | {"ask"})
    async with asyncio.timeout(10):
        while "ask" not in heard[1]:
            await asyncio.sleep(0.01)
    assert heard[0] == set(), "one's own rings do not come back"
    for notifier in notifiers:
        await notifier.stop()


def test_a_read_that_outlives_the_driver_leaves_no_connection(postgresql_url: str, clock: Clock) -> None:
    """Whoever waited for it was canceled; the thread that reads is not."""
    driver = PostgresDriver(postgresql_url)
    reading, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        count_in(tx, "job")
        reading.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(driver.read, slow)
        assert reading.wait(10)
        driver.close()
        go_on.set()
        read.result(10)
    assert driver._idle.empty()


def test_a_collision_is_decided_again_with_a_look_before_the_insert(postgres: Driver) -> None:
    """The first run inserts at once; what collides runs again and finds who was there."""
    claimed = [
        Claimed(tenant="t", key="k", body_hash="h", job_id=f"job_{number}", created_ms=1) for number in (1, 2)
    ]
    looked: list[bool] = []

    def take(number: int) -> Callable[[Tx], str]:
        def work(tx: Tx) -> str:
            looked.append(tx.cautious)
            return str(idempotency.take(tx, [claimed[number]])["t", "k"]["job_id"])

        return work

    assert [only(postgres, take(0)), only(postgres, take(1))] == ["job_1", "job_1"]
    assert looked == [False, False, True]
