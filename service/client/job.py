"""A job as it was last seen, and what can be done with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.client import errors
from service.domain.machine import TERMINAL

if TYPE_CHECKING:
    from service.client.fluxgate import Fluxgate

_ENDS: Mapping[str, type[errors.JobNotSucceeded]] = {
    "failed": errors.JobFailed,
    "blocked": errors.JobBlocked,
    "canceled": errors.JobCanceled,
    "expired": errors.JobExpired,
}


def is_final(state: object) -> bool:
    """This function will tell whether a job in this state will never change again."""
    return state in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Job:
    """What was known of a job when it was read. It never changes: every call gives a newer one.

    `document` is the whole job object of the API. `replayed` tells that the idempotency key had made this job
    before; `idempotency_key` is the one it was submitted under by this client.
    """

    id: str
    state: str
    document: Mapping[str, Any] = field(repr=False)
    idempotency_key: str | None = None
    replayed: bool = False
    _client: "Fluxgate" = field(repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether the job has ended; a final state never changes."""
        return is_final(self.state)

    @property
    def output(self) -> Mapping[str, Any] | None:
        """The result: `images`, `seed`, and the provider's own as `raw`; None unless it succeeded."""
        return self.document.get("output")

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Why it did not succeed: `code`, `message`, `retryable` and more; else None."""
        return self.document.get("error")

    async def result(self, timeout: float | None = None) -> "Job":  # noqa: ASYNC109 - part of the interface
        """This function will wait until the job is final, and return it when it succeeded.

        `timeout` is in seconds; None waits as long as the job takes, which its deadline bounds.

        :raises JobFailed: if it failed; likewise JobBlocked, JobCanceled and JobExpired.
        :raises WaitTimedOut: if the timeout passed first; the job goes on.
        :raises Unreachable: if the service is away for longer than the client is patient.
        """
        job = self if self.final else await self._client.until_final(self, timeout)
        if job.state == "succeeded":
            return job
        error = job.error or {}
        why = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
        raise _ENDS[job.state](f"{job.id} is {job.state}" + (f": {why}" if why else ""), job=job)

    async def refresh(self) -> "Job":
        """This function will read the job as it is now."""
        return await self._client.get(self.id)

    async def cancel(self) -> "Job":
        """This function will end the job, unless it is final.

        :raises Conflict: if it was final already.
        """
        return await self._client.cancel(self.id)

    async def retry(self) -> "Job":
        """This function will submit a failed or expired job anew; however often it is called, there is one new job.

        :raises Conflict: if the job is in another state.
        """
        return await self._client.retry(self.id)
