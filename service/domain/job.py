"""A job and its attempts, as values: every change makes a new one (`changed`, which is why they have no slots)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from service.domain.changed import changed
from service.domain.failures import JobError, Waiting
from service.domain.ids import AttemptId, JobId
from service.domain.results import Output
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain, Priority


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request to one provider for a job, with its own callback token."""

    id: AttemptId
    number: int
    provider: str
    model: str
    state: AttemptState
    #: Which of the service's secret keys the token and the webhook secret are derived from.
    secret_key_id: str
    #: When the intent to send was committed.
    started_ms: int
    #: How often it was put off because it provably was not taken, and since when.
    postponed: int = 0
    postponed_since_ms: int | None = None
    provider_request_id: str | None = None
    #: URLs the provider named for this request, already checked by the adapter (`status`, `result`, `cancel`).
    links: Mapping[str, str] = field(default_factory=dict)
    queue_position: int | None = None
    submitted_ms: int | None = None
    completed_ms: int | None = None
    learned_by: LearnedBy | None = None
    #: From the provider's own completion time to the moment we recorded it; None where it tells no time.
    lag_ms: int | None = None
    cost_usd: Decimal | None = None
    #: What the provider finally said, also when the attempt had ended before; None until it said so.
    outcome: AttemptState | None = None
    #: A result that came after the job's end, or that another attempt had already won.
    output: Output | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a backend asked for, with everything a decision needs; the input itself is read only where it is sent."""

    id: JobId
    tenant: str
    provider: str
    model: str
    state: JobState
    version: int
    created_ms: int
    updated_ms: int
    deadline_ms: int
    deadline_s: int
    on_uncertain: OnUncertain = OnUncertain.HOLD
    priority: Priority = Priority.NORMAL
    archive: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Where this job's own events go, too.
    webhook_url: str | None = None
    retry_of: JobId | None = None
    estimated_usd: Decimal | None = None
    completed_ms: int | None = None
    learned_by: LearnedBy | None = None
    waiting: Waiting | None = None
    error: JobError | None = None
    output: Output | None = None
    attempts: tuple[Attempt, ...] = ()

    def attempt(self, attempt_id: str | None) -> Attempt | None:
        """This function will find one attempt by its id."""
        return next((attempt for attempt in self.attempts if attempt.id == attempt_id), None)

    @property
    def current(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    def with_attempt(self, attempt: Attempt) -> "Job":
        """This function will put a changed attempt in the place of the old one, or add a new one at the end."""
        if self.attempt(attempt.id) is None:
            return changed(self, attempts=(*self.attempts, attempt))
        swapped = tuple(attempt if known.id == attempt.id else known for known in self.attempts)
        return changed(self, attempts=swapped)
