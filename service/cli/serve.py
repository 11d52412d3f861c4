"""`fluxgate serve`: the web process, with the background work in it unless told otherwise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failing import Failed, wrong_use

if TYPE_CHECKING:
    import asyncio
    import contextlib

    from service.cli.listening import Listener
    from service.settings import Settings
    from service.wiring import Service


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "serve",
        short_help="Serve the API and do the work.",
        epilog="Example: FLUXGATE_PUBLIC_URL=https://gate.example fluxgate serve --host 0.0.0.0",
    )(serve)


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    no_work: Annotated[
        bool,
        typer.Option("--no-work", help="Only the web: 'fluxgate work' does the rest elsewhere (PostgreSQL)."),
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
) -> None:
    """Serve the API and the callbacks, and do the background work.

    An SQLite database is made and migrated; one serve owns its file. A PostgreSQL database must have been migrated
    by 'fluxgate migrate'. SIGTERM and SIGINT stop it within 10 seconds.
    """
    if (tls_cert is None) != (tls_key is None):
        raise wrong_use("a certificate and its key go together", "give both --tls-cert and --tls-key")
    from service import wiring
    from service.cli import opening
    from service.cli.listening import Listener

    settings = opening.read_settings()
    if no_work:
        opening.require_postgres(settings, "serve --no-work")
    with opening.understood(), wiring.owning(settings) as alone:
        if not alone:
            raise Failed(
                "another serve has this SQLite file, and only one may",
                "stop it, or use PostgreSQL (FLUXGATE_DATABASE_URL), which any number can share",
            )
        _prepare(settings)
        listener = Listener(host, port, tls_cert=tls_cert, tls_key=tls_key)
        _run(settings, listener, work=not no_work)


def _prepare(settings: "Settings") -> None:
    """Bring an embedded database up; a shared one is brought up by whoever releases, not by whoever starts."""
    from service.cli.opening import require_current
    from service.storage import migrate
    from service.storage.database import dialect_of

    if dialect_of(settings.database_url) == "sqlite":
        migrate.upgrade(settings.database_url)
    else:
        require_current(settings)


def _run(settings: "Settings", listener: "Listener", *, work: bool) -> None:
    import asyncio
    import contextlib

    import uvloop

    from service import wiring
    from service.cli.collector import look_less_often
    from service.cli.listening import stop_on_signals, until_stopped

    async def program() -> None:
        stop = stop_on_signals()
        async with wiring.running(settings, work=work) as service, serving(service, listener) as server:
            look_less_often()
            print(f"fluxgate: listening on {listener.url}", flush=True)
            await until_stopped(stop, server)

    with (
        contextlib.closing(listener.socket),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(program())


def serving(
    service: "Service", listener: "Listener"
) -> "contextlib.AbstractAsyncContextManager[asyncio.Task[None]]":
    """This function will serve the web application of a running service while the context lasts."""
    from service.cli.listening import listening
    from service.web.app import create_app

    return listening(create_app(service), listener, service)
