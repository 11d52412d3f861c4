"""What goes out: endpoints, deliveries with their tries, tenants' secrets, brokers' cursors; a job's own URL.

Revision: 0002, after 0001.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("job", sa.Column("webhook_url", sa.Text(), nullable=True))
    _number_the_rest()
    op.drop_index("event_unnumbered", table_name="event")
    _endpoints()
    _deliveries()
    op.create_table(
        "tenant_secret",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "sink",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("until_ms", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("trouble_since_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    # What happened before anybody could listen is handed out to nobody; a replay brings it to who asks.
    op.execute(
        "INSERT INTO counter (name, value) SELECT 'fan_out', value FROM counter WHERE name = 'event_seq'"
    )
    op.execute("INSERT INTO counter (name, value) VALUES ('pruned_seq', 0)")


def _number_the_rest() -> None:
    """From here on events have their number from their commit on; those that still wait for one get it now."""
    op.execute(
        """
        UPDATE event SET seq = waiting.seq
        FROM (
            SELECT told.position, counter.value + row_number() OVER (ORDER BY told.position) AS seq
            FROM event AS told, counter WHERE told.seq IS NULL AND counter.name = 'event_seq'
        ) AS waiting
        WHERE event.position = waiting.position
        """
    )
    op.execute(
        """
        UPDATE counter SET value = (SELECT max(seq) FROM event)
        WHERE name = 'event_seq' AND value < (SELECT max(seq) FROM event)
        """
    )


def _endpoints() -> None:
    op.create_table(
        "endpoint",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("job_key", sa.Text(), nullable=True),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("signatures", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.BigInteger(), nullable=False),
        sa.Column("rate_per_s", sa.BigInteger(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("failing_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("not_before_ms", sa.BigInteger(), nullable=True),
        sa.Column("throttled_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("slow_start", sa.BigInteger(), nullable=True),
        sa.Column("replay_after", sa.BigInteger(), nullable=True),
        sa.Column("replay_until", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=True),
        sa.Column("woken_ms", sa.BigInteger(), nullable=True),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('active', 'disabled', 'paused')", name="endpoint_state_known"),
        sa.CheckConstraint("format IN ('cloudevents', 'standard')", name="endpoint_format_known"),
        sa.CheckConstraint(
            "disabled_reason IN ('failing', 'gone', 'operator')", name="endpoint_disabled_reason_known"
        ),
        sa.CheckConstraint(
            "(state = 'disabled') = (disabled_reason IS NOT NULL)", name="endpoint_disabled_for_a_reason"
        ),
        sa.CheckConstraint(
            "(job_key IS NULL) = (secret IS NOT NULL)", name="endpoint_has_secret_unless_for_jobs"
        ),
        sa.CheckConstraint(
            "(replay_after IS NULL) = (replay_until IS NULL)", name="endpoint_replay_has_both_ends"
        ),
        sa.CheckConstraint("concurrency BETWEEN 1 AND 64", name="endpoint_concurrency_in_range"),
        sa.CheckConstraint("rate_per_s BETWEEN 1 AND 1000", name="endpoint_rate_in_range"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "job_key", name="endpoint_once_for_jobs"),
    )
    _partial_index("endpoint_listed", "endpoint", ["tenant", "id"], "job_key IS NULL")
    _partial_index("endpoint_due", "endpoint", ["due_ms"], "due_ms IS NOT NULL")
    _partial_index("endpoint_claimed", "endpoint", ["claim"], "claim IS NOT NULL")
    _partial_index("endpoint_replaying", "endpoint", ["id"], "replay_until IS NOT NULL")


def _deliveries() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("next_ms", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("completed_ms", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('dead', 'pending', 'succeeded')", name="delivery_state_known"),
        sa.CheckConstraint(
            "(state = 'pending') = (completed_ms IS NULL)", name="delivery_completed_when_ended"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="delivery_once"),
    )
    op.create_index("delivery_of_tenant", "delivery", ["tenant", "id"], unique=False)
    op.create_index("delivery_of_endpoint", "delivery", ["endpoint_id", "id"], unique=False)
    _partial_index("delivery_dead", "delivery", ["tenant", "id"], "state = 'dead'")
    _partial_index("delivery_due", "delivery", ["endpoint_id", "next_ms", "event_seq"], "state = 'pending'")
    _partial_index(
        "delivery_in_order", "delivery", ["job_id", "endpoint_id", "event_seq"], "state = 'pending'"
    )
    op.create_table(
        "delivery_try",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("took_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
    )


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(
        name,
        table,
        columns,
        unique=False,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )


def downgrade() -> None:
    op.execute("DELETE FROM counter WHERE name <> 'event_seq'")
    for table in ("sink", "tenant_secret", "delivery_try", "delivery", "endpoint"):
        op.drop_table(table)
    _partial_index("event_unnumbered", "event", ["position"], "seq IS NULL")
    op.drop_column("job", "webhook_url")
