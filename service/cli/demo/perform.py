"""The course of a demo: open the stage, play, read what both sides say, check, show."""

from pathlib import Path

from service.cli.demo import show
from service.cli.demo.caller import Caller
from service.cli.demo.checks import all_checks
from service.cli.demo.script import scenes
from service.cli.demo.stage import staged
from service.cli.demo.watch import play, record
from service.cli.listening import stop_on_signals


async def perform(folder: Path, *, jobs: int, seed: int, as_json: bool, keep: bool) -> bool:
    """This function will run a whole demo and tell whether every check held."""
    async with staged(folder, seed=seed) as stage:
        async with Caller(stage) as caller:
            with show.Progress(silent=as_json) as progress:
                playing = await play(caller, list(scenes(jobs)), progress.tell)
            recorded = await record(caller, playing)
        checks = all_checks(recorded)
        summed = show.lines(recorded, playing.scenes)
        if as_json:
            show.document(summed, checks, seed=seed, stage=stage if keep else None)
        else:
            show.tables(summed, checks, seed=seed)
        if keep:
            if not as_json:
                show.kept_running(stage)
            await stop_on_signals().wait()
    return all(check.held for check in checks)
