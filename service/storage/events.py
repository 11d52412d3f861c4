"""The event stream: written with the move, numbered in commit order, read by cursor.

Rule 1: a reader that follows `seq` misses nothing. On SQLite the one writer numbers as it writes. On PostgreSQL
events commit unnumbered, and whoever holds the counter's row numbers what is committed, until its own commit: the
numbers of a later holder are larger, and they are seen later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, text, update

from service.storage.database import Tx
from service.storage.statements import Statement, among, insert_many
from service.storage.tables import CounterRow, EventRow, table

EVENT = table(EventRow)
COUNTER = table(CounterRow)
_SEQ = "event_seq"

_COUNT_UP = Statement(
    update(COUNTER)
    .where(COUNTER.c.name == _SEQ)
    .values(value=COUNTER.c.value + bindparam("more"))
    .returning(COUNTER.c.value)
)
_INSERT = insert_many(EVENT, ["id", "seq", "tenant", "type", "job_id", "job_seq", "at_ms", "data"])
_NUMBER = Statement(
    text(
        """
        WITH waiting AS (
            SELECT position, row_number() OVER (ORDER BY position) AS place
            FROM event WHERE seq IS NULL ORDER BY position LIMIT :most
        ), counted AS (
            UPDATE counter SET value = value + (SELECT count(*) FROM waiting)
            WHERE name = 'event_seq' RETURNING value - (SELECT count(*) FROM waiting) AS base
        )
        UPDATE event SET seq = counted.base + waiting.place
        FROM waiting, counted WHERE event.position = waiting.position
        """
    )
)
_LOCK = Statement(select(COUNTER.c.value).where(COUNTER.c.name == _SEQ).with_for_update())
_LATEST = Statement(select(COUNTER.c.value).where(COUNTER.c.name == _SEQ))
_FEED_COLUMNS = [column for column in EVENT.c if column.name not in ("position", "tenant")]
_FEED = Statement(
    select(*_FEED_COLUMNS)
    .where(EVENT.c.tenant == bindparam("of_tenant"), EVENT.c.seq > bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(bindparam("most"))
)
_FEED_OF_TYPES = Statement(
    select(*_FEED_COLUMNS)
    .where(
        EVENT.c.tenant == bindparam("of_tenant"),
        EVENT.c.seq > bindparam("after"),
        among(EVENT.c.type, "types"),
    )
    .order_by(EVENT.c.seq)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event; `data` is JSON text, made once. `seq` is 0 until it is numbered."""

    id: str
    tenant: str
    type: str
    job_id: str | None
    job_seq: int | None
    at_ms: int
    data: str
    seq: int = 0


def append(tx: Tx, events: Sequence[Event]) -> None:
    """This function will write events; on SQLite they have their numbers at once."""
    if not events:
        return
    first = _count_up(tx, len(events)) if tx.dialect == "sqlite" else None
    tx.run_later(
        _INSERT,
        [
            {
                "id": event.id,
                "seq": None if first is None else first + place,
                "tenant": event.tenant,
                "type": event.type,
                "job_id": event.job_id,
                "job_seq": event.job_seq,
                "at_ms": event.at_ms,
                "data": event.data,
            }
            for place, event in enumerate(events)
        ],
    )


def _count_up(tx: Tx, more: int) -> int:
    """Reserve numbers and return the first of them."""
    rows = tx.rows(_COUNT_UP, more=more)
    return int(rows[0]["value"]) - more + 1


def number(tx: Tx, *, most: int) -> int:
    """This function will number up to `most` committed events and tell how many there were.

    Only PostgreSQL needs it. The counter's row is locked first and in a statement of its own: only then does the
    next statement see everything that was committed while we waited.
    """
    if tx.dialect == "sqlite":
        return 0
    tx.rows(_LOCK)
    return tx.run(_NUMBER, most=most)


def feed(tx: Tx, *, tenant: str, after: int, most: int, types: Sequence[str] | None = None) -> list[Event]:
    """This function will read a tenant's events behind a cursor, in commit order."""
    if types is None:
        rows = tx.rows(_FEED, of_tenant=tenant, after=after, most=most)
    else:
        rows = tx.rows(_FEED_OF_TYPES, of_tenant=tenant, after=after, most=most, types=list(types))
    return [Event(tenant=tenant, **row) for row in rows]


def latest_seq(tx: Tx) -> int:
    """This function will tell the newest number given to any event; 0 before the first."""
    rows = tx.rows(_LATEST)
    return int(rows[0]["value"]) if rows else 0
