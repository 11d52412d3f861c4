"""Endpoints, deliveries and tries: what they are, and how a try moves a delivery and its endpoint's health.

Rule 1: a delivery is tried along `SCHEDULE_MS`, then it is dead; only a person brings it back.
Rule 2: an endpoint that fails `FAILURES_TO_PAUSE` times in a row is paused: one probe a minute, all else is parked.
Rule 3: the first success makes it active again, and it starts slowly: one at once, one more for each success.
Rule 4: who answers 410, or has failed for `FAILING_TO_DISABLE_MS` without a success, is disabled.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

#: Before each try of a delivery, counted from the one before: the example of the Standard Webhooks specification
#: 1.0.0 (github.com/standard-webhooks/standard-webhooks, read 2026-11-20); 75:35:05 hours in all.
SCHEDULE_MS = (
    0,
    5_000,
    300_000,
    1_800_000,
    7_200_000,
    18_000_000,
    36_000_000,
    50_400_000,
    72_000_000,
    86_400_000,
)
#: Every wait is longer by up to this part of it, so that what failed together is not tried together.
JITTER = 0.1
#: `Retry-After` counts up to this.
RETRY_AFTER_CAP_MS = 86_400_000
FAILURES_TO_PAUSE = 3
PROBE_EVERY_MS = 60_000
#: Who recovers after so long without a success was away: what failed meanwhile need not wait any longer.
AWAY_MS = 300_000
FAILING_TO_DISABLE_MS = 5 * 86_400_000
#: These answers mean "slower", also where they do not say for how long.
THROTTLING = frozenset((429, 502, 504))
_TOO_MANY, _UNAVAILABLE = 429, 503
#: A 429 without `Retry-After`: doubling with the failures in a row, up to the cap.
_THROTTLE_MS, _THROTTLE_CAP_MS = 1_000, 60_000


class EndpointState(StrEnum):
    #: Gets what is due.
    ACTIVE = "active"
    #: Failed again and again: gets one probe a minute; the first success makes it active.
    PAUSED = "paused"
    #: Gets nothing, and nothing is kept for it; a person enables it.
    DISABLED = "disabled"


class DeliveryState(StrEnum):
    #: To be tried at `next_ms`, unless an earlier one of the same job and endpoint is pending.
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    #: Not tried any more; the next of its job may go. A person may retry it.
    DEAD = "dead"


class Format(StrEnum):
    """What the body of a webhook looks like."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Disabled(StrEnum):
    """Why an endpoint is disabled."""

    GONE = "gone"
    FAILING = "failing"
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A consumer's URL. Secrets are sealed; times are milliseconds since the epoch.

    `for_jobs`: made for the `webhook_url` of jobs, gets only events of jobs that name it, and has no secret of its
    own. `due_ms` says when it next has something to send; None: nothing. While somebody holds it, `due_ms` is the
    end of his lease.
    """

    id: str
    tenant: str
    url: str
    created_ms: int
    updated_ms: int
    #: Empty: all types.
    types: tuple[str, ...] = ()
    description: str = ""
    state: EndpointState = EndpointState.ACTIVE
    disabled_reason: Disabled | None = None
    format: Format = Format.STANDARD
    #: `("v1",)` or `("v1", "v1a")`.
    signatures: tuple[str, ...] = ("v1",)
    concurrency: int = 16
    rate_per_s: int | None = None
    for_jobs: bool = False
    secret: str | None = None
    previous_secret: str | None = None
    #: Until then the previous secret signs, too.
    previous_until_ms: int | None = None
    #: In a row.
    failures: int = 0
    #: The first failure after the last success.
    failing_since_ms: int | None = None
    #: Nothing is sent before: the next probe, or what the endpoint asked for.
    not_before_ms: int | None = None
    #: What the endpoint asked for alone; a success does not end it.
    throttled_until_ms: int | None = None
    #: How many may be on their way at once after a recovery; None: as many as `concurrency` says.
    slow_start: int | None = None
    #: A replay under way: events behind the first `seq`, up to the second.
    replay_after: int | None = None
    replay_until: int | None = None
    due_ms: int | None = None
    version: int = 1

    @property
    def at_once(self) -> int:
        """How many deliveries may be on their way at the same time now; 0 when it is disabled."""
        if self.state is EndpointState.DISABLED:
            return 0
        if self.state is EndpointState.PAUSED:
            return 1
        return self.concurrency if self.slow_start is None else min(self.slow_start, self.concurrency)

    def wants(self, event_type: str) -> bool:
        """This function will tell whether it chose this type of event."""
        return not self.types or event_type in self.types

    def next_due_ms(self, next_delivery_ms: int | None) -> int | None:
        """This function will say when it has something to send, given when its next delivery is due."""
        if next_delivery_ms is None or self.state is EndpointState.DISABLED:
            return None
        return max(next_delivery_ms, self.not_before_ms or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One event to one endpoint."""

    id: str
    tenant: str
    endpoint_id: str
    event_id: str
    event_seq: int
    event_type: str
    #: None for events that belong to no job.
    job_id: str | None
    created_ms: int
    #: When it may be tried next; says nothing once it is not pending.
    next_ms: int
    state: DeliveryState = DeliveryState.PENDING
    #: Tries in all; the number of the newest.
    tries: int = 0
    #: Tries since it began its schedule: a retry by hand or a replay begins anew.
    step: int = 0
    completed_ms: int | None = None
    #: Of the newest try, or why it was given up.
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What one request came to. Without a `status` there was no answer, and `error` says why in a few words."""

    at_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None
    #: The first 4 KiB of the answer, as text.
    answer: str | None = None
    retry_after_ms: int | None = None
    #: The URL was refused before anything left: private, or no URL that may be called.
    refused: bool = False
    #: Where it went; None: where the endpoint is.
    url: str | None = None

    @property
    def gone(self) -> bool:
        """Whether the consumer says that this endpoint is no more."""
        return self.status == 410

    @property
    def succeeded(self) -> bool:
        """Whether the event is delivered: an answer from 200 to 299, and nothing else."""
        return not self.refused and self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """One try of a delivery as it is kept; they count from 1."""

    delivery_id: str
    number: int
    at_ms: int
    took_ms: int
    status: int | None
    error: str | None
    answer: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AfterTry:
    """The endpoint and the delivery as they are after a try, and what has just happened to the endpoint."""

    endpoint: Endpoint
    delivery: Delivery
    made: Try
    paused: bool = False
    recovered: bool = False
    disabled: bool = False
    #: It recovered, and had been away. Who fails for some events alone recovers again and again, and these keep their
    #: schedule: they would be dead within minutes else, and hold up the others.
    was_away: bool = False


def after_try(
    endpoint: Endpoint, delivery: Delivery, tried: Tried, *, now_ms: int, jitter: float
) -> AfterTry:
    """This function will say what a try makes of a delivery and of its endpoint; `jitter` is in [0, 1).

    A disabled endpoint stays as it is, whatever was still on its way: it keeps nothing pending. And what the URL
    says that an endpoint had before says nothing of the endpoint: only its successes count, for the delivery.
    """
    if tried.url not in (None, endpoint.url):
        tried = replace(tried, refused=False)
        health = endpoint
    else:
        health = _health(endpoint, tried, now_ms, jitter)
    return AfterTry(
        endpoint=health,
        delivery=_after(delivery, tried, health.state, now_ms, jitter),
        made=Try(
            delivery_id=delivery.id,
            number=delivery.tries + 1,
            at_ms=tried.at_ms,
            took_ms=tried.took_ms,
            status=tried.status,
            error=tried.error,
            answer=tried.answer,
        ),
        paused=_became(EndpointState.PAUSED, endpoint, health),
        recovered=_became(EndpointState.ACTIVE, endpoint, health),
        disabled=_became(EndpointState.DISABLED, endpoint, health),
        was_away=(
            _became(EndpointState.ACTIVE, endpoint, health)
            and now_ms - (endpoint.failing_since_ms or now_ms) >= AWAY_MS
        ),
    )


def _became(state: EndpointState, before: Endpoint, after: Endpoint) -> bool:
    return after.state is state and before.state is not state


def _after(
    delivery: Delivery, tried: Tried, endpoint_is: EndpointState, now_ms: int, jitter: float
) -> Delivery:
    step = delivery.step + 1
    state, next_ms = DeliveryState.PENDING, delivery.next_ms
    if tried.succeeded:
        state = DeliveryState.SUCCEEDED
    elif tried.refused or step >= len(SCHEDULE_MS) or endpoint_is is EndpointState.DISABLED:
        state = DeliveryState.DEAD
    else:
        next_ms = now_ms + retry_in_ms(step, tried.retry_after_ms, jitter)
    return replace(
        delivery,
        state=state,
        next_ms=next_ms,
        tries=delivery.tries + 1,
        step=step,
        completed_ms=None if state is DeliveryState.PENDING else now_ms,
        status=tried.status,
        error=failure_of(tried),
    )


def failure_of(tried: Tried) -> str | None:
    """This function will say in a few words why a try failed; None when it succeeded."""
    return None if tried.succeeded else tried.error or f"answered {tried.status}"


def retry_in_ms(step: int, retry_after_ms: int | None, jitter: float) -> int:
    """This function will say how long to wait after `step` tries that failed, at least what the endpoint asked for."""
    wait = int(SCHEDULE_MS[step] * (1 + JITTER * jitter))
    return max(wait, _asked_ms(retry_after_ms))


def _asked_ms(retry_after_ms: int | None) -> int:
    return min(max(retry_after_ms or 0, 0), RETRY_AFTER_CAP_MS)


def _health(endpoint: Endpoint, tried: Tried, now_ms: int, jitter: float) -> Endpoint:
    if endpoint.state is EndpointState.DISABLED:
        return endpoint
    if tried.succeeded:
        return _well(endpoint, now_ms)
    failing_since_ms = endpoint.failing_since_ms or now_ms
    failed = replace(
        _throttled(endpoint, tried, now_ms), failures=endpoint.failures + 1, failing_since_ms=failing_since_ms
    )
    if tried.gone:
        return disabled(failed, Disabled.GONE)
    if now_ms - failing_since_ms >= FAILING_TO_DISABLE_MS:
        return disabled(failed, Disabled.FAILING)
    if failed.failures >= FAILURES_TO_PAUSE or failed.state is EndpointState.PAUSED:
        probe_ms = now_ms + int(PROBE_EVERY_MS * (1 + JITTER * jitter))
        return replace(
            failed,
            state=EndpointState.PAUSED,
            slow_start=1,
            not_before_ms=max(probe_ms, failed.throttled_until_ms or 0),
        )
    return failed


def _well(endpoint: Endpoint, now_ms: int) -> Endpoint:
    """After a success. The usual one changes nothing, and then nothing need be written."""
    if endpoint.state is EndpointState.PAUSED:
        asked = endpoint.throttled_until_ms
        endpoint = replace(
            endpoint,
            state=EndpointState.ACTIVE,
            slow_start=1,
            not_before_ms=asked if asked is not None and asked > now_ms else None,
        )
    elif endpoint.slow_start is not None:
        grown = endpoint.slow_start + 1
        endpoint = replace(endpoint, slow_start=grown if grown < endpoint.concurrency else None)
    if endpoint.failures or endpoint.failing_since_ms is not None:
        endpoint = replace(endpoint, failures=0, failing_since_ms=None)
    return endpoint


def _throttled(endpoint: Endpoint, tried: Tried, now_ms: int) -> Endpoint:
    """Slower after 429, 502 and 504, and silent for as long as the endpoint asks (with these and with 503)."""
    if tried.status not in THROTTLING | {_UNAVAILABLE}:
        return endpoint
    wait_ms = _asked_ms(tried.retry_after_ms)
    if tried.status == _TOO_MANY and not wait_ms:
        wait_ms = min(_THROTTLE_MS * 2 ** min(endpoint.failures, 10), _THROTTLE_CAP_MS)
    if tried.status in THROTTLING:
        endpoint = replace(endpoint, slow_start=max(1, endpoint.at_once // 2))
    if not wait_ms:
        return endpoint
    until_ms = max(now_ms + wait_ms, endpoint.throttled_until_ms or 0)
    return replace(
        endpoint, throttled_until_ms=until_ms, not_before_ms=max(until_ms, endpoint.not_before_ms or 0)
    )


def disabled(endpoint: Endpoint, reason: Disabled) -> Endpoint:
    """This function will disable an endpoint: nothing is sent, nothing is awaited."""
    return replace(
        endpoint,
        state=EndpointState.DISABLED,
        disabled_reason=reason,
        not_before_ms=None,
        throttled_until_ms=None,
        slow_start=None,
        replay_after=None,
        replay_until=None,
    )


def moved(endpoint: Endpoint, url: str) -> Endpoint:
    """This function will give an endpoint another URL, of which nothing is known; a disabled one stays disabled."""
    if url == endpoint.url or endpoint.state is EndpointState.DISABLED:
        return replace(endpoint, url=url)
    return replace(
        endpoint,
        url=url,
        state=EndpointState.ACTIVE,
        failures=0,
        failing_since_ms=None,
        not_before_ms=None,
        throttled_until_ms=None,
        slow_start=1,
    )


def enabled(endpoint: Endpoint) -> Endpoint:
    """This function will make an endpoint active as if it had never failed; it starts slowly.

    One that is active already stays as it is, unless it asked for a pause: it may have done so by mistake.
    """
    if endpoint.state is EndpointState.ACTIVE and endpoint.not_before_ms is None:
        return endpoint
    return replace(
        endpoint,
        state=EndpointState.ACTIVE,
        disabled_reason=None,
        failures=0,
        failing_since_ms=None,
        not_before_ms=None,
        throttled_until_ms=None,
        slow_start=1,
    )


def begun_anew(delivery: Delivery, *, now_ms: int) -> Delivery:
    """This function will make a delivery due now, with its whole schedule before it, whatever it had come to."""
    return replace(delivery, state=DeliveryState.PENDING, step=0, next_ms=now_ms, completed_ms=None)
