"""What is counted for operators, in the words of the contract; no label holds a secret or a job."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LAG_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class Measures:
    """One set of counters for one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "fluxgate_jobs_accepted", "Jobs accepted", ["provider"], registry=self.registry
        )
        self.finished = Counter(
            "fluxgate_jobs_finished", "Jobs that reached a final state", ["provider", "state", "learned_by"],
            registry=self.registry,
        )  # fmt: skip
        self.callbacks = Counter(
            "fluxgate_callbacks",
            "Callbacks received, by verdict",
            ["provider", "verdict"],
            registry=self.registry,
        )
        self.refused_unkept = Counter(
            "fluxgate_callbacks_unkept",
            "Refused callbacks beyond what is kept",
            ["provider"],
            registry=self.registry,
        )
        self.calls = Counter(
            "fluxgate_provider_calls", "Requests to providers", ["provider", "call", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.postponed = Counter(
            "fluxgate_submits_postponed",
            "Submits put off, by reason",
            ["provider", "code"],
            registry=self.registry,
        )
        self.deliveries = Counter(
            "fluxgate_deliveries", "Tries of deliveries to endpoints, by what came of them", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.streams = Gauge("fluxgate_streams_open", "Event streams that are open", registry=self.registry)
        self.streams_cut_off = Counter(
            "fluxgate_streams_cut_off", "Event streams whose reader took nothing", registry=self.registry
        )
        self.lag = Histogram(
            "fluxgate_completion_lag_seconds", "From the provider's completion to our record of it",
            ["provider", "learned_by"], buckets=_LAG_S, registry=self.registry,
        )  # fmt: skip
