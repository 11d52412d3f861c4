"""The shapes of answers, for the OpenAPI document: what is served is tested against these, not built from them."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from service.domain.callback import Verdict
from service.domain.failures import ErrorCode
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain, Priority
from service.web.parameters import EVENT_TYPES
from service.web.problems import CODES

_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
_USD = r"^\d+(\.\d+)?$"
_SHA256 = r"^[0-9a-f]{64}$"


def _time(description: str) -> Any:
    return Field(pattern=_TIME, description=description, json_schema_extra={"format": "date-time"})


def _one_of(words: Iterable[str]) -> Any:
    return Field(json_schema_extra={"enum": list[JsonValue](words)})


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldProblem(_Shape):
    path: str = Field(description="The dotted path of the field; empty for the body as a whole.")
    message: str


class Problem(_Shape):
    """RFC 9457. `code` is the word to act upon."""

    type: str
    title: str
    status: int
    code: str = _one_of(sorted(CODES))
    detail: str
    errors: list[FieldProblem]
    request_id: str


class Image(_Shape):
    url: str = Field(
        description="The provider's until the file is kept, afterwards `/v1/artifacts/{id}` of ours."
    )
    content_type: str | None
    width: int | None
    height: int | None
    artifact_id: str | None
    sha256: str | None = Field(pattern=_SHA256)
    size_bytes: int | None


class EventOutput(_Shape):
    images: list[Image]
    seed: str | None = Field(description="Text, because seeds exceed 2^53.")


class Output(EventOutput):
    raw: Any = Field(description="The provider's result as received.")


class JobError(_Shape):
    code: ErrorCode
    message: str
    retryable: bool = Field(description="Advice: the service itself never sends again.")
    provider_status: int | None
    provider_error: Any


class Waiting(_Shape):
    """Why nothing happens now; it goes on by itself."""

    code: ErrorCode
    message: str
    since: str = _time("When it began to wait.")
    next_try_at: str = _time("When it is tried next.")


class EventAttempt(_Shape):
    """One request to one provider."""

    id: str
    number: int
    provider: str
    model: str
    state: AttemptState
    provider_request_id: str | None
    queue_position: int | None
    submitted_at: str | None = _time("When the provider took it.")
    completed_at: str | None = _time("When its end was recorded.")
    learned_by: LearnedBy | None
    lag_ms: int | None
    cost_usd: str | None = Field(pattern=_USD)
    output: EventOutput | None = Field(description="A result that came after the job's end.")


class Attempt(EventAttempt):
    output: Output | None = Field(description="A result that came after the job's end.")


class Cost(_Shape):
    estimated_usd: str | None = Field(pattern=_USD)
    settled_usd: str | None = Field(pattern=_USD)


class EventJob(_Shape):
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
    deadline_at: str = _time("When our waiting ends.")
    created_at: str = _time("When it was accepted.")
    updated_at: str = _time("When it last changed.")
    completed_at: str | None = _time("When it reached its final state.")
    version: int


class Job(EventJob):
    """A job. `succeeded`, `failed`, `blocked`, `canceled` and `expired` are final."""

    input: dict[str, Any]
    output: Output | None
    attempts: list[Attempt]  # type: ignore[assignment]


class HistoryLine(_Shape):
    """One fact about a job; with `moved` false it changed nothing."""

    seq: int
    at: str = _time("When it was recorded.")
    type: str
    cause: str = Field(description="`callback:cb_…`, `poll`, `clock`, `api:key_…`, `operator` or `submit`.")
    moved: bool
    from_: JobState | None = Field(alias="from")
    to: JobState
    detail: dict[str, Any]
    hash: str = Field(pattern=_SHA256)


class Callback(_Shape):
    """One request to a callback URL. Headers that carry a secret are kept as their SHA-256."""

    id: str
    attempt_id: str
    received_at: str = _time("When it came.")
    verdict: Verdict
    status: int = Field(description="What the sender was answered.")
    key_id: str | None
    body_sha256: str = Field(pattern=_SHA256)
    headers: dict[str, str]


class Event(_Shape):
    """`seq` only grows; `job_seq` counts the job's own events from 1."""

    id: str
    object: Literal["event"]
    seq: int
    type: str = _one_of(EVENT_TYPES)
    timestamp: str = _time("When it happened.")
    job_id: str | None
    job_seq: int | None
    data: EventJob


class EventPage(_Shape):
    data: list[Event]
    next_cursor: str = Field(description="Where to go on, also when there was nothing new.")


class Received(_Shape):
    received: Literal[True]


class Status(_Shape):
    status: str


def _page(name: str, item: type[BaseModel]) -> type[BaseModel]:
    return create_model(
        name,
        __config__=ConfigDict(extra="forbid"),
        data=(list[item], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, Field(description="Where to go on; null at the end.")),
    )


JobPage = _page("JobPage", Job)
HistoryPage = _page("HistoryPage", HistoryLine)
CallbackPage = _page("CallbackPage", Callback)


class Document(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
