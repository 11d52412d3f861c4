"""From the callback to the consumer's program, at a steady rate, on each channel; and the poller to compare with.

The clock starts when the service received the callback, by its own record (whole milliseconds, cut off: up to one
too many); it ends when the last byte of `job.succeeded` is in the consumer's process. The first half second of a
stretch does not count: connections are made then. The poller's clock starts when the simulator was done; what the
channels take from there on is in the notes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench import gate, known, outlets
from bench.databases import Database
from bench.numbers import percentiles_ms
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken, python, run

_WAIT_S = 40.0
_WARM_S = 0.5
#: The simulator's own times: 50..300 ms in the queue and 250..1200 ms at work.
_FAULTS = ""
_P50_GOAL_MS, _P99_GOAL_MS, _SOONER_GOAL = 10, 50, 5


@dataclass
class _Bench:
    database: Database
    url: str
    service: gate.Gate
    provider: gate.Provider
    options: Options
    jobs: int = 0
    #: The median of the last stretch.
    p50_ms: float = 0.0

    def phase(self, name: str, outlet: outlets.Outlet) -> Iterator[Line]:
        """This function will send jobs at the steady rate and tell when their ends reached the outlet."""
        rate, before = self.options.steady_per_s, self.jobs
        most = int(rate * self.options.steady_s)
        print(f"  {self.database.name}: {rate} jobs/s, told by {name}", flush=True)
        jobs = gate.jobs(name, most=most)
        seen = self.service.load(jobs, rate=rate, seconds=self.options.steady_s + 60)
        if set(seen["statuses"]) != {"202"}:
            raise Broken(f"{name}: not everything was accepted: {seen['statuses']}")
        self.jobs += most
        known.until_final(self.url, self.jobs, wait_s=_WAIT_S)
        outlet.until_got(most, wait_s=_WAIT_S)
        outlet.process.must_run()
        heard: dict[str, float] = {}
        for receipt in outlet.receipts():
            heard.setdefault(str(receipt.job_id), receipt.at)
        per_s = most / max(1e-9, seen["last_at"] - seen["first_at"])
        yield from self.lines(name, heard, self.provider.requests()[before:], per_s, warm=int(rate * _WARM_S))

    def lines(
        self,
        name: str,
        heard: Mapping[str, float],
        requests: Sequence[Mapping[str, str]],
        per_s: float,
        *,
        warm: int = 0,
    ) -> Iterator[Line]:
        """This function will hold what was heard of jobs against what is known of them, but for the first ones."""
        received = dict(known.rows(self.url, "SELECT job_id, min(received_ms) FROM callback GROUP BY job_id"))
        sent = dict(known.rows(self.url, "SELECT job_id, provider_request_id FROM attempt"))
        ended = {request["id"]: known.seconds(request["completed_at"]) for request in requests}
        times = {job_id: heard[job_id] for job_id in sorted(heard, key=received.__getitem__)[warm:]}
        took = percentiles_ms([at - received[job_id] / 1000 for job_id, at in times.items()])
        whole = percentiles_ms([at - ended[sent[job_id]] for job_id, at in times.items()])
        assert took is not None, "there were jobs"
        assert whole is not None, "there were jobs"
        self.p50_ms = took["p50"]
        for share, goal in (("p50", _P50_GOAL_MS), ("p99", _P99_GOAL_MS)):
            yield Line(
                what=f"callback received to consumer notified, by {name} ({share})",
                database=self.database.name,
                figure=took[share],
                unit="ms",
                goal=goal,
                at_most=True,
                took_ms=took,
                notes={"at_per_s": round(per_s), "jobs": len(times), "since_provider_p50_ms": whole["p50"]},
            )


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure each channel, then the poller."""
    folder = options.folder
    with database.fresh() as url, gate.simulating(folder, _FAULTS) as provider:
        given = {**gate.settings(url, folder, provider_url=provider.url), **outlets.ALLOWED}
        with gate.serving(given, folder) as service:
            bench = _Bench(database, url, service, provider, options)
            with (
                outlets.consuming(folder) as consumer,
                outlets.endpoint(service, consumer.url, types=list(outlets.ENDS)),
            ):
                yield from bench.phase("webhook", consumer)
            by_webhook_ms = bench.p50_ms
            for kind, name in (("sse", "SSE"), ("feed", "feed long poll")):
                with outlets.reading(kind, service, folder, types=outlets.ENDS) as reader:
                    yield from bench.phase(name, reader)
            yield from _awaited(bench)
    yield from _polled(database, options, by_webhook_ms)


def _awaited(bench: _Bench) -> Iterator[Line]:
    """Python programs that wait for their own job by our client, as others do by fal's."""
    options, before = bench.options, bench.jobs
    waiters, each = str(options.waiters), str(options.waited_each)
    print(f"  {bench.database.name}: {waiters} programs with our client", flush=True)
    command = python("bench.waiters", "fluxgate", waiters, each, f"http://127.0.0.1:{bench.service.port}")
    heard: dict[str, float] = dict(json.loads(run(command, folder=options.folder, settings={})))
    requests = bench.provider.requests()[before:]
    began = min(known.seconds(request["accepted_at"]) for request in requests)
    per_s = len(heard) / (max(heard.values()) - began)
    yield from bench.lines("`await job.result()`", heard, requests, per_s)


def _polled(database: Database, options: Options, by_webhook_ms: float) -> Iterator[Line]:
    print(f"  {database.name}: {options.waiters} programs with fal's client", flush=True)
    with gate.simulating(options.folder, _FAULTS, secure=True) as provider:
        host = provider.url.removeprefix("https://")
        settings = {
            "FAL_KEY": "bench:key",
            "FAL_QUEUE_RUN_HOST": f"{host}/fal-queue",
            "FAL_RUN_HOST": f"{host}/fal-run",
            "SSL_CERT_FILE": str(options.folder / "certificate.pem"),
        }
        command = python("bench.waiters", "fal", str(options.waiters), str(options.waited_each))
        heard = json.loads(run(command, folder=options.folder, settings=settings))
        ended = {each["id"]: known.seconds(each["completed_at"]) for each in provider.requests()}
    took = percentiles_ms([at - ended[request_id] for request_id, at in heard])
    assert took is not None, "there were jobs"
    notes = {"jobs": len(heard), "at_once": options.waiters}
    yield Line(
        what="provider completion to known by `fal_client.subscribe` (p50)",
        database=database.name,
        figure=took["p50"],
        unit="ms",
        took_ms=took,
        notes=notes,
    )
    yield Line(
        what="webhook sooner than `fal_client.subscribe`, medians",
        database=database.name,
        figure=took["p50"] / by_webhook_ms,
        unit="times",
        goal=_SOONER_GOAL,
    )
