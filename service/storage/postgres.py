"""PostgreSQL: psycopg, row locks, its own clock; a small pool, each piece of work a transaction of its own."""

import contextlib
import select
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8Dumper
from sqlalchemy.sql import ClauseElement

from service.storage.database import (
    BUSY_TIMEOUT_MS,
    CONNECT_TIMEOUT_S,
    DatabaseUnavailable,
    Outcome,
    Work,
    WriteConflict,
    libpq_url,
    prepared,
)
from service.storage.statements import Many, Row, Rows, Statement

#: Every statement of ours finds its rows by an index, a few at a time. The planner, which does not know how many
#: rows a JSON parameter holds, would join by reading whole tables; compiling plans costs more than running them.
_POSTGRES_OPTIONS = "-c jit=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_seqscan=off"
#: Nobody is waited for without end: neither for a lock, nor for a process that stands still with locks of its own,
#: nor for a server that no longer answers.
_POSTGRES_PATIENCE = f" -c lock_timeout={BUSY_TIMEOUT_MS} -c idle_in_transaction_session_timeout=60000"
TCP_PATIENCE: Mapping[str, Any] = {
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
#: The last one is how an update says that a row is not as it was when it was read.
_LOST_RACES = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.DivisionByZero,
)
#: The server became a standby, or ended a transaction that stood still: the next connection may find it well.
_CUT_OFF = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.IdleInTransactionSessionTimeout)
#: How often a transaction that lost a race is decided again before the caller hears of it.
_CONFLICT_TRIES = 8
#: After a collision, so many transactions look before they insert.
_WARY = 64
_CLOCK = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now"

_Unsent = tuple[str, Mapping[str, Any] | None]


class PostgresTx:
    """One transaction. What nobody waits for travels with the COMMIT, and when that is all, with the BEGIN as well."""

    dialect = "postgresql"

    def __init__(
        self, connection: psycopg.Connection[Any], begin: str = "BEGIN", *, cautious: bool = True
    ) -> None:
        self.connection = connection
        self._cursor = connection.cursor(row_factory=dict_row)
        self._begin = begin
        self._begun = False
        self._later: list[_Unsent] = []
        self._last: list[_Unsent] = []
        self.cautious = cautious
        #: A pipeline that was broken off leaves the driver believing in prepared statements that were never made.
        self.sound = True

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        sql, fixed = prepared(statement).text(self.dialect)
        return self._executed(sql, {**fixed, **values}).fetchall()

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        sql, fixed = prepared(statement).text(self.dialect)
        return self._executed(sql, {**fixed, **values}).rowcount

    def run_many(self, statement: Many, values: Rows) -> int:
        return sum(self._executed(sql, given).rowcount for sql, given in _set_based(statement, values))

    def run_later(self, statement: Many, values: Rows) -> None:
        self._later += _set_based(statement, values)

    def run_all(self, statement: Many, values: Rows) -> None:
        assert statement.or_fail is not None, "made by update_many"
        self._later += _set_based(statement, values, statement.or_fail)

    def run_last(self, statement: Many, values: Rows) -> None:
        self._last += _set_based(statement, values)

    def _executed(self, sql: str, values: Mapping[str, Any] | None = None) -> psycopg.Cursor[Row]:
        """Run one statement behind what was put off.

        It is never the last of a pipeline: the driver ends one with a message that stops the server's clock for
        transactions that stand still, and whoever stands still then would keep his locks for good.
        """
        if not self._begun:
            self._begun = True
            self.connection.execute(self._begin)
        if self._later:
            self._together()
        return self._cursor.execute(sql, values)

    def _together(self, *ends: str) -> None:
        """Run what was put off, and what ends the transaction with it, in one round trip."""
        later, self._later = self._later, []
        self.sound = False
        with self.connection.pipeline():
            for sql, values in later:
                self.connection.execute(sql, values)
            for sql in ends:
                self._cursor.execute(sql)
        self.sound = True

    def commit(self) -> None:
        """This function will commit what was run and what was put off.

        :raises RuntimeError: if it was none: after an error that the work swallowed PostgreSQL silently rolls back.
        """
        self._later += self._last
        if not self._begun:
            self._begun = True
            self._later.insert(0, (self._begin, None))
        if self._later:
            self._together("COMMIT")
        else:
            self._cursor.execute("COMMIT")
        if self._cursor.statusmessage != "COMMIT":
            raise RuntimeError("the work went on after an error, and nothing of it was written")

    def roll_back(self) -> None:
        """This function will undo what was run and forget what was put off."""
        begun, self._later, self._last = self._begun, [], []
        if begun:
            self.connection.execute("ROLLBACK")

    def clock_ms(self) -> int:
        [row] = self._executed(_CLOCK).fetchall()
        return int(row["now"])


