"""Times as callers see them: RFC 3339 in UTC with milliseconds and `Z`."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(at_ms: int) -> str:
    """This function will write milliseconds since the epoch, for example `2026-11-20T12:00:00.000Z`."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    """Most times that are written lie in the same few seconds, and writing one is slow."""
    return (_EPOCH + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%S")


def maybe_rfc3339(at_ms: int | None) -> str | None:
    """This function will write a time that may be missing."""
    return None if at_ms is None else rfc3339(at_ms)


def parse_rfc3339(text: str) -> int:
    """This function will read a time with a zone, to milliseconds since the epoch.

    :raises ValueError: if the text is no time, or says no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2026-11-20T12:00:00Z")
    return (moment - _EPOCH) // timedelta(milliseconds=1)
