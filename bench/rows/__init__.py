"""The measurements, by name; each gives the lines of one database."""

from collections.abc import Callable, Iterator

from bench.databases import Database
from bench.options import Options
from bench.outcome import Line
from bench.rows import deliveries, edge, memory, notified, provider, streams, whole

Measure = Callable[[Database, Options], Iterator[Line]]

ROWS: dict[str, Measure] = {
    "edge": edge.measure,
    "provider": provider.measure,
    "whole": whole.measure,
    "deliveries": deliveries.measure,
    "notified": notified.measure,
    "streams": streams.measure,
    "memory": memory.measure,
}
