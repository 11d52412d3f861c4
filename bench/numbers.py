"""Percentiles and medians."""

import math
import statistics
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """This function will give the smallest value that at least this share of the sorted values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """This function will give p50, p95, p99 and the maximum in milliseconds; None without values."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    found = {f"p{int(share * 100)}": percentile(ordered, share) for share in (0.5, 0.95, 0.99)}
    return {name: round(value * 1000, 2) for name, value in {**found, "max": ordered[-1]}.items()}


def median(values: Sequence[float]) -> float:
    """This function will give the median."""
    return statistics.median(values)
