"""What a demo prints: progress while it runs, then a table of jobs and a table of checks; or one JSON document."""

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from service.cli.demo.checks import Check, Record
from service.cli.demo.script import Scene
from service.cli.demo.stage import Stage
from service.domain.timestamps import parse_rfc3339

_COLOURS = {"succeeded": "green", "failed": "red", "blocked": "yellow", "expired": "red", "kept": "green"}
#: Words of the feed that say more in a table.
_WORDS = {"archived": "succeeded, files kept"}


class Progress:
    """One row a job that changes in place on a terminal; one line an event elsewhere; nothing when silent."""

    def __init__(self, *, silent: bool) -> None:
        console = Console()
        self._silent = silent
        self._rows: dict[str, tuple[Scene, str]] = {}
        self._live = (
            Live(console=console, transient=True, refresh_per_second=10)
            if console.is_terminal and not silent
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, job_id: str, scene: Scene, state: str) -> None:
        """This function will show that a job has come to a state; its acceptance is heard of twice."""
        if self._rows.get(job_id) == (scene, state):
            return
        self._rows[job_id] = (scene, state)
        if self._live is not None:
            self._live.update(_progress_table(self._rows))
        elif not self._silent:
            print(f"job {scene.number:>2}  {scene.provider:<4} {_WORDS.get(state, state)}", flush=True)


def _progress_table(rows: Mapping[str, tuple[Scene, str]]) -> Table:
    table = Table("job", "provider", "its callback", "state", box=box.SIMPLE_HEAD)
    for scene, state in rows.values():
        table.add_row(str(scene.number), scene.provider, scene.part, _coloured(_WORDS.get(state, state)))
    return table


def _coloured(text: str) -> str:
    colour = _COLOURS.get(text.partition(",")[0])
    return f"[{colour}]{text}[/]" if colour else text


def lines(record: Record, scenes: Mapping[str, Scene]) -> list[dict[str, Any]]:
    """This function will sum up each job: its callback's fate, its final state, how that was learned, and its lag.

    The lag is from the end at the simulator to the end here: both have the same clock, and fal itself tells no time.
    """
    ended = {request["id"]: request["completed_at"] for request in record.requests}
    return [
        {
            "job": scenes[job["id"]].number,
            "id": job["id"],
            "provider": job["provider"],
            "callback": scenes[job["id"]].part,
            "state": job["state"],
            "learned_by": job["learned_by"],
            "lag_ms": _lag_ms(job, ended),
            "callbacks": [callback["verdict"] for callback in record.callbacks[job["id"]]],
        }
        for job in record.jobs
    ]


def _lag_ms(job: Mapping[str, Any], ended: Mapping[str, str | None]) -> int | None:
    there = next((ended.get(attempt["provider_request_id"]) for attempt in job["attempts"]), None)
    if there is None or job["completed_at"] is None:
        return None
    return parse_rfc3339(job["completed_at"]) - parse_rfc3339(there)


def tables(jobs: Sequence[Mapping[str, Any]], checks: Sequence[Check], *, seed: int) -> None:
    """This function will print what became of each job, and which checks held."""
    terminal = sys.stdout.isatty()
    console = Console() if terminal else Console(width=132, highlight=False)
    shown = Table("job", "provider", "its callback", "state", "learned by", box=box.SIMPLE_HEAD)
    shown.add_column("lag", justify="right")
    shown.add_column("callbacks as judged")
    for job in jobs:
        lag = "-" if job["lag_ms"] is None else f"{job['lag_ms']} ms"
        judged = ", ".join(job["callbacks"]) or "-"
        learned_by = job["learned_by"] or "-"
        shown.add_row(
            str(job["job"]),
            job["provider"],
            job["callback"],
            _coloured(job["state"]),
            learned_by,
            lag,
            judged,
        )
    verdicts = Table("check", "held", "", box=box.SIMPLE_HEAD)
    for check in checks:
        verdicts.add_row(check.name, "[green]yes[/]" if check.held else "[red]NO[/]", check.detail)
    console.print(shown)
    console.print(verdicts)
    console.print(f"Repeat this run with: fluxgate demo --jobs {len(jobs)} --seed {seed}", highlight=False)


def document(
    jobs: Sequence[Mapping[str, Any]], checks: Sequence[Check], *, seed: int, stage: Stage | None
) -> None:
    """This function will print everything as one JSON document; with `stage`, where it goes on running."""
    told: dict[str, Any] = {
        "ok": all(check.held for check in checks),
        "seed": seed,
        "jobs": list(jobs),
        "checks": [{"name": check.name, "held": check.held, "detail": check.detail} for check in checks],
    }
    if stage is not None:
        told |= {
            "service_url": stage.service_url,
            "simulator_url": stage.simulator_url,
            "api_key": stage.api_key,
        }
    print(json.dumps(told, indent=2), flush=True)


def kept_running(stage: Stage) -> None:
    """This function will say where everything can be reached while it is left running."""
    print(f"service:   {stage.service_url} (its documentation at {stage.service_url}/docs)")
    print(f"simulator: {stage.simulator_url} (what it did at {stage.simulator_url}/_sim/stats)")
    print(f"API key:   {stage.api_key}")
    print("Ctrl-C ends it.", flush=True)
