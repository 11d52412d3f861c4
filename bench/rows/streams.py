"""A thousand readers of server-sent events on one process: what an idle one weighs, and how late events are.

Every reader gets every `job.succeeded`. Its lag counts from the event's own time, which is before the commit that
makes it visible, to its last byte in the reader's process; all readers are in one process, which has its part in it.
"""

import time
from collections.abc import Iterator

from bench import gate, known, outlets
from bench.databases import Database
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken

_FAULTS = "queue_ms=0,run_ms=50"
_WARM_JOBS = 100
_PER_S = 20
_CALM_S = 2.0
_WAIT_S = 40.0


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure many readers at once."""
    count, folder = options.streams, options.folder
    print(f"  {database.name}: {count} readers", flush=True)
    with database.fresh() as url, gate.simulating(folder, _FAULTS) as provider:
        given = gate.settings(url, folder, provider_url=provider.url)
        with gate.serving(given, folder) as service:
            _jobs(service, url, "warm", _WARM_JOBS, _WARM_JOBS, per_s=100)
            with outlets.reading("sse", service, folder, types=["job.succeeded"]):
                time.sleep(_CALM_S)
                before = service.process.rss_bytes()
            with outlets.reading("sse", service, folder, how_many=count, types=["job.succeeded"]) as readers:
                time.sleep(_CALM_S)
                after = service.process.rss_bytes()
                cpu_s, began = service.process.cpu_s(), time.monotonic()
                most = int(_PER_S * options.streams_s)
                _jobs(service, url, "many", most, _WARM_JOBS + most, per_s=_PER_S)
                readers.until_got(most * count, wait_s=_WAIT_S)
                cpu_share = (service.process.cpu_s() - cpu_s) / (time.monotonic() - began)
                readers.process.must_run()
                seen = readers.ask("lags")
    notes = {"streams": count, "rss_before": before, "rss_after": after}
    yield Line(
        what="memory per idle SSE stream",
        database=database.name,
        figure=(after - before) / (count - 1),
        unit="bytes",
        at_most=True,
        notes=notes,
    )
    yield Line(
        what=f"event to each of {count:,} SSE readers at {_PER_S} jobs/s (p99)",
        database=database.name,
        figure=seen["took_ms"]["p99"],
        unit="ms",
        at_most=True,
        took_ms=seen["took_ms"],
        notes={"receipts": seen["count"], "service_cpu_share": round(cpu_share, 2)},
    )


def _jobs(service: gate.Gate, url: str, name: str, most: int, final: int, *, per_s: float) -> None:
    """Send jobs at a rate and wait until so many are final."""
    seen = service.load(gate.jobs(name, most=most), rate=per_s, seconds=_WAIT_S, connections=16)
    if set(seen["statuses"]) != {"202"}:
        raise Broken(f"{name}: not everything was accepted: {seen['statuses']}")
    known.until_final(url, final, wait_s=_WAIT_S)
