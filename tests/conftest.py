"""What every test gets: a clean environment, one event loop, and fresh databases of both kinds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.databases import PostgresDatabases, SqliteDatabases

PROVIDER_VARIABLES = (
    "FAL_KEY",
    "BFL_API_KEY",
    "REPLICATE_API_TOKEN",
    "TOGETHER_API_KEY",
    "SEGMIND_API_KEY",
    "AIMLAPI_API_KEY",
)

# A deadline per example measures how busy the machine is, not the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def upgrade_schema(url: str) -> None:
    """Bring a database to the newest revision by the service's own migrations."""
    from service.storage.migrate import upgrade

    upgrade(url)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what the developer's shell may hold: real keys, settings, and proxies that would catch loopback.

    The test starts in a folder of its own, so that no `.env` of the checkout is read and no file is left there.
    """
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        ours = name.startswith("FLUXGATE_") or name in PROVIDER_VARIABLES
        if ours or name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "database_url"}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[PostgresDatabases]:
    databases = PostgresDatabases(upgrade_schema)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    return SqliteDatabases(upgrade_schema, tmp_path_factory.mktemp("sqlite"))


@pytest.fixture
def sqlite_url(sqlite_databases: SqliteDatabases, tmp_path: Path) -> str:
    """Give the URL of a fresh migrated SQLite file, alone in its folder."""
    folder = tmp_path / "database"
    folder.mkdir()
    sqlite_databases.copy_migrated(folder / "fluxgate.db")
    return f"sqlite:///{folder / 'fluxgate.db'}"


@pytest.fixture
def postgresql_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """Give the URL of a fresh migrated PostgreSQL database, dropped after the test whoever still uses it."""
    name = postgres_databases.create_migrated()
    yield postgres_databases.url(name)
    postgres_databases.drop(name)


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """Give the URL of a SQLite file that does not exist yet."""
    folder = tmp_path / "database"
    folder.mkdir()
    return f"sqlite:///{folder / 'fluxgate.db'}"


@pytest.fixture
def empty_postgresql_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """Give the URL of a PostgreSQL database without tables."""
    name = postgres_databases.create_empty()
    yield postgres_databases.url(name)
    postgres_databases.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of a fresh migrated database; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of a database without tables; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url
