"""`fluxgate work`: the background work alone, on PostgreSQL; any number of them, without a leader."""

import typer


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "work",
        short_help="Do background work only (PostgreSQL).",
        epilog="Example: FLUXGATE_DATABASE_URL=postgresql://fluxgate@db/fluxgate fluxgate work",
    )(work)


def work() -> None:
    """Do background work only: submit, ask, reconcile, cancel, keep files. Needs PostgreSQL.

    Run as many as you like beside 'fluxgate serve --no-work'; they share the work by leases. SIGTERM and SIGINT stop
    it within 10 seconds.
    """
    import asyncio

    import uvloop

    from service import wiring
    from service.cli import opening
    from service.cli.collector import look_less_often
    from service.cli.listening import stop_on_signals

    settings = opening.read_settings()
    opening.require_postgres(settings, "work")
    opening.require_current(settings)

    async def program() -> None:
        stop = stop_on_signals()
        async with wiring.running(settings, work=True):
            look_less_often()
            print("fluxgate: working", flush=True)
            await stop.wait()

    with opening.understood(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program())
