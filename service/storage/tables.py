"""The tables, with the constraints that stand behind the machine.

Times are milliseconds since the epoch; JSON is kept as text, so that no digit of a large integer is lost; states
are text held to the machine's words by CHECKs. What is secret is here only as a hash.
"""

from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from service.domain.callback import Verdict
from service.domain.effects import Work
from service.domain.machine import TERMINAL
from service.domain.states import AttemptState, JobState
from service.storage.columns import COUNTING as _COUNTING
from service.storage.columns import ROOM as _ROOM
from service.storage.columns import number_column as _number
from service.storage.columns import one_of as _one_of
from service.storage.columns import text_column as _text
from service.storage.columns import where as _where
from service.storage.endpoint_tables import EndpointRow

_FINAL = _one_of("state", TERMINAL)


class JobRow(SQLModel, table=True):
    """What a backend asked for. Kept until its retention ends; its history outlives it."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(_one_of("state", JobState), name="job_state_known"),
        CheckConstraint(f"({_FINAL}) = (completed_ms IS NOT NULL)", name="job_completed_when_final"),
        CheckConstraint("state <> 'succeeded' OR output IS NOT NULL", name="job_succeeded_has_output"),
        CheckConstraint(
            "state NOT IN ('failed','blocked','canceled','expired') OR error IS NOT NULL",
            name="job_ended_badly_has_error",
        ),
        CheckConstraint("state = 'accepted' OR waiting IS NULL", name="job_waits_only_when_accepted"),
        Index("job_by_tenant", "tenant", "id"),
        Index("job_due", "deadline_ms", **_where("completed_ms IS NULL")),
        _ROOM,
    )
    id: str = _text(primary_key=True)
    tenant: str = _text()
    provider: str = _text()
    model: str = _text()
    state: str = _text()
    version: int = _number()
    priority: str = _text()
    on_uncertain: str = _text()
    archive: bool = Field(sa_column=Column(Boolean, nullable=False))
    input: str = _text()
    metadata_json: str = _text()
    retry_of: str | None = _text(null=True, unique=True)
    deadline_s: int = _number()
    deadline_ms: int = _number()
    created_ms: int = _number()
    updated_ms: int = _number()
    completed_ms: int | None = _number(null=True)
    learned_by: str | None = _text(null=True)
    waiting: str | None = _text(null=True)
    error: str | None = _text(null=True)
    output: str | None = _text(null=True)
    output_raw: str | None = _text(null=True)
    estimated_usd: str | None = _text(null=True)
    history_seq: int = _number()
    history_hash: str = _text()
    event_seq: int = _number()
    #: Where this job's own events go, too.
    webhook_url: str | None = _text(null=True)


class JobTag(SQLModel, table=True):
    """One pair of a job's metadata, so that jobs are found by it."""

    __tablename__ = "job_tag"
    __table_args__ = (Index("job_tag_by_value", "tenant", "key", "value", "job_id"),)
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True))
    key: str = _text(primary_key=True)
    tenant: str = _text()
    value: str = _text()


class AttemptRow(SQLModel, table=True):
    """One request to one provider. The token's hash finds it; a provider's id belongs to one attempt only."""

    __tablename__ = "attempt"
    __table_args__ = (
        CheckConstraint(_one_of("state", AttemptState), name="attempt_state_known"),
        UniqueConstraint("job_id", "number", name="attempt_number_once"),
        UniqueConstraint("provider", "provider_request_id", name="provider_request_once"),
        # Led by `model` and not by `provider`: else the planner takes this index to find a request of a provider.
        Index("attempt_learned", "model", "provider", "completed_ms"),
        _ROOM,
    )
    id: str = _text(primary_key=True)
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    number: int = _number()
    provider: str = _text()
    model: str = _text()
    state: str = _text()
    token_hash: str = _text(unique=True)
    secret_key_id: str = _text()
    started_ms: int = _number()
    postponed: int = _number(default=0)
    postponed_since_ms: int | None = _number(null=True)
    provider_request_id: str | None = _text(null=True)
    links: str = _text(default="{}")
    queue_position: int | None = _number(null=True)
    submitted_ms: int | None = _number(null=True)
    completed_ms: int | None = _number(null=True)
    learned_by: str | None = _text(null=True)
    lag_ms: int | None = _number(null=True)
    cost_usd: str | None = _text(null=True)
    outcome: str | None = _text(null=True)
    output: str | None = _text(null=True)
    output_raw: str | None = _text(null=True)
    #: An id that a genuine callback claimed before ours was known: asked for with our key, never believed.
    candidate_request_id: str | None = _text(null=True)
    #: What the first verified terminal callback said; a second one with the same key is a duplicate.
    message_key: str | None = _text(null=True)
    refused_callbacks: int = _number(default=0)
    refused_bytes: int = _number(default=0)
    #: When a refused or unproven callback last made us ask.
    hinted_ms: int = _number(default=0)


