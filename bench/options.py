"""How long and how much to measure."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """The size of a run. Times in seconds, counts in jobs."""

    folder: Path
    rounds: int = 3
    window_s: float = 3.0
    #: Jobs made beforehand, whose callbacks are then sent.
    prepared: int = 20_000
    steady_per_s: int = 200
    steady_s: float = 5.0
    whole_jobs: int = 2_000
    in_flight: int = 10_000
    idle_s: float = 5.0
    pgbench_s: int = 5
    #: Jobs made beforehand, whose events are then delivered, in each of so many rounds.
    delivered_jobs: int = 6_000
    delivery_rounds: int = 3
    posting_s: float = 2.0
    #: Programs that wait for one job after the other, and how many jobs each.
    waiters: int = 8
    waited_each: int = 4
    streams: int = 1_000
    streams_s: float = 8.0


def quick(folder: Path) -> Options:
    """This function will give the sizes of a run of about 3 minutes; its figures are rougher."""
    return Options(
        folder=folder,
        rounds=1,
        window_s=2.0,
        prepared=6_000,
        steady_s=3.0,
        whole_jobs=500,
        in_flight=1_500,
        idle_s=2.0,
        pgbench_s=2,
        delivered_jobs=1_500,
        delivery_rounds=1,
        posting_s=1.0,
        waited_each=2,
        streams=300,
        streams_s=4.0,
    )
