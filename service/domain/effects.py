"""What a decision asks for: rows written in the same transaction as the move, acted upon later."""

from dataclasses import dataclass
from enum import StrEnum


class Work(StrEnum):
    """One kind of background work for a job. At most one row for a job, kind and attempt."""

    SUBMIT = "submit"
    ASK = "ask"
    RECONCILE = "reconcile"
    CANCEL = "cancel"
    ARCHIVE = "archive"


#: Work that belongs to the job and not to one of its attempts has this number.
WHOLE_JOB = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Do this at `due_ms`; replaces what was scheduled for the same kind and attempt."""

    work: Work
    number: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Drop:
    """This need not be done any more."""

    work: Work
    number: int


@dataclass(frozen=True, slots=True)
class DropAll:
    """Nothing scheduled before is needed any more."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell consumers, under this event type."""

    type: str


Effect = Schedule | Drop | DropAll | Announce
