"""The tables of what goes out: endpoints, deliveries with their tries, tenants' secrets, brokers' cursors."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from service.domain.endpoint import DeliveryState, Disabled, EndpointState, Format
from service.storage.columns import number_column as _number
from service.storage.columns import one_of as _one_of
from service.storage.columns import text_column as _text
from service.storage.columns import where as _where

_PENDING = "state = 'pending'"


class EndpointRow(SQLModel, table=True):
    """A consumer's URL: what it wants, how it fares, and when it has something to send.

    A claim moves `due_ms` into the future: that is the lease. Who brings something new meanwhile writes `woken_ms`.
    """

    __tablename__ = "endpoint"
    __table_args__ = (
        CheckConstraint(_one_of("state", EndpointState), name="endpoint_state_known"),
        CheckConstraint(_one_of("format", Format), name="endpoint_format_known"),
        CheckConstraint(_one_of("disabled_reason", Disabled), name="endpoint_disabled_reason_known"),
        CheckConstraint(
            "(state = 'disabled') = (disabled_reason IS NOT NULL)", name="endpoint_disabled_for_a_reason"
        ),
        CheckConstraint(
            "(job_key IS NULL) = (secret IS NOT NULL)", name="endpoint_has_secret_unless_for_jobs"
        ),
        CheckConstraint(
            "(replay_after IS NULL) = (replay_until IS NULL)", name="endpoint_replay_has_both_ends"
        ),
        CheckConstraint("concurrency BETWEEN 1 AND 64", name="endpoint_concurrency_in_range"),
        CheckConstraint("rate_per_s BETWEEN 1 AND 1000", name="endpoint_rate_in_range"),
        UniqueConstraint("tenant", "job_key", name="endpoint_once_for_jobs"),
        # Without those for jobs: there may be one for each job, and neither lists nor the fan-out look at them here.
        Index("endpoint_listed", "tenant", "id", **_where("job_key IS NULL")),
        Index("endpoint_due", "due_ms", **_where("due_ms IS NOT NULL")),
        Index("endpoint_claimed", "claim", **_where("claim IS NOT NULL")),
        Index("endpoint_replaying", "id", **_where("replay_until IS NOT NULL")),
    )
    id: str = _text(primary_key=True)
    tenant: str = _text()
    url: str = _text()
    #: SHA-256 of the URL when it is the `webhook_url` of jobs: a URL itself may be too long for an index.
    job_key: str | None = _text(null=True)
    #: JSON list; empty: all types.
    types: str = _text()
    description: str = _text()
    state: str = _text()
    disabled_reason: str | None = _text(null=True)
    format: str = _text()
    #: Separated by commas.
    signatures: str = _text()
    concurrency: int = _number()
    rate_per_s: int | None = _number(null=True)
    secret: str | None = _text(null=True)
    previous_secret: str | None = _text(null=True)
    previous_until_ms: int | None = _number(null=True)
    created_ms: int = _number()
    updated_ms: int = _number()
    failures: int = _number()
    failing_since_ms: int | None = _number(null=True)
    not_before_ms: int | None = _number(null=True)
    throttled_until_ms: int | None = _number(null=True)
    slow_start: int | None = _number(null=True)
    replay_after: int | None = _number(null=True)
    replay_until: int | None = _number(null=True)
    version: int = _number()
    due_ms: int | None = _number(null=True)
    woken_ms: int | None = _number(null=True)
    #: Who holds it: a process's id, while `due_ms` is the end of its lease.
    claim: str | None = _text(null=True)


class DeliveryRow(SQLModel, table=True):
    """One event to one endpoint. No foreign keys: a delivery is kept when its endpoint is deleted."""

    __tablename__ = "delivery"
    __table_args__ = (
        CheckConstraint(_one_of("state", DeliveryState), name="delivery_state_known"),
        CheckConstraint(f"({_PENDING}) = (completed_ms IS NULL)", name="delivery_completed_when_ended"),
        UniqueConstraint("event_id", "endpoint_id", name="delivery_once"),
        Index("delivery_of_tenant", "tenant", "id"),
        Index("delivery_of_endpoint", "endpoint_id", "id"),
        Index("delivery_dead", "tenant", "id", **_where("state = 'dead'")),
        Index("delivery_due", "endpoint_id", "next_ms", "event_seq", **_where(_PENDING)),
        # Led by the job: else the planner takes it to read all that an endpoint waits for.
        Index("delivery_in_order", "job_id", "endpoint_id", "event_seq", **_where(_PENDING)),
    )
    id: str = _text(primary_key=True)
    tenant: str = _text()
    endpoint_id: str = _text()
    event_id: str = _text()
    event_seq: int = _number()
    event_type: str = _text()
    job_id: str | None = _text(null=True)
    state: str = _text()
    created_ms: int = _number()
    next_ms: int = _number()
    tries: int = _number()
    step: int = _number()
    completed_ms: int | None = _number(null=True)
    status: int | None = _number(null=True)
    error: str | None = _text(null=True)


class DeliveryTryRow(SQLModel, table=True):
    """One request of a delivery, with the first 4 KiB of what was answered."""

    __tablename__ = "delivery_try"
    delivery_id: str = Field(
        sa_column=Column(Text, ForeignKey("delivery.id", ondelete="CASCADE"), primary_key=True)
    )
    number: int = _number(primary_key=True, autoincrement=False)
    at_ms: int = _number()
    took_ms: int = _number()
    status: int | None = _number(null=True)
    error: str | None = _text(null=True)
    answer: str | None = _text(null=True)


class TenantSecretRow(SQLModel, table=True):
    """What the `webhook_url`s of a tenant's jobs are signed with, sealed."""

    __tablename__ = "tenant_secret"
    tenant: str = _text(primary_key=True)
    secret: str = _text()
    previous_secret: str | None = _text(null=True)
    previous_until_ms: int | None = _number(null=True)
    created_ms: int = _number()
    updated_ms: int = _number()


class SinkRow(SQLModel, table=True):
    """How far a broker has got in the stream, and who writes to it."""

    __tablename__ = "sink"
    name: str = _text(primary_key=True)
    seq: int = _number()
    claim: str | None = _text(null=True)
    until_ms: int | None = _number(null=True)
    #: The kind of the last error while the broker is away, and since when.
    trouble: str | None = _text(null=True)
    trouble_since_ms: int | None = _number(null=True)
