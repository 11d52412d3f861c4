"""PostgreSQL's own bench on one transaction of the service's shape: begin, one update, two inserts, commit."""

import contextlib
import re
import time

import psycopg

from bench.postgres import Postgres
from bench.processes import run

THINGS = 100_000
TABLES = (
    "CREATE TABLE thing (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, said TEXT NOT NULL)",
    "CREATE TABLE line (id BIGINT NOT NULL, said TEXT NOT NULL)",
    "CREATE TABLE told (id BIGINT NOT NULL, said TEXT NOT NULL)",
)
_SCRIPT = f"""\\set id random(1, {THINGS})
BEGIN;
UPDATE thing SET version = version + 1 WHERE id = :id;
INSERT INTO line VALUES (:id, repeat('x', 300));
INSERT INTO told VALUES (:id, repeat('x', 600));
COMMIT;
"""
_TPS = re.compile(r"tps = ([0-9.]+)")


def five_statements(server: Postgres, seconds: int) -> float | None:
    """This function will measure transactions per second, 8 clients, prepared; None without pgbench."""
    program = server.tool("pgbench")
    if program is None:
        return None
    name = f"limit_{time.monotonic_ns()}"
    url = server.create(name)
    try:
        with psycopg.connect(url) as connection:
            for statement in TABLES:
                connection.execute(statement.encode())
            connection.execute(
                f"INSERT INTO thing SELECT n, 0, repeat('x', 100) FROM generate_series(1, {THINGS}) n".encode()
            )
        script = server.folder / "five.sql"
        with contextlib.suppress(FileNotFoundError):
            script.unlink()
        script.write_text(_SCRIPT)
        options = ["-n", "-M", "prepared", "-c", "8", "-j", "2", "-T", str(seconds), "-f", str(script)]
        said = run([str(program), *options, url], folder=server.folder, settings={})
    finally:
        server.drop(name)
    found = _TPS.search(said)
    return float(found[1]) if found else None
