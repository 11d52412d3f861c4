"""What jobs in flight weigh: resident memory for each, and CPU while nothing happens to them."""

import time
from collections.abc import Iterator

from bench import gate, known
from bench.databases import Database
from bench.options import Options
from bench.outcome import Line
from bench.processes import Broken

#: The provider never ends them, and nobody asks.
_FAULTS = "queue_ms=3600000,run_ms=0"
_POLL_AFTER_S = 7200
_DEADLINE_S = 86_400
_WARM_JOBS = 500
_WAIT_S = 180.0
_CALM_S = 2.0


def measure(database: Database, options: Options) -> Iterator[Line]:
    """This function will measure what jobs in flight weigh."""
    print(f"  {database.name}: {options.in_flight} jobs in flight", flush=True)
    with database.fresh() as url, gate.simulating(options.folder, _FAULTS) as provider:
        given = gate.settings(url, options.folder, provider_url=provider.url)
        given["FLUXGATE_POLL_AFTER_S"] = str(_POLL_AFTER_S)
        with gate.serving(given, options.folder) as service:
            before = _with(service, url, "warm", _WARM_JOBS, _WARM_JOBS)
            after = _with(service, url, "many", options.in_flight, _WARM_JOBS + options.in_flight)
            cpu_s = service.process.cpu_s()
            time.sleep(options.idle_s)
            cpu_share = (service.process.cpu_s() - cpu_s) / options.idle_s
    notes = {"jobs": options.in_flight, "rss_before": before, "rss_after": after}
    yield Line(
        what="memory per job in flight",
        database=database.name,
        figure=(after - before) / options.in_flight,
        unit="bytes",
        goal=1024,
        at_most=True,
        notes=notes,
    )
    yield Line(
        what=f"CPU of the idle process with {options.in_flight} jobs in flight",
        database=database.name,
        figure=100 * cpu_share,
        unit="% of a core",
        goal=3,
        at_most=True,
        notes={"seconds": options.idle_s},
    )


def _with(service: gate.Gate, url: str, name: str, more: int, queued: int) -> int:
    """Resident bytes once so many jobs are queued at the provider and the process is calm again."""
    seen = service.load(gate.jobs(name, most=more, deadline_s=_DEADLINE_S), connections=8, seconds=_WAIT_S)
    if set(seen["statuses"]) != {"202"}:
        raise Broken(f"jobs in flight: not everything was accepted: {seen['statuses']}")
    end = time.monotonic() + _WAIT_S
    while known.rows(url, "SELECT count(*) FROM job WHERE state = 'queued'")[0][0] < queued:
        if time.monotonic() > end:
            raise Broken(f"not all of {queued} jobs are queued after {_WAIT_S:g} s")
        time.sleep(0.5)
    time.sleep(_CALM_S)
    return service.process.rss_bytes()
