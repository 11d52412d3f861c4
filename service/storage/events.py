"""The event stream: written with the move, numbered in commit order, read by cursor.

Rule 1: a reader that follows `seq` misses nothing. Whoever writes events holds the counter's row from their
numbering to the commit: the numbers of a later holder are larger, and they are seen later. On SQLite the one writer
holds everything anyway; on PostgreSQL the numbering is the last statement and travels with the COMMIT, so that the
row is held no longer than the commit takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, case, insert, literal, select, text, update

from service.storage.database import Tx
from service.storage.statements import Many, Statement, among, update_many
from service.storage.tables import CounterRow, EventRow, JobRow, table

EVENT = table(EventRow)
COUNTER = table(CounterRow)
JOB = table(JobRow)
SEQ = "event_seq"
#: The counter of the newest event that is handed out to endpoints.
_FAN_OUT = "fan_out"

_COLUMNS = ["id", "seq", "tenant", "type", "job_id", "job_seq", "at_ms", "data"]
_COUNT_UP = Statement(
    update(COUNTER)
    .where(COUNTER.c.name == SEQ)
    .values(value=COUNTER.c.value + bindparam("more"))
    .returning(COUNTER.c.value)
)
_INSERT = Many(
    insert(EVENT).values({name: bindparam(name) for name in _COLUMNS}),
    text(
        """
            WITH told AS MATERIALIZED (
                SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
                    place bigint, id text, tenant text, type text, job_id text, job_seq bigint, at_ms bigint, data text)
            ), counted AS (
                UPDATE counter SET value = value + (SELECT count(*) FROM told)
                WHERE name = 'event_seq' RETURNING value - (SELECT count(*) FROM told) AS base
            )
            INSERT INTO event (id, seq, tenant, type, job_id, job_seq, at_ms, data)
            SELECT id, base + row_number() OVER (ORDER BY place), tenant, type, job_id, job_seq, at_ms, data
            FROM counted, told ORDER BY place
        """
    ),
)
_LATEST = Statement(select(COUNTER.c.value).where(COUNTER.c.name == SEQ))
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

_CURSOR = select(COUNTER.c.value).where(COUNTER.c.name == _FAN_OUT)
_FAN_OUT_CURSOR = Statement(_CURSOR)
_TAKE_FAN_OUT = Statement(_CURSOR.with_for_update(skip_locked=True))
_HOLD_FAN_OUT = Statement(_CURSOR.with_for_update())
_MOVE = update_many(COUNTER, ["value"], where={"name": "of_name"})
_PASSING = (
    select(
        *[column for column in EVENT.c if column.name not in ("position", "data")],
        # What is large is not read where only addresses are looked at.
        case((EVENT.c.job_id.is_(None), EVENT.c.data), else_=literal("")).label("data"),
        # Not a join: PostgreSQL might read all jobs for it while it believes them to be few.
        select(JOB.c.webhook_url).where(JOB.c.id == EVENT.c.job_id).scalar_subquery().label("webhook_url"),
    )
    .where(EVENT.c.seq > bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(bindparam("most"))
)
_NEXT_PASSING = Statement(_PASSING.where(EVENT.c.seq <= bindparam("last")))
_ANY_PASSING = Statement(_PASSING)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing(Event):
    """An event on its way to endpoints, with its job's own URL; `data` is only there when it has no job."""

    webhook_url: str | None = None


def append(tx: Tx, events: Sequence[Event]) -> None:
    """This function will write events, with the numbers that they have from their commit on."""
    if not events:
        return
    first = _count_up(tx, len(events)) if tx.dialect == "sqlite" else 0
    tx.run_last(
        _INSERT,
        [
            {
                "place": place,
                "id": event.id,
                "seq": first + place,
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


def after(tx: Tx, seq: int, *, most: int) -> list[Passing]:
    """This function will read the events of all tenants behind a number, in commit order, for handing them out.

    Numbers have no gaps, so the next ones are asked for: with many events behind the number PostgreSQL might else
    sort them all for each page. Only where some are pruned it takes what comes next.
    """
    rows = tx.rows(_NEXT_PASSING, after=seq, most=most, last=seq + most)
    if not rows and latest_seq(tx) > seq:
        rows = tx.rows(_ANY_PASSING, after=seq, most=most)
    return [Passing(**row) for row in rows]


def fan_out_cursor(tx: Tx, *, lock: bool = False) -> int | None:
    """This function will tell up to where events are handed out; with `lock`, None while somebody else is at it."""
    rows = tx.rows(_TAKE_FAN_OUT if lock and tx.dialect == "postgresql" else _FAN_OUT_CURSOR)
    return int(rows[0]["value"]) if rows else None


def hold_fan_out(tx: Tx) -> None:
    """This function will wait until nobody hands out events, and keep it so until the commit."""
    if tx.dialect == "postgresql":
        tx.rows(_HOLD_FAN_OUT)


def move_fan_out(tx: Tx, seq: int) -> None:
    """This function will note that events up to a number are handed out; the caller holds the cursor."""
    tx.run_later(_MOVE, [{"of_name": _FAN_OUT, "value": seq}])
