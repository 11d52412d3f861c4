"""SQLite: WAL, `synchronous=FULL`, one writer, `BEGIN IMMEDIATE`, and one file lock around every write batch.

The lock keeps two processes from writing or checkpointing at once, which older releases of SQLite do not survive.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy.sql import ClauseElement

from service.storage.database import (
    BUSY_TIMEOUT_MS,
    DatabaseUnavailable,
    Outcome,
    Work,
    WriteConflict,
    file_lock,
    prepared,
    sqlite_path,
)
from service.storage.statements import Many, Row, Rows, Statement, for_sqlite


class SqliteTx:
    dialect = "sqlite"
    #: A look costs next to nothing here.
    cautious = True

    def __init__(self, connection: sqlite3.Connection, clock_ms: Callable[[], int]) -> None:
        self._connection = connection
        self.clock_ms = clock_ms

    def _execute(self, statement: Statement | ClauseElement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        sql, fixed = prepared(statement).text(self.dialect)
        return self._connection.execute(sql, for_sqlite({**fixed, **values} if fixed else values))

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        return self._execute(statement, values).fetchall()

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        return self._execute(statement, values).rowcount

    def run_many(self, statement: Many, values: Rows) -> int:
        if not values:
            return 0
        sql, fixed = statement.plain.text(self.dialect)
        rows = [{**fixed, **row} for row in values] if fixed else values
        return self._connection.executemany(sql, rows).rowcount

    def run_later(self, statement: Many, values: Rows) -> None:
        self.run_many(statement, values)

    def run_all(self, statement: Many, values: Rows) -> None:
        if self.run_many(statement, values) != len(values):
            raise WriteConflict("a row is not as it was when it was read")

    def run_last(self, statement: Many, values: Rows) -> None:
        self.run_many(statement, values)


def _as_mapping(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def open_sqlite(path: Path) -> sqlite3.Connection:
    """This function will open one connection with the settings that every connection of ours has."""
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    connection.row_factory = _as_mapping
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        # Fewer checkpoints than by default: each one makes a commit wait for the disk twice more.
        "wal_autocheckpoint=8000",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class SqliteDriver:
    """One writer, a few readers. Many pieces of work share one commit; when one fails, each gets its own."""

    dialect = "sqlite"
    lanes = 1
    group = 512

    def __init__(self, url: str, clock_ms: Callable[[], int]) -> None:
        self._path = sqlite_path(url)
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        self._clock_ms = clock_ms
        self._writer: sqlite3.Connection | None = None
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        try:
            if self._writer is None:
                self._writer = open_sqlite(self._path)
            with file_lock(self._lock_path):
                return self._together(self._writer, works)
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"SQLite: {error}") from error
        except OSError as error:
            raise DatabaseUnavailable(f"SQLite's lock file: {error.strerror}") from error

    def _together(self, writer: sqlite3.Connection, works: Sequence[Work]) -> list[Outcome]:
        try:
            values = self._transaction(writer, works)
        except Exception as error:  # noqa: BLE001 - each piece of work hears of its own
            told = _translated(error)
            if len(works) == 1 or isinstance(told, DatabaseUnavailable):
                # A database that is locked or full is not asked again for each piece, for 10 s each.
                return [Outcome(error=told) for _ in works]
            return [self._together(writer, [work])[0] for work in works]
        return [Outcome(value=value) for value in values]

    def _transaction(self, writer: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
        tx = SqliteTx(writer, self._clock_ms)
        writer.execute("BEGIN IMMEDIATE")
        try:
            values = [work(tx) for work in works]
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise
        return values

    def read(self, work: Work) -> Any:
        try:
            reader = self._readers.get_nowait()
        except Empty:
            try:
                reader = open_sqlite(self._path)
            except sqlite3.Error as error:
                raise DatabaseUnavailable(f"SQLite: {error}") from error
        try:
            reader.execute("BEGIN")
            try:
                return work(SqliteTx(reader, self._clock_ms))
            finally:
                reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _translated(error) from error
        finally:
            self._readers.put(reader)

    def close(self) -> None:
        with file_lock(self._lock_path):
            while not self._readers.empty():
                self._readers.get_nowait().close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None


def _translated(error: Exception) -> Exception:
    """SQLite's own errors of a file that is gone, full, locked or damaged, in our words; others as they are."""
    # The bare DatabaseError is a file that is damaged or no database at all.
    unusable = isinstance(error, (sqlite3.OperationalError, sqlite3.InterfaceError))
    if unusable or type(error) is sqlite3.DatabaseError:
        return DatabaseUnavailable(f"SQLite: {error}")
    return error
