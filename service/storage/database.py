"""The two databases, and every difference between them.

SQLite: WAL, `synchronous=FULL`, one writer, `BEGIN IMMEDIATE`, all write batches of any process under one file
lock. PostgreSQL: psycopg, row locks, its own clock, LISTEN/NOTIFY.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8Dumper
from sqlalchemy.engine import URL
from sqlalchemy.sql import ClauseElement

from service.storage.statements import Many, Row, Rows, Statement, for_sqlite

#: How long a statement waits for another process's write lock before the request fails.
BUSY_TIMEOUT_MS = 10_000
_CONNECT_TIMEOUT_S = 5
#: Every statement of ours finds its rows by an index, a few at a time. The planner, which does not know how many
#: rows a JSON parameter holds, would join by reading whole tables; compiling plans costs more than running them.
_POSTGRES_OPTIONS = "-c jit=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_seqscan=off"
#: Nobody is waited for without end: neither for a lock, nor for a process that stands still with locks of its own,
#: nor for a server that no longer answers.
_POSTGRES_PATIENCE = f" -c lock_timeout={BUSY_TIMEOUT_MS} -c idle_in_transaction_session_timeout=60000"
_TCP_PATIENCE: Mapping[str, Any] = {
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
#: After these errors of one transaction a connection is as good as before.
_HARMLESS = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
)
#: The server became a standby, or ended a transaction that stood still: the next connection may find it well.
_CUT_OFF = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.IdleInTransactionSessionTimeout)
#: How often a transaction that lost a race is decided again before the caller hears of it.
_CONFLICT_TRIES = 8


class DatabaseUnavailable(Exception):
    """The database cannot be reached or does not answer; nothing is known to be committed."""


class WriteConflict(Exception):
    """Somebody else changed a row first; the whole transaction is to be decided again."""


Work = Callable[["Tx"], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one piece of work came to: a value, or the exception that it raised (then nothing of it is kept)."""

    value: Any = None
    error: Exception | None = None


class Tx(Protocol):
    """One transaction on one of the databases."""

    dialect: str

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        """This function will run one statement and return all its rows as mappings."""
        ...

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        """This function will run one statement and return how many rows it touched."""
        ...

    def run_many(self, statement: Many, values: Rows) -> int:
        """This function will run one statement for all rows and return how many rows were touched in all."""
        ...

    def clock_ms(self) -> int:
        """This function will tell the database's time: PostgreSQL's own, so that leases need no equal clocks."""
        ...


def _prepared(statement: Statement | ClauseElement) -> Statement:
    return statement if isinstance(statement, Statement) else Statement(statement)


class SqliteTx:
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection, clock_ms: Callable[[], int]) -> None:
        self._connection = connection
        self.clock_ms = clock_ms

    def _execute(self, statement: Statement | ClauseElement, values: Mapping[str, Any]) -> sqlite3.Cursor:
        sql, fixed = _prepared(statement).text(self.dialect)
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


class PostgresTx:
    dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursor = connection.cursor(row_factory=dict_row)

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        sql, fixed = _prepared(statement).text(self.dialect)
        return self._cursor.execute(sql, {**fixed, **values}).fetchall()

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        sql, fixed = _prepared(statement).text(self.dialect)
        return self._cursor.execute(sql, {**fixed, **values}).rowcount

    def run_many(self, statement: Many, values: Rows) -> int:
        if not values:
            return 0
        sql, fixed = statement.set_based.text(self.dialect)
        parts = statement.as_json(values)
        return sum(self._cursor.execute(sql, {**fixed, "rows": part}).rowcount for part in parts)

    def clock_ms(self) -> int:
        row = self._cursor.execute(
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now"
        ).fetchone()
        assert row is not None
        return int(row["now"])


class Driver(Protocol):
    """How transactions are run on one database. All methods block; the door calls them in threads."""

    dialect: str
    #: How many write transactions may run at once, and how many pieces of work share one.
    lanes: int
    group: int

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        """This function will run pieces of work and return, after the commit, what each returned or raised."""
        ...

    def read(self, work: Work) -> Any:
        """This function will run one read-only transaction on a consistent snapshot.

        :raises DatabaseUnavailable: if the database is gone.
        """
        ...

    def close(self) -> None:
        """This function will close every connection."""
        ...


