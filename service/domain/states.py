"""The words for where a job or an attempt stands, and how it was learned."""

from enum import StrEnum


class JobState(StrEnum):
    #: Committed and waiting to be sent; the submit flow moves it on.
    ACCEPTED = "accepted"
    #: The intent to send is committed; the answer of the provider moves it on.
    SUBMITTING = "submitting"
    #: Nobody can tell whether the provider took it; evidence or `on_uncertain` moves it on.
    UNCERTAIN = "uncertain"
    #: The provider took it; its callback, our question or the deadline moves it on.
    QUEUED = "queued"
    #: The provider works on it; moved on as from `queued`.
    RUNNING = "running"
    #: The provider delivered a result. Final.
    SUCCEEDED = "succeeded"
    #: The provider refused or failed it. Final.
    FAILED = "failed"
    #: Content moderation stopped it. Final.
    BLOCKED = "blocked"
    #: The caller no longer wants it. Final.
    CANCELED = "canceled"
    #: Our waiting ended at the deadline; says nothing about the provider. Final.
    EXPIRED = "expired"


class AttemptState(StrEnum):
    """The same words as for a job, without `accepted`: an attempt begins with the intent to send."""

    SUBMITTING = "submitting"
    UNCERTAIN = "uncertain"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    CANCELED = "canceled"
    EXPIRED = "expired"


class LearnedBy(StrEnum):
    """By which way the last state was learned."""

    CALLBACK = "callback"
    POLL = "poll"
    #: The answer to our own submit: a refusal, or the result of a synchronous provider.
    RESPONSE = "response"
    OPERATOR = "operator"
    CLOCK = "clock"


class OnUncertain(StrEnum):
    """What to do when it stays unknown whether the provider took a request."""

    HOLD = "hold"
    RESUBMIT = "resubmit"


class Priority(StrEnum):
    NORMAL = "normal"
    LOW = "low"
