"""What will happen to one request, decided when it arrives, from the seed and its number alone.

Every decision is a hash of (seed, provider, number, name of the decision): neither concurrency nor another dial
changes it, so a run can be repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TypeVar

from service.simulator.faults import Faults

T = TypeVar("T")


class SubmitFate(StrEnum):
    """What the caller of a submit sees; the two `TAKEN_` and the silent ones did take the request."""

    ANSWERED = "answered"
    RATE_LIMITED = "rate_limit"
    LOCKED = "locked"
    ERROR = "submit_500"
    TAKEN_ERROR = "submit_500_taken"
    HANGING = "submit_hanging"
    CUT = "submit_cut"


REFUSALS = frozenset({SubmitFate.RATE_LIMITED, SubmitFate.LOCKED, SubmitFate.ERROR})


class Outcome(StrEnum):
    """How the work ends."""

    SUCCEEDED = "succeeded"
    MODERATED = "moderated"
    FAILED = "failed"
    NULL_PAYLOAD = "null_payload"


@dataclass(frozen=True, slots=True)
class Dice:
    """Repeatable chance for one request."""

    key: str

    def number(self, name: str) -> int:
        """Return a number of 64 bits that depends on the request and the name only."""
        return int.from_bytes(blake2b(f"{self.key}/{name}".encode(), digest_size=8).digest(), "big")

    def below(self, name: str, probability: float) -> bool:
        """Return true with the given probability."""
        return self.number(name) < probability * 2**64

    def choose(self, name: str, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.number(name) % len(options)]

    def between(self, name: str, lowest: int, highest: int) -> int:
        """Return a whole number in the closed range."""
        return lowest + self.number(name) % (highest - lowest + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that was decided for one request."""

    number: int
    dice: Dice
    submit: SubmitFate
    outcome: Outcome
    queue_ms: int
    run_ms: int
    drop: bool
    copies: int
    forge: bool
    forge_first: bool
    late: bool
    held: bool
    early: bool
    expire_url: bool

    def summary(self) -> dict[str, object]:
        """Return the decisions for `GET /_sim/requests`."""
        names = (
            "number",
            "queue_ms",
            "run_ms",
            "drop",
            "copies",
            "forge",
            "late",
            "held",
            "early",
            "expire_url",
        )
        return {
            "submit": self.submit,
            "outcome": self.outcome,
            **{name: getattr(self, name) for name in names},
        }


def make_plan(faults: Faults, *, seed: int, provider: str, number: int) -> Plan:
    """Decide the fate of a provider's n-th submit."""
    dice = Dice(f"{seed}/{provider}/{number}")
    reordered = dice.below("reorder", faults.reorder)
    drop, late = dice.below("drop", faults.drop), dice.below("late", faults.late)
    early = reordered and not (drop or late) and dice.choose("reorder how", (True, False))
    return Plan(
        number=number,
        dice=dice,
        submit=_submit_fate(faults, dice),
        outcome=_outcome(faults, dice),
        queue_ms=0 if early else _or_drawn(faults.queue_ms, dice, "queue_ms", 50, 300),
        run_ms=0 if early else _or_drawn(faults.run_ms, dice, "run_ms", 250, 1_200),
        drop=drop,
        copies=dice.choose("copies", (2, 3)) if dice.below("duplicate", faults.duplicate) else 1,
        forge=dice.below("forge", faults.forge),
        forge_first=dice.choose("forge when", (True, False)),
        late=late and not drop,
        held=reordered and not early and not drop,
        early=early,
        expire_url=dice.below("expire_url", faults.expire_url),
    )


def _or_drawn(fixed: int | None, dice: Dice, name: str, lowest: int, highest: int) -> int:
    return dice.between(name, lowest, highest) if fixed is None else fixed


def _submit_fate(faults: Faults, dice: Dice) -> SubmitFate:
    if dice.below("rate_limit", faults.rate_limit):
        return SubmitFate.RATE_LIMITED
    if dice.below("locked", faults.locked):
        return SubmitFate.LOCKED
    if dice.below("submit_500", faults.submit_500):
        return dice.choose("submit_500 taken", (SubmitFate.ERROR, SubmitFate.TAKEN_ERROR))
    if dice.below("submit_timeout", faults.submit_timeout):
        return dice.choose("submit_timeout how", (SubmitFate.HANGING, SubmitFate.CUT))
    return SubmitFate.ANSWERED


def _outcome(faults: Faults, dice: Dice) -> Outcome:
    if dice.below("moderate", faults.moderate):
        return Outcome.MODERATED
    if dice.below("fail", faults.fail):
        return Outcome.FAILED
    if dice.below("null_payload", faults.null_payload):
        return Outcome.NULL_PAYLOAD
    return Outcome.SUCCEEDED