def _set_based(statement: Many, values: Rows, form: Statement | None = None) -> list[_Unsent]:
    if not values:
        return []
    sql, fixed = (form or statement.set_based).text("postgresql")
    return [(sql, {**fixed, "rows": part}) for part in statement.as_json(values)]


def open_postgres(url: str) -> psycopg.Connection[Any]:
    """This function will open one connection with the settings that every connection of ours has."""
    connection = psycopg.connect(
        libpq_url(url),
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        options=_POSTGRES_OPTIONS + _POSTGRES_PATIENCE,
        **TCP_PATIENCE,
    )
    connection.adapters.register_dumper(int, Int8Dumper)
    return connection


class PostgresDriver:
    """A small pool; each piece of work is one transaction. A connection that broke is replaced at once."""

    dialect = "postgresql"
    lanes = 4
    group = 1

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        self._closed = False
        #: So many more pieces of work are cautious from the start: where one collided, others will.
        self._wary = 0

    def write(self, works: Sequence[Work]) -> list[Outcome]:
        return [self._outcome(work) for work in works]

    def _outcome(self, work: Work) -> Outcome:
        refused = False
        self._wary = max(0, self._wary - 1)
        for _ in range(_CONFLICT_TRIES):
            try:
                return Outcome(value=self._run(work, cautious=refused or self._wary > 0))
            except (WriteConflict, *_LOST_RACES):
                continue
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                if refused or not isinstance(error, psycopg.errors.UniqueViolation):
                    return Outcome(error=_translated(error))
                # Somebody may have committed the same after this work looked for it: now it would see that.
                refused, self._wary = True, _WARY
        return Outcome(error=WriteConflict("another transaction was quicker, again and again"))

    def read(self, work: Work) -> Any:
        try:
            return self._run(work, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", cautious=True)
        except Exception as error:
            raise _translated(error) from error

    def _run(self, work: Work, begin: str = "BEGIN", *, cautious: bool) -> Any:
        tx = PostgresTx(self._connection(), begin, cautious=cautious)
        try:
            value = work(tx)
            tx.commit()
        except BaseException as error:
            self._take_back(tx, error)
            raise
        self._put_back(tx.connection)
        return value

    def _connection(self) -> psycopg.Connection[Any]:
        """An idle connection, or a new one; idle ones that died are thrown away, which is safe here."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                return open_postgres(self._url)
            if not _has_news(connection):
                return connection
            # Mostly that its server is gone: nothing is sent over it before that is known.
            with contextlib.suppress(psycopg.Error):
                connection.execute("SELECT 1")
                return connection
            connection.close()

    def _take_back(self, tx: PostgresTx, error: BaseException) -> None:
        """After a failure: only a connection that is known to be sound is used again."""
        if not tx.sound or (isinstance(error, psycopg.Error) and not isinstance(error, _HARMLESS)):
            tx.connection.close()
            return
        try:
            tx.roll_back()
            self._put_back(tx.connection)
        except psycopg.Error:
            tx.connection.close()

    def _put_back(self, connection: psycopg.Connection[Any]) -> None:
        """A read that outlived its reader may end after `close`: its connection is closed like the others."""
        self._idle.put(connection)
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(Empty):
            while True:
                self._idle.get_nowait().close()


def _has_news(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server said something unasked, or hung up; costs one look at the socket."""
    watch = select.poll()
    watch.register(connection.fileno(), select.POLLIN | select.POLLPRI)
    return bool(watch.poll(0))


def _translated(error: Exception) -> Exception:
    """The driver's own errors of a server that is gone or does not answer, in our words; others as they are."""
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, *_CUT_OFF)):
        return DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}")
    return error
