"""`fluxgate demo`: the main job against simulated providers, shown live, then checked."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "demo",
        short_help="Show the main job, simulated.",
        epilog="Example: fluxgate demo --jobs 20 --seed 7 --json",
    )(demo)


def demo(
    *,
    jobs: Annotated[int, typer.Option(min=4, max=200, help="How many jobs; fal and BFL take turns.")] = 12,
    seed: Annotated[
        int | None, typer.Option(help="Makes the simulator repeatable; drawn when absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running and print its URLs and a key.")
    ] = False,
) -> None:
    """Show the main job: a simulator and the service start on free ports, jobs go in over HTTP, callbacks come back,
    some of them lost, doubled, late or forged, and polling finds what no callback told.

    Needs nothing and reaches nobody. Ends with a table of the jobs and one of the checks; exit 0 when all held.
    """
    import secrets
    import shutil
    import tempfile
    from pathlib import Path

    chosen = secrets.randbelow(2**32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="fluxgate-demo-"))
    held = False
    try:
        held = _run(folder, jobs=jobs, seed=chosen, as_json=as_json, keep=keep)
    finally:
        if held:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            typer.echo(f"fluxgate: the demo's database and its log stay in {folder}", err=True)
    if not held:
        raise typer.Exit(1)


def _run(folder: "Path", *, jobs: int, seed: int, as_json: bool, keep: bool) -> bool:
    import asyncio

    import uvloop

    from service.cli import logs
    from service.cli.demo.perform import perform

    with (folder / "demo.log").open("w") as log:
        logs.set_up("json", stream=log)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(perform(folder, jobs=jobs, seed=seed, as_json=as_json, keep=keep))
