"""PostgreSQL: psycopg, row locks, its own clock; a small pool, each piece of work a transaction of its own."""

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
#: The server became a standby, or ended a transaction that stood still: the next connection may find it well.
_CUT_OFF = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.IdleInTransactionSessionTimeout)
#: How often a transaction that lost a race is decided again before the caller hears of it.
_CONFLICT_TRIES = 8


class PostgresTx:
    dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursor = connection.cursor(row_factory=dict_row)
        self._later: list[tuple[str, dict[str, Any]]] = []
        #: A pipeline that was broken off leaves the driver believing in prepared statements that were never made.
        self.sound = True

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        self._catch_up()
        sql, fixed = prepared(statement).text(self.dialect)
        return self._cursor.execute(sql, {**fixed, **values}).fetchall()

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        self._catch_up()
        sql, fixed = prepared(statement).text(self.dialect)
        return self._cursor.execute(sql, {**fixed, **values}).rowcount

    def run_many(self, statement: Many, values: Rows) -> int:
        if not values:
            return 0
        self._catch_up()
        sql, fixed = statement.set_based.text(self.dialect)
        parts = statement.as_json(values)
        return sum(self._cursor.execute(sql, {**fixed, "rows": part}).rowcount for part in parts)

    def run_later(self, statement: Many, values: Rows) -> None:
        if values:
            sql, fixed = statement.set_based.text(self.dialect)
            self._later += [(sql, {**fixed, "rows": part}) for part in statement.as_json(values)]

    def _catch_up(self) -> None:
        """Run what was put off, in its order, in one round trip."""
        if self._later:
            self._together()

    def _together(self, *last: str) -> str | None:
        """Send what was put off, and one statement more, as one; returns what the server says of the last."""
        later, self._later = self._later, []
        told, self.sound = None, False
        with self._connection.pipeline():
            for sql, values in later:
                self._connection.execute(sql, values)
            for sql in last:
                told = self._connection.execute(sql)
        self.sound = True
        return told.statusmessage if told is not None else None

    def commit(self) -> None:
        """This function will commit what was run and what was put off.

        :raises RuntimeError: if it was none: after an error that the work swallowed PostgreSQL silently rolls back.
        """
        told = self._together("COMMIT") if self._later else self._connection.execute("COMMIT").statusmessage
        if told != "COMMIT":
            raise RuntimeError("the work went on after an error, and nothing of it was written")

    def clock_ms(self) -> int:
        self._catch_up()
        row = self._cursor.execute(
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now"
        ).fetchone()
        assert row is not None
        return int(row["now"])


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
        tx = PostgresTx(connection)
        try:
            value = work(tx)
            tx.commit()
        except BaseException as error:
            self._take_back(connection, error, sound=tx.sound)
            raise
        self._idle.put(connection)
        return value

    def _begun(self, begin: str) -> psycopg.Connection[Any]:
        """A connection inside a new transaction; idle ones that died are thrown away, which is safe here."""
        while True:
            try:
                connection, known = self._idle.get_nowait(), True
            except Empty:
                connection, known = open_postgres(self._url), False
            try:
                connection.execute(begin)
                return connection
            except psycopg.Error:
                connection.close()
                if not known:
                    raise

    def _take_back(self, connection: psycopg.Connection[Any], error: BaseException, *, sound: bool) -> None:
        """After a failure: only a connection that is known to be sound is used again."""
        if not sound or (isinstance(error, psycopg.Error) and not isinstance(error, _HARMLESS)):
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


def _translated(error: Exception) -> Exception:
    """The driver's own errors of a server that is gone or does not answer, in our words; others as they are."""
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, *_CUT_OFF)):
        return DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}")
    return error
