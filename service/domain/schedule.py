"""When to do things: pure functions of their inputs; `jitter` is a number in [0, 1) that the caller draws."""

from collections.abc import Sequence
from dataclasses import dataclass

#: Before so many past durations of a model are known, its first question waits `UNLEARNED_FIRST_MS`.
SAMPLES_NEEDED = 20
UNLEARNED_FIRST_MS = 30_000
#: One last question so long before the deadline.
LAST_QUESTION_MS = 2_000
#: The first question comes this much later than nearly all past jobs of the model took.
_LEARNED_PERCENTILE = 0.95
_LEARNED_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How often one provider may be asked about one request, in milliseconds."""

    #: The first question never waits longer, because results do not live long.
    first_cap_ms: int
    interval_ms: int
    interval_cap_ms: int
    growth: float = 1.5


def learned_first_ms(durations_ms: Sequence[int]) -> int | None:
    """This function will say how long to wait before the first question, from past durations; None if too few."""
    if len(durations_ms) < SAMPLES_NEEDED:
        return None
    ordered = sorted(durations_ms)
    return int(ordered[int(_LEARNED_PERCENTILE * (len(ordered) - 1))] * _LEARNED_MARGIN) + 1_000


def first_ask_ms(
    *, now_ms: int, deadline_ms: int, pace: Pace, set_ms: int | None, learned_ms: int | None, jitter: float
) -> int:
    """This function will say when to ask first about a request just taken.

    `set_ms` is the operator's own choice (`FLUXGATE_POLL_AFTER_S`) and counts as it is, save that the last
    question before the deadline is never skipped. Otherwise the learned delay (or 30 s) counts, at most the
    provider's cap and half of what is left, plus up to 10 % so that jobs sent together are not asked together.
    """
    if set_ms is not None:
        delay = set_ms
    else:
        delay = learned_ms if learned_ms is not None else UNLEARNED_FIRST_MS
        delay = min(int(delay * (1 + 0.1 * jitter)), pace.first_cap_ms, max(0, (deadline_ms - now_ms) // 2))
    return _not_past_the_last(now_ms + delay, now_ms, deadline_ms)


def next_ask_ms(
    *, now_ms: int, deadline_ms: int, pace: Pace, asked: int, retry_after_ms: int | None, jitter: float
) -> int:
    """This function will say when to ask again after `asked` questions without news."""
    interval = min(pace.interval_ms * pace.growth ** min(asked, 40), float(pace.interval_cap_ms))
    delay = int(interval * (0.75 + 0.5 * jitter))
    if retry_after_ms is not None:
        delay = max(delay, min(retry_after_ms, 600_000))
    return _not_past_the_last(now_ms + delay, now_ms, deadline_ms)


def _not_past_the_last(at_ms: int, now_ms: int, deadline_ms: int) -> int:
    last = deadline_ms - LAST_QUESTION_MS
    return min(at_ms, last) if now_ms < last else at_ms


def backoff_ms(
    *, tries: int, base_ms: int, cap_ms: int, jitter: float, retry_after_ms: int | None = None
) -> int:
    """This function will say how long to wait after `tries` failures: doubling from `base_ms` to `cap_ms`, jittered.

    What the other side asked for (`Retry-After`) counts when it is longer, at most ten minutes.
    """
    delay = int(min(base_ms * 2.0 ** min(tries, 40), float(cap_ms)) * (0.5 + 0.5 * jitter))
    if retry_after_ms is not None:
        delay = max(delay, min(retry_after_ms, 600_000))
    return delay
