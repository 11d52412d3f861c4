"""What can happen to a job: facts in the past tense, one class each.

Rule 1: a fact says what was learned, never what to do. Callback, poll and answer give the same facts and differ
only in `cause`, so a lost webhook is the ordinary path with another cause.
Rule 2: an intent (`SubmitStarted`) is a fact about ourselves that must be committed before we act; when it did
not move the job, the flow that wanted it stops.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar

from service.domain.failures import JobError, Waiting
from service.domain.results import Image, Output
from service.domain.states import LearnedBy

CAUSE_SUBMIT = "submit"
CAUSE_POLL = "poll"
CAUSE_CLOCK = "clock"
CAUSE_OPERATOR = "operator"


def learned_by(cause: str) -> LearnedBy:
    """This function will tell by which way a fact with this cause was learned.

    :raises ValueError: if the cause is none of those of the contract.
    """
    kind = cause.partition(":")[0]
    match kind:
        case "callback":
            return LearnedBy.CALLBACK
        case "poll":
            return LearnedBy.POLL
        case "submit":
            return LearnedBy.RESPONSE
        case "clock":
            return LearnedBy.CLOCK
        case "api" | "operator":
            return LearnedBy.OPERATOR
    raise ValueError(f"unknown cause {cause!r}")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that happened. `attempt_id` is None for what concerns the whole job."""

    #: The name in the history.
    type: ClassVar[str]
    cause: str
    attempt_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitStarted(Fact):
    """We intend to send this attempt now (an intent)."""

    type: ClassVar[str] = "submit.started"
    secret_key_id: str


@dataclass(frozen=True, kw_only=True)
class SubmitPostponed(Fact):
    """The request provably was not taken and is put off; the same attempt is sent later."""

    type: ClassVar[str] = "submit.postponed"
    waiting: Waiting


@dataclass(frozen=True, kw_only=True)
class SubmitAccepted(Fact):
    """The provider took the request under this id (its answer, its callback, or its own listing says so)."""

    type: ClassVar[str] = "submit.accepted"
    provider_request_id: str
    links: Mapping[str, str] = field(default_factory=dict)
    queue_position: int | None = None
    cost_usd: Decimal | None = None
    submitted_ms: int | None = None
    #: When to ask for the first time if no callback comes.
    ask_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitUnknown(Fact):
    """Nobody can tell whether the provider took the request."""

    type: ClassVar[str] = "submit.unknown"
    reason: str
    #: When to look for it first.
    reconcile_ms: int
    #: When `on_uncertain: resubmit` may send once more.
    resubmit_ms: int


@dataclass(frozen=True, kw_only=True)
class ProviderQueued(Fact):
    type: ClassVar[str] = "provider.queued"
    queue_position: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderStarted(Fact):
    type: ClassVar[str] = "provider.started"


@dataclass(frozen=True, kw_only=True)
class ProviderSucceeded(Fact):
    type: ClassVar[str] = "provider.succeeded"
    output: Output
    cost_usd: Decimal | None = None
    #: The provider's own completion time, where it tells one.
    provider_completed_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderFailed(Fact):
    """The provider refused or failed the request, for good."""

    type: ClassVar[str] = "provider.failed"
    error: JobError
    cost_usd: Decimal | None = None
    provider_completed_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderBlocked(Fact):
    """Content moderation stopped the request."""

    type: ClassVar[str] = "provider.blocked"
    error: JobError
    cost_usd: Decimal | None = None
    provider_completed_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class CancelRequested(Fact):
    type: ClassVar[str] = "cancel.requested"


@dataclass(frozen=True, kw_only=True)
class CancelAnswered(Fact):
    """What the provider said to our wish to cancel; it moves nothing."""

    type: ClassVar[str] = "cancel.answered"
    answer: str


@dataclass(frozen=True, kw_only=True)
class DeadlinePassed(Fact):
    type: ClassVar[str] = "deadline.passed"


@dataclass(frozen=True, kw_only=True)
class CallbackNotUsed(Fact):
    """A callback came and moves nothing: refused, repeated, or without news."""

    type: ClassVar[str] = "callback.not_used"
    callback_id: str
    verdict: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ResultKept(Fact):
    """The result files are kept by us; `images` replace those of the output."""

    type: ClassVar[str] = "result.kept"
    images: tuple[Image, ...]


@dataclass(frozen=True, kw_only=True)
class ResultLost(Fact):
    """A result file could not be kept and is gone for good."""

    type: ClassVar[str] = "result.lost"
    reason: str
    #: What could be kept all the same.
    images: tuple[Image, ...] = ()


ProviderVerdict = ProviderSucceeded | ProviderFailed | ProviderBlocked
