"""The shapes of answers, for the OpenAPI document: what is served is tested against these, not built from them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.callback import Verdict
from service.domain.event_types import EVENT_TYPES
from service.domain.failures import ErrorCode
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain, Priority
from service.web.problems import CODES
from service.web.schemas_endpoints import Endpoint
from service.web.shapes import Shape, one_of, page, time

_USD = r"^\d+(\.\d+)?$"
_SHA256 = r"^[0-9a-f]{64}$"


class FieldProblem(Shape):
    path: str = Field(description="The dotted path of the field; empty for the body as a whole.")
    message: str


class Problem(Shape):
    """RFC 9457. `code` is the word to act upon."""

    type: str
    title: str
    status: int
    code: str = one_of(sorted(CODES))
    detail: str
    errors: list[FieldProblem]
    request_id: str


class ExpiredCursor(Problem):
    """The problem of a cursor behind which events are no longer kept."""

    oldest_cursor: str = Field(description="Go on with this one: nothing behind it is missing.")


class Image(Shape):
    url: str = Field(
        description="The provider's until the file is kept, afterwards `/v1/artifacts/{id}` of ours."
    )
    content_type: str | None
    width: int | None
    height: int | None
    artifact_id: str | None
    sha256: str | None = Field(pattern=_SHA256)
    size_bytes: int | None


class EventOutput(Shape):
    images: list[Image]
    seed: str | None = Field(description="Text, because seeds exceed 2^53.")


class Output(EventOutput):
    raw: Any = Field(description="The provider's result as received.")


class JobError(Shape):
    code: ErrorCode
    message: str
    retryable: bool = Field(description="Advice: the service itself never sends again.")
    provider_status: int | None
    provider_error: Any


class Waiting(Shape):
    """Why nothing happens now; it goes on by itself."""

    code: ErrorCode
    message: str
    since: str = time("When it began to wait.")
    next_try_at: str = time("When it is tried next.")


class EventAttempt(Shape):
    """One request to one provider."""

    id: str
    number: int
    provider: str
    model: str
    state: AttemptState
    provider_request_id: str | None
    queue_position: int | None
    submitted_at: str | None = time("When the provider took it.")
    completed_at: str | None = time("When its end was recorded.")
    learned_by: LearnedBy | None
    lag_ms: int | None
    cost_usd: str | None = Field(pattern=_USD)
    output: EventOutput | None = Field(description="A result that came after the job's end.")


class Attempt(EventAttempt):
    output: Output | None = Field(description="A result that came after the job's end.")


class Cost(Shape):
    estimated_usd: str | None = Field(pattern=_USD)
    settled_usd: str | None = Field(pattern=_USD)


class EventJob(Shape):
    """A job as it was when the event happened, without its input and raw output."""

    id: str
    object: Literal["job"]
    state: JobState
    provider: str
    model: str
    output: EventOutput | None
    error: JobError | None
    learned_by: LearnedBy | None
    waiting: Waiting | None
    attempts: list[EventAttempt]
    cost: Cost
    metadata: dict[str, str]
    priority: Priority
    on_uncertain: OnUncertain
    archive: bool
    webhook_url: str | None
    retry_of: str | None
    deadline_s: int
    deadline_at: str = time("When our waiting ends.")
    created_at: str = time("When it was accepted.")
    updated_at: str = time("When it last changed.")
    completed_at: str | None = time("When it reached its final state.")
    version: int


class Job(EventJob):
    """A job. `succeeded`, `failed`, `blocked`, `canceled` and `expired` are final."""

    input: dict[str, Any]
    output: Output | None
    attempts: list[Attempt]  # type: ignore[assignment]


class HistoryLine(Shape):
    """One fact about a job; with `moved` false it changed nothing."""

    seq: int
    at: str = time("When it was recorded.")
    type: str
    cause: str = Field(description="`callback:cb_…`, `poll`, `clock`, `api:key_…`, `operator` or `submit`.")
    moved: bool
    from_: JobState | None = Field(alias="from")
    to: JobState
    detail: dict[str, Any]
    hash: str = Field(pattern=_SHA256)


class Callback(Shape):
    """One request to a callback URL. Headers that carry a secret are kept as their SHA-256."""

    id: str
    attempt_id: str
    received_at: str = time("When it came.")
    verdict: Verdict
    status: int = Field(description="What the sender was answered.")
    key_id: str | None
    body_sha256: str = Field(pattern=_SHA256)
    headers: dict[str, str]


class Event(Shape):
    """`seq` only grows; `job_seq` counts the job's own events from 1."""

    id: str
    object: Literal["event"]
    seq: int
    type: str = one_of(EVENT_TYPES)
    timestamp: str = time("When it happened.")
    job_id: str | None
    job_seq: int | None
    data: EventJob | Endpoint = Field(description="Of `endpoint.…` events the endpoint, else the job.")


class EventPage(Shape):
    data: list[Event]
    next_cursor: str = Field(description="Where to go on, also when there was nothing new.")


class Received(Shape):
    received: Literal[True]


class Status(Shape):
    status: str


JobPage = page("JobPage", Job)
HistoryPage = page("HistoryPage", HistoryLine)
CallbackPage = page("CallbackPage", Callback)


class Document(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
