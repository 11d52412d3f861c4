"""What comes in: jobs accepted, callbacks recorded, and how long a callback waits for its answer.

The service answers without its background work, so that what is measured is not mixed with what follows from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import gate
from bench.databases import Database
from bench.numbers import median
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken, Process, python, run

_ACCEPTED: dict[str, Any] = {
    "what": "jobs accepted",
    "limit_is": "POST that only parses the body",
    "goal": 0.25,
}
_RECORDED: dict[str, Any] = {
    "what": "callbacks recorded",
    "limit_is": "POST that only verifies the signature",
    "goal": 0.5,
}
_CPU = {"service": "server_cpu_s", "database": "database_cpu_s", "client": "cpu_s"}


@dataclass
class _Bench:
    """One service, the limits, and the callbacks that are still unsent."""

    database: Database
    service: gate.Gate
    limits: tuple[Process, int]
    file: Path
    options: Options
    sent: int = 0
    seen: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def round(self, number: int) -> None:
        """This function will measure each thing and its limit once."""
        plan: dict[str, Any] = {"seconds": self.options.window_s}
        self._keep("parse", gate.loaded(*self.limits, gate.jobs("limit", path="/parse"), **plan))
        self._keep("accept", self._served(gate.jobs(f"round{number}"), **plan))
        most = (self.options.prepared - self.sent) // (self.options.rounds - number + 1)
        source = {"kind": "callbacks", "file": str(self.file), "start": self.sent, "most": most}
        again = {**source, "start": 0, "most": self.options.prepared, "path": "/verify"}
        self._keep("verify", gate.loaded(*self.limits, again, **plan))
        self._keep("receive", self._served(source, **plan))

    def _served(self, source: dict[str, Any], **plan: Any) -> dict[str, Any]:
        before = self.database.cpu_s()
        seen = self.service.load(source, **plan)
        return {**seen, "database_cpu_s": self.database.cpu_s() - before}

    def steady(self, rate: float) -> dict[str, Any]:
        """This function will send the rest of the callbacks at a fixed rate."""
        most = self.options.prepared - self.sent
        source = {"kind": "callbacks", "file": str(self.file), "start": self.sent, "most": most}
        seen = self.service.load(source, rate=rate, connections=64, seconds=self.options.window_s * 3)
        return _checked("steady", seen)

    def _keep(self, name: str, seen: dict[str, Any]) -> None:
        self.seen.setdefault(name, []).append(_checked(name, seen))
        if name == "receive":
            self.sent += seen["sent"]

    def per_s(self, name: str) -> float:
        """This function will give the median of a rate."""
        return median([float(seen["per_s"]) for seen in self.seen[name]])

    def line(self, name: str, limit: str, *, what: str, limit_is: str, goal: float) -> Line:
        """This function will make the line of a rate beside its limit."""
        rounds = self.seen[name]
        middle = sorted(rounds, key=lambda seen: seen["per_s"])[len(rounds) // 2]
        return Line(
            what=what,
            database=self.database.name,
            figure=self.per_s(name),
            unit="/s",
            limit=self.per_s(limit),
            limit_is=limit_is,
            goal=goal,
            took_ms=middle["took_ms"],
            notes={
                "connections": gate.CONNECTIONS,
                **{f"{who}_cpu_ms_each": _cpu_ms(middle, key) for who, key in _CPU.items()},
            },
        )


def _cpu_ms(seen: dict[str, Any], key: str) -> float:
    return round(1000 * seen[key] / seen["answered"], 3)


def _checked(name: str, seen: dict[str, Any]) -> dict[str, Any]:
    """A fast refusal is no speed."""
    wanted = "202" if name == "accept" else "200"
    if set(seen["statuses"]) != {wanted}:
        raise Broken(f"{name}: not everything was answered {wanted}: {seen['statuses']}")
    return seen


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure what comes in."""
    folder = options.folder
    with database.fresh() as url, gate.limiting(folder) as limits:
        limits_url = f"http://127.0.0.1:{limits[1]}"
        given = gate.settings(url, folder, provider_url=limits_url, jwks_url=f"{limits_url}/jwks.json")
        file = folder / "queued.pickle"
        print(f"  {database.name}: making {options.prepared} jobs that wait for their callback", flush=True)
        run(python("bench.prepare", str(options.prepared), str(file)), folder=folder, settings=given)
        with gate.serving(given, folder, work=False) as service:
            bench = _Bench(database, service, limits, file, options)
            for number in range(options.rounds):
                print(f"  {database.name}: accepting and receiving, round {number + 1}", flush=True)
                bench.round(number)
            yield bench.line("accept", "parse", **_ACCEPTED)
            yield bench.line("receive", "verify", **_RECORDED)
            rate = bench.per_s("receive") / 2
            seen = bench.steady(rate)
            yield Line(
                what="callback received to recorded, p99 at half of the maximum rate",
                database=database.name,
                figure=seen["took_ms"]["p99"],
                unit="ms",
                goal=50,
                at_most=True,
                took_ms=seen["took_ms"],
                notes={"at_per_s": round(rate), "callbacks": seen["answered"]},
            )
