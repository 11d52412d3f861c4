"""The two databases under test, fresh for each measurement."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bench.postgres import Postgres, server

NAMES = ("sqlite", "postgresql")


class Database(Protocol):
    """Makes databases of one kind."""

    name: str
    version: str
    settings: dict[str, str]

    def fresh(self) -> contextlib.AbstractContextManager[str]:
        """This function will give the URL of an empty database while the block runs."""
        ...

    def cpu_s(self) -> float:
        """This function will tell how many seconds of CPU its own processes have used."""
        ...


class Sqlite:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.version = sqlite3.sqlite_version
        # Said here as the service sets it in storage/database.py; every connection of ours has these.
        self.settings = {"journal_mode": "wal", "synchronous": "full", "foreign_keys": "on"}

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        folder = self._folder / f"sqlite-{time.monotonic_ns()}"
        folder.mkdir()
        yield f"sqlite:///{folder}/bench.db"
        for path in folder.iterdir():
            path.unlink()

    def cpu_s(self) -> float:
        return 0.0


class Postgresql:
    name = "postgresql"

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.version = server.version
        self.settings = server.settings

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        name = f"bench_{time.monotonic_ns()}"
        yield self.server.create(name)
        self.server.drop(name)

    def cpu_s(self) -> float:
        return self.server.process.family_cpu_s()


@contextlib.contextmanager
def opened(name: str, folder: Path) -> Iterator[Database]:
    """This function will give one kind of database while the block runs; on PostgreSQL with a server of our own."""
    if name == "sqlite":
        yield Sqlite(folder)
        return
    with server(folder / "postgres") as running:
        yield Postgresql(running)