def dialect_of(url: str) -> str:
    """This function will tell which database a URL names.

    :raises ValueError: if it is neither SQLite nor PostgreSQL.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        return "sqlite"
    if scheme in ("postgresql", "postgres"):
        return "postgresql"
    raise ValueError("it must begin with sqlite:/// or postgresql://")


def sqlite_path(url: str) -> Path:
    """This function will find the file that a SQLite URL names (`sqlite:///relative`, `sqlite:////absolute`).

    :raises ValueError: if it names no file (an in-memory database would lose every job).
    """
    path = unquote(url.removeprefix("sqlite://").removeprefix("/").partition("?")[0])
    if urlsplit(url).netloc or not path or path == ":memory:":
        raise ValueError("a SQLite URL names a file: sqlite:///fluxgate.db or sqlite:////var/lib/fluxgate.db")
    return Path(path)


def sqlalchemy_url(url: str) -> str:
    """This function will give the URL in SQLAlchemy's spelling, with the driver that we use."""
    if dialect_of(url) == "sqlite":
        return str(URL.create("sqlite", database=str(sqlite_path(url))))
    return "postgresql+psycopg://" + url.partition("://")[2]


def connect_args(url: str) -> dict[str, int]:
    """This function will say how long SQLAlchemy may wait for a server that does not answer."""
    return {"connect_timeout": _CONNECT_TIMEOUT_S} if dialect_of(url) == "postgresql" else {}


def libpq_url(url: str) -> str:
    """This function will give the URL in PostgreSQL's own spelling."""
    return "postgresql://" + url.partition("://")[2]


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """This function will hold a lock file; yields whether it was got (always, when told to wait)."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


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
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def open_postgres(url: str) -> psycopg.Connection[Any]:
    """This function will open one connection with the settings that every connection of ours has."""
    connection = psycopg.connect(
        libpq_url(url),
        autocommit=True,
        connect_timeout=_CONNECT_TIMEOUT_S,
        options=_POSTGRES_OPTIONS + _POSTGRES_PATIENCE,
        **_TCP_PATIENCE,
    )
    connection.adapters.register_dumper(int, Int8Dumper)
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


class PostgresDriver:
    """A small pool; each piece of work is one transaction. A connection that broke is replaced at once."""

    dialect = "postgresql"
    lanes = 4
    group = 1

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        return [self._outcome(work) for work in works]

    def _outcome(self, work: Work) -> Outcome:
        refused = False
        for _ in range(_CONFLICT_TRIES):
            try:
                return Outcome(value=self._run(work))
            except (WriteConflict, psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                continue
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                if refused or not isinstance(error, psycopg.errors.UniqueViolation):
                    return Outcome(error=_translated(error))
                # Somebody may have committed the same after this work looked for it: now it would see that.
                refused = True
        return Outcome(error=WriteConflict("another transaction was quicker, again and again"))

    def read(self, work: Work) -> Any:
        try:
            return self._run(work, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        except Exception as error:
            raise _translated(error) from error

    def _run(self, work: Work, begin: str = "BEGIN") -> Any:
        connection = self._begun(begin)
        try:
            value = work(PostgresTx(connection))
            _commit(connection)
        except BaseException as error:
            self._take_back(connection, error)
            raise
        self._idle.put(connection)
        return value

    def _begun(self, begin: str) -> psycopg.Connection[Any]:
        """A connection inside a new transaction; idle ones that died are thrown away, which is safe here."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                connection = open_postgres(self._url)
                connection.execute(begin)
                return connection
            try:
                connection.execute(begin)
                return connection
            except psycopg.Error:
                connection.close()

    def _take_back(self, connection: psycopg.Connection[Any], error: BaseException) -> None:
        """After a failure: only a connection that is known to be sound is used again."""
        if isinstance(error, psycopg.Error) and not isinstance(error, _HARMLESS):
            connection.close()
            return
        try:
            connection.execute("ROLLBACK")
            self._idle.put(connection)
        except psycopg.Error:
            connection.close()

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().close()


def _commit(connection: psycopg.Connection[Any]) -> None:
    """Commit, or say that it was none: after an error that the work swallowed PostgreSQL silently rolls back."""
    if connection.execute("COMMIT").statusmessage != "COMMIT":
        raise RuntimeError("the work went on after an error, and nothing of it was written")


def _translated(error: Exception) -> Exception:
    """The driver's own errors of a database that is gone, full or locked, in our words; others as they are."""
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, *_CUT_OFF)):
        return DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}")
    # The bare DatabaseError is a file that is damaged or no database at all.
    if (
        isinstance(error, (sqlite3.OperationalError, sqlite3.InterfaceError))
        or type(error) is sqlite3.DatabaseError
    ):
        return DatabaseUnavailable(f"SQLite: {error}")
    return error


#: What the drivers raise when a constraint says no.
CONSTRAINT_ERRORS = (sqlite3.IntegrityError, psycopg.IntegrityError)


def open_driver(url: str, clock_ms: Callable[[], int]) -> Driver:
    """This function will give the driver of the database that a URL names.

    :raises ValueError: if it names none of ours.
    """
    return SqliteDriver(url, clock_ms) if dialect_of(url) == "sqlite" else PostgresDriver(url)
