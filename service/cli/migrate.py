"""`fluxgate migrate`: brings the database to the newest revision, or tells whether it is there."""

from typing import Annotated

import typer

from service.cli.failing import Failed


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "migrate",
        short_help="Bring the database up to date.",
        epilog="Example: fluxgate migrate --check || fluxgate migrate",
    )(migrate)


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when the database is behind.")
    ] = False,
) -> None:
    """Bring the database of FLUXGATE_DATABASE_URL to the newest revision, making its tables when it is empty."""
    from service.cli import logs, opening
    from service.storage import migrate as revisions

    settings = opening.read_settings()
    logs.only_warnings()
    with opening.understood():
        newest = revisions.newest_revision()
        if not check:
            revisions.upgrade(settings.database_url)
        elif revisions.is_behind(settings.database_url):
            raise Failed(f"the database is not at revision {newest}", "run 'fluxgate migrate'")
    print(f"the database is at revision {newest}")
