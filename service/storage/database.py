"""What both databases are to the rest: transactions, drivers, their errors, and how their URLs are read.

What differs between them is in `sqlite.py` and `postgres.py`, and nowhere else.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL
from sqlalchemy.sql import ClauseElement

from service.storage.statements import Many, Row, Rows, Statement

#: How long a statement waits for another process's write lock before the request fails.
BUSY_TIMEOUT_MS = 10_000
#: How long a server may take to answer at all.
CONNECT_TIMEOUT_S = 5


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
    #: Whether to look before a row is inserted that may be there already. Where a look is a round trip, the first
    #: run of a piece of work inserts at once; after a collision it is run again, cautiously.
    cautious: bool

    def rows(self, statement: Statement | ClauseElement, **values: Any) -> list[Row]:
        """This function will run one statement and return all its rows as mappings."""
        ...

    def run(self, statement: Statement | ClauseElement, **values: Any) -> int:
        """This function will run one statement and return how many rows it touched."""
        ...

    def run_many(self, statement: Many, values: Rows) -> int:
        """This function will run one statement for all rows and return how many rows were touched in all."""
        ...

    def run_later(self, statement: Many, values: Rows) -> None:
        """This function will run one statement for all rows before the next one that is waited for, or the commit.

        For what nobody waits for: on PostgreSQL all such statements travel together with the COMMIT. What one of
        them raises is raised then.
        """
        ...

    def run_all(self, statement: Many, values: Rows) -> None:
        """This function will run an update for all rows, each of which must touch one, like `run_later`.

        :raises WriteConflict: if one did not; on PostgreSQL that is found with the statements it travels with, and
            the work is run again.
        """
        ...

    def run_last(self, statement: Many, values: Rows) -> None:
        """This function will run one statement for all rows behind all others, with the COMMIT.

        For what takes a lock that everybody wants: it is held no longer than the commit itself.
        """
        ...

    def clock_ms(self) -> int:
        """This function will tell the database's time: PostgreSQL's own, so that leases need no equal clocks."""
        ...


def prepared(statement: Statement | ClauseElement) -> Statement:
    """This function will give a statement in the form that remembers its text."""
    return statement if isinstance(statement, Statement) else Statement(statement)


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
    return {"connect_timeout": CONNECT_TIMEOUT_S} if dialect_of(url) == "postgresql" else {}


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
