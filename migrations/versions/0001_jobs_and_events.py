"""The first schema: jobs, attempts, callbacks, histories, events, work, keys and result files.

Revision: 0001, the first.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_table(
        "counter",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "event",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("job_seq", sa.BigInteger(), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("job_id", "job_seq", name="event_once_for_a_job"),
        sa.UniqueConstraint("seq"),
    )
    op.create_index("event_feed", "event", ["tenant", "seq"], unique=False)
    op.create_index(
        "event_unnumbered",
        "event",
        ["position"],
        unique=False,
        sqlite_where=sa.text("seq IS NULL"),
        postgresql_where=sa.text("seq IS NULL"),
    )

    op.create_table(
        "history",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("moved", sa.Boolean(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("commitment", sa.Text(), nullable=False),
        sa.Column("prev", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq"),
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key"),
    )
    op.create_index("idempotency_of_job", "idempotency", ["job_id"], unique=False)

    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("on_uncertain", sa.Text(), nullable=False),
        sa.Column("archive", sa.Boolean(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("retry_of", sa.Text(), nullable=True),
        sa.Column("deadline_s", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("completed_ms", sa.BigInteger(), nullable=True),
        sa.Column("learned_by", sa.Text(), nullable=True),
        sa.Column("waiting", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("output_raw", sa.Text(), nullable=True),
        sa.Column("estimated_usd", sa.Text(), nullable=True),
        sa.Column("history_seq", sa.BigInteger(), nullable=False),
        sa.Column("history_hash", sa.Text(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('blocked', 'canceled', 'expired', 'failed', 'succeeded')) = (completed_ms IS NOT NULL)",
            name="job_completed_when_final",
        ),
        sa.CheckConstraint("state <> 'succeeded' OR output IS NOT NULL", name="job_succeeded_has_output"),
        sa.CheckConstraint("state = 'accepted' OR waiting IS NULL", name="job_waits_only_when_accepted"),
        sa.CheckConstraint(
            "state IN ('accepted', 'blocked', 'canceled', 'expired', 'failed', 'queued', 'running', 'submitting', 'succeeded', 'uncertain')",
            name="job_state_known",
        ),
        sa.CheckConstraint(
            "state NOT IN ('failed','blocked','canceled','expired') OR error IS NOT NULL",
            name="job_ended_badly_has_error",
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("retry_of"),
        postgresql_with={"fillfactor": 60},
    )
    op.create_index("job_by_tenant", "job", ["tenant", "id"], unique=False)
    op.create_index(
        "job_due",
        "job",
        ["deadline_ms"],
        unique=False,
        sqlite_where=sa.text("completed_ms IS NULL"),
        postgresql_where=sa.text("completed_ms IS NULL"),
    )

    op.create_table(
        "artifact",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("kept_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state <> 'kept' OR sha256 IS NOT NULL", name="artifact_kept_is_hashed"),
        sa.CheckConstraint("state IN ('gone', 'kept', 'wanted')", name="artifact_state_known"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "position", name="artifact_position_once"),
    )
    op.create_table(
        "attempt",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("secret_key_id", sa.Text(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("postponed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("postponed_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.Column("links", sa.Text(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("queue_position", sa.BigInteger(), nullable=True),
        sa.Column("submitted_ms", sa.BigInteger(), nullable=True),
        sa.Column("completed_ms", sa.BigInteger(), nullable=True),
        sa.Column("learned_by", sa.Text(), nullable=True),
        sa.Column("lag_ms", sa.BigInteger(), nullable=True),
        sa.Column("cost_usd", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("output_raw", sa.Text(), nullable=True),
        sa.Column("candidate_request_id", sa.Text(), nullable=True),
        sa.Column("message_key", sa.Text(), nullable=True),
        sa.Column("refused_callbacks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("refused_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("hinted_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "state IN ('blocked', 'canceled', 'expired', 'failed', 'queued', 'running', 'submitting', 'succeeded', 'uncertain')",
            name="attempt_state_known",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "number", name="attempt_number_once"),
        sa.UniqueConstraint("provider", "provider_request_id", name="provider_request_once"),
        sa.UniqueConstraint("token_hash"),
        postgresql_with={"fillfactor": 60},
    )
    op.create_index("attempt_learned", "attempt", ["model", "provider", "completed_ms"], unique=False)

    op.create_table(
        "callback",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('duplicate', 'forged', 'malformed', 'mismatched', 'stale', 'unauthenticated', 'unjudged', 'verified')",
            name="callback_verdict_known",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("callback_of_job", "callback", ["job_id", "id"], unique=False)

    op.create_table(
        "job_tag",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "key"),
    )
    op.create_index("job_tag_by_value", "job_tag", ["tenant", "key", "value", "job_id"], unique=False)

    op.create_table(
        "work",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('archive', 'ask', 'cancel', 'reconcile', 'submit')", name="work_kind_known"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "kind", "number"),
    )
    op.create_index(
        "work_claimed",
        "work",
        ["claim"],
        unique=False,
        sqlite_where=sa.text("claim IS NOT NULL"),
        postgresql_where=sa.text("claim IS NOT NULL"),
    )
    op.create_index("work_due", "work", ["queue", "due_ms"], unique=False)
    op.bulk_insert(
        sa.table("counter", sa.column("name", sa.Text()), sa.column("value", sa.BigInteger())),
        [{"name": "event_seq", "value": 0}],
    )


def downgrade() -> None:
    op.drop_index("work_due", table_name="work")
    op.drop_index("work_claimed", table_name="work")

    op.drop_table("work")
    op.drop_index("job_tag_by_value", table_name="job_tag")

    op.drop_table("job_tag")
    op.drop_index("callback_of_job", table_name="callback")

    op.drop_table("callback")
    op.drop_index("attempt_learned", table_name="attempt")

    op.drop_table("attempt")
    op.drop_table("artifact")
    op.drop_index("job_due", table_name="job")
    op.drop_index("job_by_tenant", table_name="job")

    op.drop_table("job")
    op.drop_index("idempotency_of_job", table_name="idempotency")

    op.drop_table("idempotency")
    op.drop_table("history")
    op.drop_index("event_unnumbered", table_name="event")
    op.drop_index("event_feed", table_name="event")

    op.drop_table("event")
    op.drop_table("counter")
    op.drop_table("api_key")
