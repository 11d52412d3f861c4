"""Between a provider and us at a steady rate: completion to known, by callback and by poll, and calls per job.

The simulator's own clock says when a request ended and when its callback was answered; for polls our `completed_ms`
says when we decided, some milliseconds before that commit.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import gate, known
from bench.databases import Database
from bench.numbers import percentiles_ms
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken

_SETTLE_S = 40.0
_POLL_AFTER_S = 3
#: The simulator's own times: 50..300 ms in the queue and 250..1200 ms at work.
_FAULTS = ""


@dataclass
class _Phase:
    """What one stretch of jobs came to."""

    requests: list[dict[str, Any]]
    per_s: float
    calls_per_job: float


@dataclass
class _Bench:
    url: str
    service: gate.Gate
    provider: gate.Provider
    options: Options
    before: int = 0
    calls: int = 0

    def phase(self, name: str, **faults: Any) -> _Phase:
        """This function will send jobs at the steady rate and wait until the last of them is known."""
        self.provider.dials(**faults)
        rate = self.options.steady_per_s
        most = int(rate * self.options.steady_s)
        seen = self.service.load(gate.jobs(name, most=most), rate=rate, seconds=self.options.steady_s + 60)
        if set(seen["statuses"]) != {"202"}:
            raise Broken(f"{name}: not everything was accepted: {seen['statuses']}")
        known.until_final(self.url, self.before + most, wait_s=_SETTLE_S)
        requests = self.provider.requests()[self.before :]
        self.before += most
        calls = _calls(self.provider.totals())
        spent, self.calls = calls - self.calls, calls
        return _Phase(requests, most / max(1e-9, seen["last_at"] - seen["first_at"]), spent / len(requests))


def _calls(totals: dict[str, Any]) -> int:
    """Submits, status and result requests (the simulator counts a result request as a poll, too), cancels."""
    submits = totals["requests"]["accepted"] + totals["requests"]["refused"]
    return int(
        submits + totals["polls"]["answered"] + totals["polls"]["unknown"] + totals["cancels"]["asked"]
    )


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure what goes on between a provider and us."""
    with database.fresh() as url, gate.simulating(options.folder, _FAULTS) as provider:
        given = gate.settings(url, options.folder, provider_url=provider.url)
        given["FLUXGATE_POLL_AFTER_S"] = str(_POLL_AFTER_S)
        with gate.serving(given, options.folder) as service:
            bench = _Bench(url, service, provider, options)
            yield from _lines(bench, database.name)


def _lines(bench: _Bench, name: str) -> Iterator[Line]:
    print(f"  {name}: {bench.options.steady_per_s} jobs/s, every callback comes", flush=True)
    come = bench.phase("come", drop=0.0)
    took = percentiles_ms([_answered_s(request) - _ended_s(request) for request in come.requests])
    yield _lag("provider completion to known, by callback (p99)", name, took, come.per_s)
    yield _per_job("provider calls per job when callbacks come", name, come, goal=1.02)
    print(f"  {name}: one callback in ten is lost", flush=True)
    some = bench.phase("some", drop=0.1)
    yield _per_job("provider calls per job when one callback in ten is lost", name, some, goal=1.3)
    print(f"  {name}: every callback is lost", flush=True)
    lost = bench.phase("lost", drop=1.0)
    ended = {request["id"]: _ended_s(request) for request in lost.requests}
    times = known.completed_s(bench.url)
    took = percentiles_ms([times[request_id] - ended_s for request_id, ended_s in ended.items()])
    what = f"provider completion to known, by poll after {_POLL_AFTER_S} s (p99)"
    yield _lag(what, name, took, lost.per_s)


def _lag(what: str, name: str, took: dict[str, float] | None, per_s: float) -> Line:
    assert took is not None, "there were jobs"
    return Line(
        what=what,
        database=name,
        figure=took["p99"],
        unit="ms",
        at_most=True,
        took_ms=took,
        notes={"at_per_s": round(per_s)},
    )


def _per_job(what: str, name: str, phase: _Phase, goal: float) -> Line:
    notes = {"jobs": len(phase.requests), "at_per_s": round(phase.per_s)}
    return Line(
        what=what,
        database=name,
        figure=phase.calls_per_job,
        unit="calls",
        goal=goal,
        at_most=True,
        strict=True,
        notes=notes,
    )


def _ended_s(request: dict[str, Any]) -> float:
    return known.seconds(request["completed_at"])


def _answered_s(request: dict[str, Any]) -> float:
    """When a genuine callback was first answered 200."""
    taken = [known.seconds(answer["at"]) for answer in request["answers"] if answer["status"] == 200]
    return min(taken) if taken else time.time()
