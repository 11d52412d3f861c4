"""The fault dials: what may go wrong, how often, and how long things take. A bad dial is refused by its name."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

BFL_AUTH = ("any", "secret", "secret_success", "hmac", "none")
DAY_MS = 86_400_000


class FaultError(ValueError):
    """A dial that does not exist or a value that it cannot take; `dial` names it."""

    def __init__(self, dial: str, problem: str) -> None:
        super().__init__(f"{dial}: {problem}")
        self.dial = dial


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How the fake providers misbehave. Probabilities are per request (0..1), unless said otherwise."""

    #: no delivery of the request's callback ever arrives
    drop: float = 0.0
    #: the callback comes two or three times
    duplicate: float = 0.0
    #: every callback waits this long after the request's end
    delay_ms: int = 0
    #: the callback is overtaken by another one, or comes before the answer to its own submit
    reorder: float = 0.0
    #: how long a callback waits at most to be overtaken
    reorder_ms: int = 1_000
    #: one more callback, falsely signed, claims another result
    forge: float = 0.0
    #: the callback comes after `late_ms`
    late: float = 0.0
    late_ms: int = 5_000
    #: the request is taken, but the submit is never answered (half hang, half lose the connection)
    submit_timeout: float = 0.0
    #: how long a hanging submit is held before its connection is cut
    hang_ms: int = 60_000
    #: the submit is answered 500; half of the time the request was taken all the same
    submit_500: float = 0.0
    #: the submit is answered 429 with Retry-After and was not taken
    rate_limit: float = 0.0
    #: the submit is answered 403 (fal: locked user) or 402 (BFL: no credits) and was not taken
    locked: float = 0.0
    #: content moderation ends the request
    moderate: float = 0.0
    #: the request fails
    fail: float = 0.0
    #: the request succeeds, but its callback carries no result
    null_payload: float = 0.0
    #: the result file's URL is dead when it is handed out
    expire_url: float = 0.0
    #: a status or result request is answered 500 (per request for it)
    poll_500: float = 0.0
    #: the key set of fal is answered 500 (per request for it)
    jwks_500: float = 0.0
    #: a BFL submit with a webhook is answered without polling_url
    omit_polling_url: float = 0.5
    #: time in the queue and at work; None draws 50..300 ms and 250..1200 ms
    queue_ms: int | None = None
    run_ms: int | None = None
    #: multiplies the waits between the deliveries of a callback that was not taken
    retry_scale: float = 1.0
    #: BFL answers 429 above this many active tasks
    bfl_active_limit: int = 24
    #: how long a signed BFL result URL lives
    url_ttl_s: int = 600
    #: how BFL callbacks prove themselves; `any` draws one per request
    bfl_auth: str = "any"


_LIMITS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("delay_ms", "reorder_ms", "late_ms", "hang_ms", "queue_ms", "run_ms"), (0, DAY_MS)),
    "bfl_active_limit": (0, 1_000_000),
    "url_ttl_s": (0, 86_400),
}
_SCALES = {"retry_scale": 1_000.0}
DIALS = tuple(field.name for field in fields(Faults))


def parse(spec: str, *, base: Faults | None = None) -> Faults:
    """Read dials written as `name=value,name=value`.

    :raises FaultError: if a dial is unknown, doubled, without a value, or out of its range.
    """
    changes: dict[str, object] = {}
    for part in (piece.strip() for piece in spec.split(",")):
        if not part:
            continue
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign:
            raise FaultError(name, "needs a value, as in drop=0.1")
        if name in changes:
            raise FaultError(name, "is given twice")
        changes[name] = value
    return update(base or Faults(), changes)


def update(base: Faults, changes: Mapping[str, object]) -> Faults:
    """Return the dials with some of them turned; values may be numbers or their text.

    :raises FaultError: if a dial is unknown or its value out of range.
    """
    return replace(base, **{name: _value(name, value) for name, value in changes.items()})  # type: ignore[arg-type]


def as_dict(faults: Faults) -> dict[str, object]:
    """Return all dials by name, as JSON may carry them."""
    return asdict(faults)


def _value(name: str, value: object) -> object:
    if name not in DIALS:
        raise FaultError(name, f"is no dial; there are {', '.join(DIALS)}")
    if name == "bfl_auth":
        if value not in BFL_AUTH:
            raise FaultError(name, f"must be one of {', '.join(BFL_AUTH)}")
        return value
    if name in ("queue_ms", "run_ms") and value in (None, "random"):
        return None
    if name in _LIMITS:
        return _whole(name, value, *_LIMITS[name])
    highest = _SCALES.get(name, 1.0)
    number = _number(name, value)
    if not 0 <= number <= highest:
        raise FaultError(name, f"must lie in 0..{highest:g}, not {value}")
    return number


def _number(name: str, value: object) -> float:
    try:
        number = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        )
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FaultError(name, f"must be a number, not {value!r}")
    return number


def _whole(name: str, value: object, lowest: int, highest: int) -> int:
    number = _number(name, value)
    if number != int(number) or not lowest <= number <= highest:
        raise FaultError(name, f"must be a whole number in {lowest}..{highest}, not {value}")
    return int(number)