class WorkRow(SQLModel, table=True):
    """Something to be done for a job when it is due. A claim moves `due_ms` into the future: that is the lease."""

    __tablename__ = "work"
    __table_args__ = (
        CheckConstraint(_one_of("kind", Work), name="work_kind_known"),
        # Led by `queue` and not by `kind`: else the planner takes this index to find a row by its key.
        Index("work_due", "queue", "due_ms"),
        Index("work_claimed", "claim", **_where("claim IS NOT NULL")),
    )
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True))
    kind: str = _text(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    #: The kind, for jobs of low priority with `.low` behind it: normal work is claimed first.
    queue: str = _text()
    due_ms: int = _number()
    tries: int = _number(default=0)
    #: Who holds it: a process's id, while `due_ms` is the end of its lease.
    claim: str | None = _text(null=True)


class CallbackRow(SQLModel, table=True):
    """What a provider, or somebody who said so, sent to a callback URL: the raw bytes and the judgement."""

    __tablename__ = "callback"
    __table_args__ = (
        CheckConstraint(_one_of("verdict", Verdict), name="callback_verdict_known"),
        Index("callback_of_job", "job_id", "id"),
    )
    id: str = _text(primary_key=True)
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    attempt_id: str = _text()
    received_ms: int = _number()
    verdict: str = _text()
    reason: str = _text()
    status: int = Field(sa_column=Column(Integer, nullable=False))
    key_id: str | None = _text(null=True)
    body_sha256: str = _text()
    headers: str = _text()
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class HistoryRow(SQLModel, table=True):
    """One fact about a job, hashed into its job's chain. No foreign key: history outlives its job."""

    __tablename__ = "history"
    job_id: str = _text(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    tenant: str = _text()
    at_ms: int = _number()
    type: str = _text()
    cause: str = _text()
    moved: bool = Field(sa_column=Column(Boolean, nullable=False))
    before: str | None = _text(null=True)
    after: str = _text()
    detail: str = _text()
    salt: str = _text()
    commitment: str = _text()
    prev: str = _text()
    hash: str = _text()


class EventRow(SQLModel, table=True):
    """A fact that consumers may see. `position` is the order of writing, `seq` the order of commits."""

    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("job_id", "job_seq", name="event_once_for_a_job"),
        Index("event_feed", "tenant", "seq"),
    )
    position: int = Field(sa_column=Column(_COUNTING, Identity(always=False), primary_key=True))
    id: str = _text()
    seq: int | None = _number(null=True, unique=True)
    tenant: str = _text()
    type: str = _text()
    job_id: str | None = _text(null=True)
    job_seq: int | None = _number(null=True)
    at_ms: int = _number()
    data: str = _text()


class CounterRow(SQLModel, table=True):
    """A number that only grows; its row is the lock under which it grows.

    `event_seq`: the newest number of an event. `fan_out`: the newest event whose deliveries are written.
    `pruned_seq`: the newest event that is no longer kept.
    """

    __tablename__ = "counter"
    name: str = _text(primary_key=True)
    value: int = _number()


class IdempotencyRow(SQLModel, table=True):
    """The first request with a key. Lives as long as its job, at least 24 h."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("idempotency_of_job", "job_id"),)
    tenant: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    body_hash: str = _text()
    job_id: str = _text()
    created_ms: int = _number()


class ApiKeyRow(SQLModel, table=True):
    """An API key of one tenant: only the SHA-256 of its secret is kept."""

    __tablename__ = "api_key"
    id: str = _text(primary_key=True)
    tenant: str = _text()
    name: str = _text()
    secret_hash: str = _text(unique=True)
    scopes: str = _text()
    created_ms: int = _number()
    revoked_ms: int | None = _number(null=True)


class ArtifactRow(SQLModel, table=True):
    """A result file: wanted, kept, or gone for good."""

    __tablename__ = "artifact"
    __table_args__ = (
        CheckConstraint("state IN ('gone', 'kept', 'wanted')", name="artifact_state_known"),
        CheckConstraint("state <> 'kept' OR sha256 IS NOT NULL", name="artifact_kept_is_hashed"),
        UniqueConstraint("job_id", "position", name="artifact_position_once"),
    )
    id: str = _text(primary_key=True)
    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    attempt_id: str = _text()
    tenant: str = _text()
    position: int = _number()
    state: str = _text()
    source_url: str = _text()
    content_type: str | None = _text(null=True)
    sha256: str | None = _text(null=True)
    size_bytes: int | None = _number(null=True)
    created_ms: int = _number()
    kept_ms: int | None = _number(null=True)


def table(model: type[SQLModel]) -> Table:
    """This function will give the Core table of a model, for statements."""
    found: ClassVar[Table] = model.__table__  # type: ignore[attr-defined, misc]
    return found


#: Of all tables, those of `endpoint_tables` too.
METADATA = EndpointRow.metadata
