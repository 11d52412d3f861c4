"""Why a job did not succeed, and why it waits: the codes that callers see."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    #: The provider understood the request and will not run it as it is.
    PROVIDER_REJECTED = "provider_rejected"
    #: The provider took the request and failed on its side.
    PROVIDER_FAILED = "provider_failed"
    #: The provider cannot be reached, or answers with 5xx.
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    AUTHENTICATION = "authentication"
    INSUFFICIENT_CREDIT = "insufficient_credit"
    RATE_LIMITED = "rate_limited"
    CONTENT_BLOCKED = "content_blocked"
    #: It ended well but delivered no media.
    EMPTY_RESULT = "empty_result"
    #: It ended well, but the provider no longer keeps the result.
    RESULT_EXPIRED = "result_expired"
    SUBMIT_UNCERTAIN = "submit_uncertain"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELED = "canceled"
    INTERNAL = "internal"


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job ended without a result. `retryable` is advice to the caller: we never send again by ourselves."""

    code: ErrorCode
    message: str
    retryable: bool = False
    provider_status: int | None = None
    provider_error: Any = None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why nothing happens to a job now; it goes on by itself at `next_try_ms`."""

    code: ErrorCode
    message: str
    since_ms: int
    next_try_ms: int


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One thing wrong with what a caller sent, with the dotted path of the field (`input.num_images`)."""

    path: str
    message: str
