"""The databases that all other tests stand on: fresh, migrated once, and gone afterwards."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.databases import PostgresDatabases, SqliteDatabases


class Upgrades:
    """A schema of one table, and a count of how often it was built."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def __call__(self, url: str) -> None:
        self.urls.append(url)
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("CREATE TABLE marked (note text)")


def test_a_postgresql_database_is_empty_and_a_real_server_of_the_newest_kind(
    empty_postgresql_url: str,
) -> None:
    with psycopg.connect(empty_postgresql_url) as connection:
        assert connection.info.server_version >= 180000
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_dropped_database_is_gone_though_somebody_is_connected(
    postgres_databases: PostgresDatabases,
) -> None:
    name = postgres_databases.create_empty()
    left_open = psycopg.connect(postgres_databases.url(name))
    postgres_databases.drop(name)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres_databases.url(name))


def test_sqlite_files_are_copies_of_one_migrated_file(tmp_path: Path) -> None:
    upgrades = Upgrades()
    databases = SqliteDatabases(upgrades, tmp_path)
    for name in ("one.db", "other.db"):
        databases.copy_migrated(tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert connection.execute("SELECT count(*) FROM marked").fetchone() == (0,)
            connection.execute("INSERT INTO marked VALUES ('only here')")
            connection.commit()
    assert len(upgrades.urls) == 1
