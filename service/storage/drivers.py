"""Which driver a database URL names, and what both drivers raise when a constraint says no."""

import sqlite3
from collections.abc import Callable

import psycopg

from service.storage.database import Driver, dialect_of
from service.storage.postgres import PostgresDriver
from service.storage.sqlite import SqliteDriver

CONSTRAINT_ERRORS = (sqlite3.IntegrityError, psycopg.IntegrityError)


def open_driver(url: str, clock_ms: Callable[[], int]) -> Driver:
    """This function will give the driver of the database that a URL names.

    :raises ValueError: if it names none of ours.
    """
    return SqliteDriver(url, clock_ms) if dialect_of(url) == "sqlite" else PostgresDriver(url)
