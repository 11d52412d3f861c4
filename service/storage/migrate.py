"""The schema's revisions: bring a database up, or tell whether it is behind."""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from service.storage.database import connect_args, dialect_of, file_lock, sqlalchemy_url, sqlite_path


def _folder() -> Path:
    """In a wheel the migrations are inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _script() -> Config:
    config = Config()
    # A percent sign would begin an interpolation.
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _config(url: str) -> Config:
    config = _script()
    config.attributes["url"] = sqlalchemy_url(url)
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """This function will bring a database to a revision, the newest by default; on a new file it makes it.

    :raises ValueError: if the URL names no database of ours.
    :raises sqlalchemy.exc.OperationalError: if the database cannot be reached.
    """
    if dialect_of(url) == "sqlite":
        path = sqlite_path(url)
        with file_lock(path.with_name(path.name + ".lock")):
            command.upgrade(_config(url), revision)
            # Here, where nobody else has it open: of two connections that switch at once, one finds it locked.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL").fetchall()
    else:
        command.upgrade(_config(url), revision)


def newest_revision() -> str | None:
    """This function will name the newest revision that this release knows."""
    return ScriptDirectory.from_config(_script()).get_current_head()


def current_revision(url: str) -> str | None:
    """This function will name the revision a database is at; None for an empty one.

    :raises sqlalchemy.exc.OperationalError: if the database cannot be reached.
    """
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool, connect_args=connect_args(url))
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_behind(url: str) -> bool:
    """This function will tell whether a database is not at the newest revision."""
    if dialect_of(url) == "sqlite" and not sqlite_path(url).exists():
        return True
    return current_revision(url) != newest_revision()
