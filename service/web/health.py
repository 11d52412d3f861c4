"""For operators: alive, ready, and what is counted."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from service import wiring
from service.domain.failures import FieldError
from service.flows import observe
from service.flows.observe import Standing
from service.storage.database import DatabaseUnavailable
from service.web.problems import Problem
from service.web.replies import json_reply
from service.web.visit import Visit


async def healthz(_: Visit) -> Response:
    """This function will answer while the process lives."""
    return json_reply(b'{"status":"ok"}')


async def readyz(visit: Visit) -> Response:
    """This function will tell whether the service can do its work, or what keeps it from it."""
    failing = await wiring.ready(visit.service)
    if failing:
        raise Problem(
            "unavailable",
            "; ".join(f"{name}: {what}" for name, what in failing.items()),
            errors=[FieldError(path=name, message=what) for name, what in failing.items()],
            headers={"Retry-After": "2"},
        )
    return json_reply(b'{"status":"ready"}')


async def metrics(visit: Visit) -> Response:
    """This function will write all measures for Prometheus; without the database those that the process knows."""
    runtime = visit.service.runtime
    try:
        sink_names = wiring.sink_names(visit.service.settings)
        now = gauges(await observe.standing(runtime, sink_names=sink_names), up=True)
    except DatabaseUnavailable:
        now = gauges(Standing({}, {}), up=False)
    text = generate_latest(runtime.measures.registry) + generate_latest(now)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def gauges(standing: Standing, *, up: bool) -> CollectorRegistry:
    """This function will show what stands in the database at this moment."""
    registry = CollectorRegistry()
    Gauge("fluxgate_database_up", "Whether the database answered this scrape", registry=registry).set(up)
    jobs = Gauge("fluxgate_jobs_open", "Jobs that are not final", ["provider", "state"], registry=registry)
    for (provider, state), count in standing.open_jobs.items():
        jobs.labels(provider, state).set(count)
    waiting = Gauge("fluxgate_work_waiting", "Work that is scheduled, by kind", ["kind"], registry=registry)
    due = Gauge("fluxgate_work_due", "Work that is due now, by kind", ["kind"], registry=registry)
    for kind, (all_of_it, due_now) in standing.work.items():
        waiting.labels(kind).set(all_of_it)
        due.labels(kind).set(due_now)
    lag = Gauge(
        "fluxgate_sink_lag_events", "Kept events that a broker has not got yet", ["sink"], registry=registry
    )
    failing = Gauge(
        "fluxgate_sink_failing_since_seconds",
        "Since when (Unix time) a broker cannot be used; 0 when it can",
        ["sink", "kind"],
        registry=registry,
    )
    for sink in standing.sinks:
        lag.labels(sink.name).set(sink.lag)
        failing.labels(sink.name, sink.trouble or "none").set((sink.trouble_since_ms or 0) / 1000)
    return registry
