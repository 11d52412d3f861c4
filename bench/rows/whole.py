"""Whole jobs: accepted, submitted, called back, recorded, delivered to an endpoint that wants their ends.

The service is on one core; the provider, the consumer and who submits are on the other.

The limit is what the database alone can do of one transaction of the same shape (begin, update, two inserts,
commit): pgbench on PostgreSQL, a bare loop on SQLite.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench import gate, known, outlets, pgbench
from bench.databases import Database, Postgresql
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken

_SERVICE, _OTHERS = {0}, {1}
_WARM_JOBS = 100
_WAIT_S = 120.0
_FAULTS = "queue_ms=0,run_ms=50"


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure whole jobs."""
    limit, limit_is = _limit(database, options)
    print(f"  {database.name}: {options.whole_jobs} whole jobs", flush=True)
    with (
        database.fresh() as url,
        gate.simulating(options.folder, _FAULTS, cores=_OTHERS) as provider,
        outlets.consuming(options.folder, cores=_OTHERS) as consumer,
        gate.serving(
            {**gate.settings(url, options.folder, provider_url=provider.url), **outlets.ALLOWED},
            options.folder,
            cores=_SERVICE,
        ) as service,
        outlets.endpoint(service, consumer.url, types=list(outlets.ENDS)),
    ):
        service.load(gate.jobs("warm", most=_WARM_JOBS), cores=_OTHERS, seconds=30)
        _until_delivered(url, consumer, _WARM_JOBS)
        cpu_s = service.process.cpu_s()
        others_cpu_s, database_cpu_s = provider.process.cpu_s(), database.cpu_s()
        calls = provider.totals()["polls"]["answered"]
        most = options.whole_jobs
        seen = service.load(gate.jobs("whole", most=most), cores=_OTHERS, seconds=_WAIT_S, warm_s=0.0)
        if set(seen["statuses"]) != {"202"}:
            raise Broken(f"whole jobs: not everything was accepted: {seen['statuses']}")
        _until_delivered(url, consumer, _WARM_JOBS + most)
        took_s = known.rows(url, "SELECT max(completed_ms) FROM delivery")[0][0] / 1000 - seen["first_at"]
        notes = {
            "jobs": most,
            "service_cpu_ms_each": round(1000 * (service.process.cpu_s() - cpu_s) / most, 2),
            "simulator_cpu_ms_each": round(1000 * (provider.process.cpu_s() - others_cpu_s) / most, 2),
            "database_cpu_ms_each": round(1000 * (database.cpu_s() - database_cpu_s) / most, 2),
            "polls": provider.totals()["polls"]["answered"] - calls,
        }
    yield Line(
        what="whole jobs (accept, submit, callback, record, deliver)",
        database=database.name,
        figure=most / took_s,
        unit="/s",
        limit=limit,
        limit_is=limit_is,
        goal=0.05,
        notes=notes,
    )


def _until_delivered(url: str, consumer: outlets.Outlet, jobs: int) -> None:
    """Wait until so many jobs are final, told, and that is recorded."""
    known.until_final(url, jobs, wait_s=_WAIT_S)
    consumer.until_got(jobs, wait_s=_WAIT_S)
    recorded = "SELECT count(*) FROM delivery WHERE state = 'succeeded'"
    outlets.until(
        lambda: known.rows(url, recorded)[0][0] >= jobs, wait_s=_WAIT_S, what=f"{jobs} deliveries recorded"
    )


def _limit(database: Database, options: Options) -> tuple[float | None, str]:
    if isinstance(database, Postgresql):
        return pgbench.five_statements(database.server, options.pgbench_s), "pgbench, five statements"
    return _bare_sqlite(options.folder, options.pgbench_s), "sqlite3, five statements, FULL"


def _bare_sqlite(folder: Path, seconds: float) -> float:
    """The same transaction in a bare loop, one durable commit each."""
    path = folder / f"bare-{time.monotonic_ns()}.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *pgbench.TABLES):
            connection.execute(statement)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO thing VALUES (?, 0, ?)", ((number, "x" * 100) for number in range(pgbench.THINGS))
        )
        connection.execute("COMMIT")
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE thing SET version = version + 1 WHERE id = ?", (done * 7919 % pgbench.THINGS,)
            )
            connection.execute("INSERT INTO line VALUES (?, ?)", (done, "x" * 300))
            connection.execute("INSERT INTO told VALUES (?, ?)", (done, "x" * 600))
            connection.execute("COMMIT")
            done += 1
    return done / seconds
