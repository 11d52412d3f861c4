"""What the service knows, read straight from its tables and beside it: a bench must not cost what it measures."""

import sqlite3
import time
from contextlib import closing
from datetime import datetime
from typing import Any

import psycopg

from bench.processes import Broken
from service.storage.database import dialect_of, libpq_url, sqlite_path

_LOOK_S = 0.25


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """This function will run one query, on a connection of its own."""
    if dialect_of(url) == "sqlite":
        with closing(sqlite3.connect(f"file:{sqlite_path(url)}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(libpq_url(url)) as connected:
        return connected.execute(statement.encode()).fetchall()


def until_final(url: str, jobs: int, *, wait_s: float) -> None:
    """This function will wait until so many jobs are final.

    :raises Broken: if that takes longer than `wait_s`.
    """
    end = time.monotonic() + wait_s
    while (have := rows(url, "SELECT count(*) FROM job WHERE completed_ms IS NOT NULL")[0][0]) < jobs:
        if time.monotonic() > end:
            states = rows(url, "SELECT state, count(*) FROM job GROUP BY state")
            raise Broken(f"only {have} of {jobs} jobs are final: {states}")
        time.sleep(_LOOK_S)


def completed_s(url: str) -> dict[str, float]:
    """This function will tell, by the provider's request id, when each attempt was known to be over."""
    found = rows(url, "SELECT provider_request_id, completed_ms FROM attempt WHERE completed_ms IS NOT NULL")
    return {request_id: completed_ms / 1000 for request_id, completed_ms in found}


def seconds(text: str) -> float:
    """This function will read a time of the simulator as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
