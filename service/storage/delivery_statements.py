"""The statements about deliveries: what is given out, what is put off with what, and which index finds it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, literal_column, null, or_, select, true, update

from service.domain.endpoint import DeliveryState
from service.storage.endpoint_tables import DeliveryRow, DeliveryTryRow
from service.storage.statements import Many, Statement, among, insert_many, rows_of
from service.storage.tables import EventRow, table

DELIVERY = table(DeliveryRow)
TRY = table(DeliveryTryRow)
EVENT = table(EventRow)

#: Written out: an index of the pending ones alone is of no use to a statement that names the state by a parameter.
_PENDING: ColumnElement[str] = literal_column("'pending'")
_SUCCEEDED: ColumnElement[str] = literal_column("'succeeded'")
#: Of rows that were found already: nothing that an index would be chosen for.
_STILL_PENDING = DELIVERY.c.state.concat("") == _PENDING
COLUMNS = [column.name for column in DELIVERY.c]
INSERT = insert_many(DELIVERY, unless=["event_id", "endpoint_id"])
REOPEN = insert_many(
    DELIVERY, unless=["event_id", "endpoint_id"], instead=["state", "next_ms", "step", "completed_ms"]
)
INSERT_TRY = insert_many(TRY, unless=["delivery_id", "number"])


def _heads() -> Any:
    """Pending deliveries of an endpoint that no older one of their job keeps back.

    Asked of each by itself, by its job: as a NOT EXISTS PostgreSQL may read all that the endpoint waits for instead,
    again for each, as long as it has no statistics.
    """
    older = DELIVERY.alias("older")
    kept_back = (
        select(older.c.id)
        .where(
            older.c.job_id == DELIVERY.c.job_id,
            # By its job and by no index of what the endpoint waits for: after an outage that is long.
            older.c.endpoint_id.concat("") == DELIVERY.c.endpoint_id,
            older.c.event_seq < DELIVERY.c.event_seq,
            older.c.state == _PENDING,
        )
        .limit(1)
        .scalar_subquery()
    )
    mine = DELIVERY.c.endpoint_id == bindparam("of_endpoint")
    return mine & (DELIVERY.c.state == _PENDING) & kept_back.is_(None)


def _sendable(*, lateral: bool) -> Statement:
    """PostgreSQL looks each event up by itself: a join might read the whole table while it believes it to be small."""
    heads = (
        select(DELIVERY)
        .where(_heads(), DELIVERY.c.next_ms <= bindparam("now"))
        .order_by(DELIVERY.c.next_ms, DELIVERY.c.event_seq)
        .limit(bindparam("most"))
        .subquery("heads")
    )
    of_event = select(EVENT.c.job_seq, EVENT.c.at_ms, EVENT.c.data).where(EVENT.c.seq == heads.c.event_seq)
    told: Any = of_event.limit(1).lateral("told") if lateral else EVENT
    return Statement(
        select(*heads.c, told.c.job_seq, told.c.at_ms, told.c.data)
        .join_from(heads, told, true() if lateral else EVENT.c.seq == heads.c.event_seq)
        .order_by(heads.c.next_ms, heads.c.event_seq)
    )


SENDABLE = {"sqlite": _sendable(lateral=False), "postgresql": _sendable(lateral=True)}
NEXT = Statement(select(DELIVERY.c.next_ms).where(_heads()).order_by(DELIVERY.c.next_ms).limit(1))

RECORDED = ("state", "next_ms", "tries", "step", "completed_ms", "status", "error")


def _record() -> Many:
    types = {name: DELIVERY.c[name].type for name in RECORDED}
    keys = {"of_id": DELIVERY.c.id.type, "seen_tries": DELIVERY.c.tries.type}
    rows = rows_of({**types, **keys})

    def made(member: Callable[[str], Any]) -> Any:
        # A success counts also for one that was given up while it was on its way.
        still = or_(DELIVERY.c.state == _PENDING, member("state") == _SUCCEEDED)
        return (
            update(DELIVERY)
            .where(DELIVERY.c.id == member("of_id"), DELIVERY.c.tries == member("seen_tries"), still)
            .values({name: member(name) for name in RECORDED})
        )

    return Many(made(bindparam), made(lambda name: rows.c[name]))


def _behind(*, sooner: bool) -> Many:
    """Those behind one of their job that were never tried themselves: due at a time, if they are not sooner (later).

    Their own order finds them, and nothing else may: all that an endpoint waits for would be read for each.
    """
    keys = {"of_job": "job_id", "of_endpoint": "endpoint_id", "of_seq": "event_seq", "at": "next_ms"}
    if not sooner:
        keys |= {"of_front": "id", "front_tries": "tries"}
    rows = rows_of({member: DELIVERY.c[name].type for member, name in keys.items()})
    front = DELIVERY.alias("front")

    def still_so(member: Callable[[str], Any]) -> list[Any]:
        """Nobody is put off by a try that did not count: another process may have delivered it meanwhile."""
        if sooner:
            return []
        # By its id, and by no index of the pending ones; of each by itself, as above.
        ahead = (front.c.id == member("of_front"), front.c.state.concat("") == _PENDING)
        return [select(front.c.tries).where(*ahead).limit(1).scalar_subquery() == member("front_tries")]

    def behind(member: Callable[[str], Any]) -> list[Any]:
        due = DELIVERY.c.next_ms + literal_column("0")
        return [
            DELIVERY.c.job_id == member("of_job"),
            DELIVERY.c.endpoint_id == member("of_endpoint"),
            DELIVERY.c.event_seq > member("of_seq"),
            DELIVERY.c.state == _PENDING,
            DELIVERY.c.step == 0,
            due > member("at") if sooner else due < member("at"),
        ]

    found = select(DELIVERY.c.id).where(*behind(lambda name: rows.c[name])).correlate(rows)
    each = found.offset(literal_column("0")).lateral("each")
    joined = select(each.c.id, rows.c["at"]).select_from(rows.join(each, true()))
    those = joined.where(*still_so(lambda name: rows.c[name])).subquery("those")
    return Many(
        update(DELIVERY).where(*behind(bindparam), *still_so(bindparam)).values(next_ms=bindparam("at")),
        update(DELIVERY)
        .where(DELIVERY.c.id == those.c.id, _STILL_PENDING, DELIVERY.c.step == 0)
        .values(next_ms=those.c["at"]),
    )


RECORD = _record()
PUT_OFF, LET_GO = _behind(sooner=False), _behind(sooner=True)
#: In order, though nobody asks for it: that is what makes the planner take the index of what is due.
_WAITING = (
    select(DELIVERY.c.id)
    .where(DELIVERY.c.endpoint_id == bindparam("of_endpoint"), DELIVERY.c.state == _PENDING)
    .order_by(DELIVERY.c.next_ms)
)
HASTEN = Statement(
    update(DELIVERY)
    .where(
        DELIVERY.c.id.in_(_WAITING.where(DELIVERY.c.next_ms > bindparam("due"))),
        _STILL_PENDING,
    )
    .values(next_ms=DELIVERY.c.created_ms)
)
BURY = Statement(
    update(DELIVERY)
    .where(DELIVERY.c.id.in_(_WAITING.limit(bindparam("most"))), _STILL_PENDING)
    .values(state=DeliveryState.DEAD.value, completed_ms=bindparam("now"), error=bindparam("reason"))
)
BEGIN_ANEW = Statement(
    update(DELIVERY)
    .where(DELIVERY.c.id == bindparam("of_id"))
    .values(state=DeliveryState.PENDING.value, step=0, next_ms=bindparam("due"), completed_ms=null())
)
ONE = Statement(select(DELIVERY).where(DELIVERY.c.id == bindparam("of_id")))
TRIES = Statement(
    select(TRY).where(among(TRY.c.delivery_id, "ids")).order_by(TRY.c.delivery_id, TRY.c.number)
)
OLDEST_PENDING = Statement(
    select(func.min(DELIVERY.c.event_seq).label("seq")).where(DELIVERY.c.state == _PENDING)
)
