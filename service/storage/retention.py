"""Retention: what is deleted when its time is over, in small batches, always from the oldest end.

Rule: an event goes only after everybody who reads the stream by a cursor of ours has passed it (the fan-out, a replay,
every sink) and when none of its deliveries is unfinished. Events go in their order, so that what is kept has no holes.
"""

from collections.abc import Sequence
from itertools import takewhile

from sqlalchemy import bindparam, delete, func, or_, select

from service.storage import stream
from service.storage.database import Tx
from service.storage.endpoint_tables import DeliveryRow, EndpointRow, SinkRow
from service.storage.events import COUNTER, EVENT
from service.storage.statements import Row, Statement, among, insert_many
from service.storage.tables import table

DELIVERY = table(DeliveryRow)
ENDPOINT = table(EndpointRow)
SINK = table(SinkRow)
FAN_OUT = "fan_out"

_LOCK = Statement(select(COUNTER.c.value).where(COUNTER.c.name == stream.PRUNED).with_for_update())
_FIRST = insert_many(COUNTER, ["name", "value"], unless=["name"])
_NOTE = insert_many(COUNTER, ["name", "value"], unless=["name"], instead=["value"])
_OLDEST = Statement(
    select(EVENT.c.seq, EVENT.c.id, EVENT.c.tenant, EVENT.c.at_ms)
    .where(EVENT.c.seq > bindparam("after"), EVENT.c.seq <= bindparam("upto"))
    .order_by(EVENT.c.seq)
    .limit(bindparam("most"))
)
_UNFINISHED = Statement(
    select(DELIVERY.c.event_id).where(among(DELIVERY.c.event_id, "events"), DELIVERY.c.state == "pending")
)
_REPLAYING = Statement(
    select(func.min(ENDPOINT.c.replay_after).label("seq")).where(
        ENDPOINT.c.replay_until.is_not(None), ENDPOINT.c.state != "disabled"
    )
)
_SINKS = Statement(
    select(func.min(SINK.c.seq).label("seq")).where(
        or_(SINK.c.until_ms.is_(None), SINK.c.until_ms >= bindparam("served_since"))
    )
)
_DELETE_EVENTS = Statement(
    delete(EVENT).where(EVENT.c.seq > bindparam("after"), EVENT.c.seq <= bindparam("upto"))
)
_OLDEST_DELIVERIES = Statement(
    select(DELIVERY.c.id, DELIVERY.c.created_ms, DELIVERY.c.completed_ms)
    .where(DELIVERY.c.id > bindparam("after"))
    .order_by(DELIVERY.c.id)
    .limit(bindparam("most"))
)
#: Not those that somebody has sent again in the meantime.
_DELETE_DELIVERIES = Statement(
    delete(DELIVERY).where(among(DELIVERY.c.id, "ids"), DELIVERY.c.completed_ms < bindparam("before"))
)


def prune_events(tx: Tx, *, before_ms: int, most: int) -> int:
    """This function will delete up to `most` of the oldest events that are older than `before_ms`; tells how many.

    A sink that nobody has served since `before_ms` is not waited for.
    """
    tx.run_many(_FIRST, [{"name": stream.PRUNED, "value": 0}])
    # Held until the commit: processes that prune at the same time do it one after the other.
    after = int(tx.rows(_LOCK)[0]["value"])
    oldest = tx.rows(_OLDEST, after=after, upto=_passed_by_all(tx, before_ms), most=most)
    old = list(takewhile(lambda row: row["at_ms"] < before_ms, oldest))
    gone = _delivered(tx, old)
    if not gone:
        return 0
    last: dict[str, int] = {stream.PRUNED: gone[-1]["seq"]}
    last |= {f"{stream.PRUNED}/{row['tenant']}": row["seq"] for row in gone}
    tx.run_many(_NOTE, [{"name": name, "value": seq} for name, seq in sorted(last.items())])
    return tx.run(_DELETE_EVENTS, after=after, upto=gone[-1]["seq"])


def _passed_by_all(tx: Tx, served_since_ms: int) -> int:
    """The newest number that the fan-out, every replay and every sink have behind them."""
    fan_out = stream.values_of(tx, [FAN_OUT])[FAN_OUT]
    found = [*tx.rows(_REPLAYING), *tx.rows(_SINKS, served_since=served_since_ms)]
    return min([fan_out, *(int(row["seq"]) for row in found if row["seq"] is not None)])


def _delivered(tx: Tx, old: Sequence[Row]) -> list[Row]:
    """The events before the first with an unfinished delivery."""
    if not old:
        return []
    unfinished = {row["event_id"] for row in tx.rows(_UNFINISHED, events=[row["id"] for row in old])}
    return list(takewhile(lambda row: row["id"] not in unfinished, old))


def prune_deliveries(tx: Tx, *, after_id: str, before_ms: int, most: int) -> tuple[int, str | None]:
    """This function will delete the finished deliveries among the `most` oldest behind an id that are older than
    `before_ms`, with their tries; tells how many, and behind which id to go on (None: the rest is too young).
    """
    oldest = tx.rows(_OLDEST_DELIVERIES, after=after_id, most=most)
    old = list(takewhile(lambda row: row["created_ms"] < before_ms, oldest))
    done = [row["id"] for row in old if row["completed_ms"] is not None and row["completed_ms"] < before_ms]
    deleted = tx.run(_DELETE_DELIVERIES, ids=done, before=before_ms) if done else 0
    return deleted, old[-1]["id"] if old and len(old) == most else None
