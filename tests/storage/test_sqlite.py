"""What is special about SQLite: its settings, the lock file, and files that are not there or are no database."""

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.storage import database
from service.storage import sqlite as sqlite_module
from service.storage.database import DatabaseUnavailable, Driver, file_lock, sqlite_path
from service.storage.drivers import open_driver
from service.storage.sqlite import SqliteDriver, open_sqlite
from tests.storage.world import Clock, count_in, insert_jobs, new_job, only, rows_in


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return sqlite_path(sqlite_url)


@pytest.fixture
def sqlite(sqlite_url: str, clock: Clock) -> Iterator[Driver]:
    driver = open_driver(sqlite_url, clock)
    yield driver
    driver.close()


def lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold a lock file until its standard input ends."""
    program = (
        "import fcntl, os, sys; handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600); "
        "fcntl.flock(handle, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate()


def test_every_connection_has_the_settings_that_keep_data(path: Path) -> None:
    with closing(open_sqlite(path)) as connection:
        told = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[
                name if name != "busy_timeout" else "timeout"
            ]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    full = 2
    assert told == {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_writing_transaction_locks_from_its_beginning(sqlite: Driver, path: Path) -> None:
    """A deferred one would only lock at its first write, and two could have read the same before."""

    def work(tx: database.Tx) -> str:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return str(error)
        return "not locked"

    assert only(sqlite, work) == "database is locked"


def test_readers_go_on_while_somebody_writes(sqlite: Driver) -> None:
    seen = []

    def work(tx: database.Tx) -> None:
        insert_jobs(tx, [new_job("job_1")])
        seen.append(sqlite.read(lambda other: count_in(other, "job")))

    only(sqlite, work)
    assert (seen, sqlite.read(lambda tx: count_in(tx, "job"))) == ([0], 1)


def test_every_write_batch_holds_the_lock_file(sqlite: Driver, path: Path) -> None:
    def work(tx: database.Tx) -> bool:
        handle = os.open(lock_file(path), os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    for _ in range(3):
        assert only(sqlite, work)
        with file_lock(lock_file(path), wait=False) as free:
            assert free


def test_a_write_waits_for_another_process_with_the_lock(sqlite: Driver, path: Path) -> None:
    only(sqlite, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    with held_by_another_process(lock_file(path)) as process, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(only, sqlite, lambda tx: insert_jobs(tx, [new_job("job_2")]))
        time.sleep(0.1)
        assert not writing.done()
        assert sqlite.read(lambda tx: count_in(tx, "job")) == 1, "reading needs no lock"
        process.communicate()
        writing.result(10)
    assert sqlite.read(lambda tx: count_in(tx, "job")) == 2


def test_the_lock_of_a_killed_process_is_free(sqlite: Driver, path: Path) -> None:
    with held_by_another_process(lock_file(path)) as process:
        process.kill()
        process.wait()
        only(sqlite, lambda tx: insert_jobs(tx, [new_job("job_1")]))


def test_a_lock_file_is_ours_alone(sqlite: Driver, path: Path) -> None:
    only(sqlite, lambda tx: None)
    assert lock_file(path).stat().st_mode & 0o777 == 0o600


def test_two_drivers_write_in_turns(sqlite_url: str, clock: Clock) -> None:
    drivers = [open_driver(sqlite_url, clock) for _ in range(4)]

    def write(number: int) -> None:
        for job in [new_job(f"job_{number}_{turn}") for turn in range(15)]:
            only(drivers[number], lambda tx, job=job: insert_jobs(tx, [job]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert drivers[0].read(lambda tx: count_in(tx, "job")) == 60
    for driver in drivers:
        driver.close()


def test_a_locked_database_refuses_the_whole_group_once(
    sqlite_url: str, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each piece after a time-out of its own: 512 times 10 s would be an hour and a half."""
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT_MS", 150)
    driver = SqliteDriver(sqlite_url, clock)
    only(driver, lambda tx: None)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        outcomes = driver.write([lambda tx: 1] * 50)
        took_s = time.monotonic() - began
        other.execute("ROLLBACK")
    assert all(isinstance(outcome.error, DatabaseUnavailable) for outcome in outcomes)
    assert len(outcomes) == 50
    assert took_s < 3
    assert only(driver, lambda tx: 2) == 2
    driver.close()


