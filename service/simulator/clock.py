"""The simulator's only clock: it plays the outside world, so it may read the real time."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    """Return a time as providers print it: RFC 3339, UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
