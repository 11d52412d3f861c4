"""What every command that needs the service begins with: settings, a current database, errors that say what to do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service import wiring
from service.cli import logs
from service.cli.failing import Failed
from service.domain.targets import UrlRefused
from service.flows.errors import Conflict, FlowError, NotFound
from service.settings import Settings, SettingsError
from service.sinks.base import SinkMissing
from service.storage import migrate
from service.storage.database import DatabaseUnavailable, WriteConflict, dialect_of, sqlite_path

T = TypeVar("T")

_MIGRATE = "run 'fluxgate migrate'"
_ALLOW = "give a public https URL, or let the operator name its network in FLUXGATE_EGRESS_ALLOW"
_REACH = "check FLUXGATE_DATABASE_URL and that the database runs"


def read_settings() -> Settings:
    """This function will read the settings, and set up the logs as they say.

    :raises Failed: with one line for each wrong setting.
    """
    try:
        settings = Settings.load()
    except SettingsError as error:
        first, *more = [(problem, "correct it in the environment or in .env") for problem in error.lines]
        raise Failed(*first, *more) from None
    logs.set_up(settings.log_format)
    return settings


def require_current(settings: Settings) -> None:
    """This function will make sure that the database is there and at the newest revision.

    :raises Failed: if it is not, naming the command that helps.
    """
    if dialect_of(settings.database_url) == "sqlite" and not sqlite_path(settings.database_url).exists():
        path = sqlite_path(settings.database_url)
        raise Failed(
            f"there is no database at {path}", f"{_MIGRATE}, or start 'fluxgate serve', which makes it"
        )
    with understood():
        if migrate.is_behind(settings.database_url):
            raise Failed("the database is not at the revision of this release", _MIGRATE)


def require_postgres(settings: Settings, what: str) -> None:
    """This function will refuse what one SQLite file cannot carry.

    :raises Failed: if the database is SQLite.
    """
    if dialect_of(settings.database_url) == "sqlite":
        raise Failed(
            f"{what} needs PostgreSQL, and FLUXGATE_DATABASE_URL names an SQLite file",
            "run 'fluxgate serve' alone, or set FLUXGATE_DATABASE_URL to postgresql://…",
        )


def briefly(act: Callable[[wiring.Service], Awaitable[T]], *, things: str = "jobs") -> T:
    """This function will open the service without its background work, do one thing with it, and close it again.

    `things` is the command that lists what it is about, should that not be there.

    :raises Failed: if the settings, the database, or what was asked for stand in the way.
    """
    settings = read_settings()
    logs.only_warnings()
    require_current(settings)

    async def opened() -> T:
        async with wiring.running(settings, work=False) as service:
            return await act(service)

    with understood(things):
        return asyncio.run(opened())


@contextmanager
def understood(things: str = "jobs") -> Iterator[None]:
    """This function will turn what a user or an operator can put right into `Failed`; anything else is our bug."""
    try:
        yield
    except NotFound as error:
        raise Failed(
            str(error), f"see 'fluxgate {things} list', and --tenant if it is another one's"
        ) from None
    except UrlRefused as error:
        raise Failed(f"the URL {error}", _ALLOW) from None
    except (Conflict, FlowError) as error:
        raise Failed(str(error), f"see 'fluxgate {things} show ID'") from None
    except wiring.SecretKeysMissing as error:
        raise Failed(str(error), "set it, for example to what 'openssl rand -base64 32' prints") from None
    except SinkMissing as error:
        raise Failed(str(error), f"pip install 'fluxgate[{error.extra}]', or unset its URL") from None
    except (DatabaseUnavailable, WriteConflict) as error:
        raise Failed(f"the database cannot be used: {error}", _REACH) from None
    except (DBAPIError, psycopg.Error) as error:
        raise Failed(f"the database cannot be used: {_first_line(error)}", _REACH) from None
    except CommandError as error:
        raise Failed(
            f"the database was made by another release: {error}",
            "use the release that made it, or a newer one",
        ) from None
    except SQLAlchemyError:
        raise Failed(
            "FLUXGATE_DATABASE_URL cannot be understood", "write it as postgresql://user@host/db"
        ) from None
    except OSError as error:
        raise Failed(_of_system(error), "check the path and its permissions") from None


def _first_line(error: Exception) -> str:
    """The driver's own words without the statement; they name host and user, never a password."""
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _of_system(error: OSError) -> str:
    said = error.strerror or str(error)
    return f"{error.filename}: {said}" if error.filename else said