def test_a_folder_that_appears_later_is_found(
    empty_sqlite_url: str, sqlite_databases: object, clock: Clock
) -> None:
    path = sqlite_path(empty_sqlite_url)
    away = path.with_name("not-yet") / path.name
    driver = SqliteDriver(f"sqlite:///{away}", clock)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            driver.write([lambda tx: 1])
        with pytest.raises(DatabaseUnavailable):
            driver.read(lambda tx: 1)
    away.parent.mkdir()
    sqlite_databases.copy_migrated(away)  # type: ignore[attr-defined]
    only(driver, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    assert driver.read(lambda tx: count_in(tx, "job")) == 1
    driver.close()


def test_a_file_that_is_no_database_is_unavailable_until_it_is_one(
    sqlite_url: str, path: Path, clock: Clock
) -> None:
    good = path.read_bytes()
    path.write_bytes(b"this is no database at all, whoever put it here" * 100)
    driver = SqliteDriver(sqlite_url, clock)
    with pytest.raises(DatabaseUnavailable):
        driver.write([lambda tx: 1])
    with pytest.raises(DatabaseUnavailable):
        driver.read(lambda tx: 1)
    path.write_bytes(good)
    only(driver, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    assert driver.read(lambda tx: count_in(tx, "job")) == 1
    driver.close()


def test_a_damaged_page_is_told_as_a_database_that_is_gone(sqlite_url: str, path: Path, clock: Clock) -> None:
    with closing(sqlite3.connect(path)) as file:
        [(page,)] = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job'").fetchall()
        [(size,)] = file.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)
    driver = SqliteDriver(sqlite_url, clock)
    with pytest.raises(DatabaseUnavailable):
        driver.read(lambda tx: rows_in(tx, "job"))
    [outcome, another] = driver.write([lambda tx: insert_jobs(tx, [new_job("job_1")]), lambda tx: 1])
    assert isinstance(outcome.error, DatabaseUnavailable)
    assert another.value is None
    driver.close()


def test_a_full_disk_is_unavailable_and_nothing_stays(sqlite: Driver) -> None:
    assert isinstance(sqlite, SqliteDriver)
    only(sqlite, lambda tx: insert_jobs(tx, [new_job("job_0")]))
    assert sqlite._writer is not None
    [pages] = sqlite._writer.execute("PRAGMA page_count").fetchone().values()
    sqlite._writer.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
    many = [new_job(f"job_{number}", model="x" * 2_000) for number in range(1, 40)]
    [outcome] = sqlite.write([lambda tx: insert_jobs(tx, many)])
    assert isinstance(outcome.error, DatabaseUnavailable)
    assert sqlite.read(lambda tx: count_in(tx, "job")) == 1
    sqlite._writer.execute(f"PRAGMA max_page_count = {pages + 1_000}").fetchall()
    only(sqlite, lambda tx: insert_jobs(tx, many))
    assert sqlite.read(lambda tx: count_in(tx, "job")) == 40


def test_a_closed_database_leaves_one_file_to_copy(sqlite_url: str, path: Path, clock: Clock) -> None:
    driver = open_driver(sqlite_url, clock)
    only(driver, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    driver.read(lambda tx: count_in(tx, "job"))
    driver.close()
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, lock_file(path).name]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/file.db"])
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names a file"):
        sqlite_path(url)


def test_a_read_that_fails_leaves_no_transaction_open(sqlite: Driver) -> None:
    """Else the reader would see that moment for ever, and the log of writes could never shrink."""

    def fail(tx: database.Tx) -> None:
        count_in(tx, "job")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sqlite.read(fail)
    only(sqlite, lambda tx: insert_jobs(tx, [new_job("job_1")]))
    assert sqlite.read(lambda tx: count_in(tx, "job")) == 1


def test_readers_in_several_threads_do_not_meet(sqlite: Driver) -> None:
    only(sqlite, lambda tx: insert_jobs(tx, [new_job(f"job_{number}") for number in range(10)]))
    together = threading.Barrier(4)

    def read(_: int) -> int:
        def look(tx: database.Tx) -> int:
            together.wait(10)
            return count_in(tx, "job")

        return int(sqlite.read(look))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [10] * 4
