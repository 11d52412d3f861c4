"""What the client raises.

    FluxgateError                       idempotency_key, cursor, retryable
    ├── NotSendable                     what was given is not JSON: nothing was sent
    ├── Unreachable                     no answer for as long as the client keeps trying
    ├── UnexpectedAnswer                something answered, but not this API; status
    ├── ProblemAnswered                 status, code, title, detail, errors, request_id, retry_after_s
    │   ├── Unauthenticated    401
    │   ├── BudgetExceeded     402
    │   ├── Forbidden          403
    │   ├── NotFound           404
    │   ├── Conflict           409
    │   │   └── IdempotencyMismatch
    │   ├── CursorExpired      410      oldest_cursor
    │   ├── InvalidInput       413 415 422
    │   ├── RateLimited        429
    │   └── Unavailable        5xx
    ├── JobNotSucceeded                 job
    │   ├── JobFailed
    │   ├── JobBlocked
    │   ├── JobCanceled
    │   └── JobExpired
    ├── WaitTimedOut                    job; also a TimeoutError
    └── InvalidWebhook                  not signed by whom it should be, or not one of our events

`retryable` says whether the same call may succeed later, unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.client.job import Job


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One wrong field: where it stands (`input.num_images`) and what is wrong with it."""

    path: str
    message: str


class FluxgateError(Exception):
    """The base of everything that the client raises.

    `idempotency_key` is set on what `submit` raises: submitting the same again under that key can never make a
    second job, whatever became of the first try. `cursor` is set on what `events` raises: whoever goes on there
    misses none.
    """

    retryable = False
    idempotency_key: str | None = None
    cursor: str | None = None


class NotSendable(FluxgateError):
    """What was given cannot be written as JSON; nothing was sent."""


class Unreachable(FluxgateError):
    """Nothing answered for as long as the client keeps trying; what was asked for may have been done all the same."""

    retryable = True


class UnexpectedAnswer(FluxgateError):
    """Something answered that is not this API: a proxy's page, a redirect, a body that is no JSON."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProblemAnswered(FluxgateError):
    """The service said no. `code` is the contract's word for it, empty when a proxy spoke instead.

    `errors` names every wrong field, `request_id` finds the request in the service's logs.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        title: str = "",
        detail: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class Unauthenticated(ProblemAnswered):
    """The API key is not valid."""


class BudgetExceeded(ProblemAnswered):
    """The job would cost more than it may."""


class Forbidden(ProblemAnswered):
    """The API key lacks the scope for this."""


class NotFound(ProblemAnswered):
    """There is no such thing, or it belongs to another tenant."""


class Conflict(ProblemAnswered):
    """The thing is not in a state for this."""


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before, with another body."""


class CursorExpired(ProblemAnswered):
    """Events behind the cursor are no longer kept; reading can go on at `oldest_cursor`, with a gap."""

    oldest_cursor: str | None = None


class InvalidInput(ProblemAnswered):
    """Fields are wrong: `errors` names them."""


class RateLimited(ProblemAnswered):
    """Too many requests; `retry_after_s` says when to come again."""

    retryable = True


class Unavailable(ProblemAnswered):
    """The service, or a proxy before it, could not do it now."""

    retryable = True


class JobNotSucceeded(FluxgateError):
    """The job is final and did not succeed; `job` is how it ended, `job.error` says why."""

    def __init__(self, message: str, *, job: "Job") -> None:
        super().__init__(message)
        self.job = job


class JobFailed(JobNotSucceeded):
    """The provider refused or failed it."""


class JobBlocked(JobNotSucceeded):
    """Content moderation stopped it."""


class JobCanceled(JobNotSucceeded):
    """Somebody no longer wanted it."""


class JobExpired(JobNotSucceeded):
    """Its deadline passed; this says nothing about the provider, and a late result is still recorded."""


class WaitTimedOut(FluxgateError, TimeoutError):
    """The waiting ended before the job did; `job` is as it was last seen, and it goes on."""

    retryable = True

    def __init__(self, message: str, *, job: "Job") -> None:
        super().__init__(message)
        self.job = job


class InvalidWebhook(FluxgateError):
    """The bytes are not a webhook of ours: answer 400 and use nothing of them."""
