"""Where each broker sink stands in the stream, and which process feeds it now.

A sink is a row by name: the number of the last event that its broker confirmed, a lease, and what is wrong with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, null, or_, select, update

from service.storage import events
from service.storage.database import Tx
from service.storage.endpoint_tables import SinkRow
from service.storage.events import EVENT, Event
from service.storage.statements import Statement, among, insert_many
from service.storage.tables import table

SINK = table(SinkRow)

_MAKE = insert_many(SINK, ["name", "seq", "claim", "until_ms"], unless=["name"])
_CLAIM = Statement(
    update(SINK)
    .where(
        SINK.c.name == bindparam("of_name"),
        or_(SINK.c.claim.is_(None), SINK.c.claim == bindparam("mine"), SINK.c.until_ms <= bindparam("now")),
    )
    .values(claim=bindparam("mine"), until_ms=bindparam("until"))
    .returning(SINK.c.seq, SINK.c.trouble)
)
_MINE = (SINK.c.name == bindparam("of_name"), SINK.c.claim == bindparam("mine"))
_RENEW = Statement(update(SINK).where(*_MINE).values(until_ms=bindparam("until")))
_MOVE = Statement(
    update(SINK)
    .where(*_MINE)
    .values(seq=bindparam("to_seq"), until_ms=bindparam("until"), trouble=null(), trouble_since_ms=null())
)
_RELEASE = Statement(update(SINK).where(*_MINE).values(claim=null(), until_ms=bindparam("now")))
_GIVE_UP = Statement(
    update(SINK)
    .where(*_MINE)
    .values(
        claim=null(),
        until_ms=bindparam("now"),
        trouble=bindparam("kind"),
        trouble_since_ms=bindparam("since"),
    )
)
_EVENTS = Statement(
    select(*[column for column in EVENT.c if column.name != "position"])
    .where(EVENT.c.seq > bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(bindparam("most"))
)
_EVENT_ID = Statement(select(EVENT.c.id).where(EVENT.c.seq == bindparam("of_seq")))
_OLDEST = Statement(select(EVENT.c.seq).where(EVENT.c.seq > 0).order_by(EVENT.c.seq).limit(1))
_STANDING = Statement(
    select(SINK.c.name, SINK.c.seq, SINK.c.trouble, SINK.c.trouble_since_ms).where(
        among(SINK.c.name, "names")
    )
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A sink that is ours for a while: where its cursor stands, and what was wrong when it was last given up."""

    seq: int
    trouble: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One sink for operators: how many kept events it has still to publish, and since when it cannot."""

    name: str
    lag: int
    trouble: str | None
    trouble_since_ms: int | None


def claim(tx: Tx, name: str, *, mine: str, lease_ms: int) -> Claimed | None:
    """This function will take a sink for `lease_ms`, making its row where there is none; None: another has it."""
    now = tx.clock_ms()
    rows = tx.rows(_CLAIM, of_name=name, mine=mine, now=now, until=now + lease_ms)
    if not rows and tx.run_many(_MAKE, [{"name": name, "seq": 0, "claim": None, "until_ms": now}]):
        rows = tx.rows(_CLAIM, of_name=name, mine=mine, now=now, until=now + lease_ms)
    return Claimed(rows[0]["seq"], rows[0]["trouble"]) if rows else None


def renew(tx: Tx, name: str, *, mine: str, lease_ms: int) -> bool:
    """This function will hold a sink for another `lease_ms`; False when it is no longer ours."""
    return tx.run(_RENEW, of_name=name, mine=mine, until=tx.clock_ms() + lease_ms) > 0


def move(tx: Tx, name: str, *, mine: str, seq: int, lease_ms: int) -> bool:
    """This function will store the cursor, and that all is well; False when the sink is no longer ours."""
    return tx.run(_MOVE, of_name=name, mine=mine, to_seq=seq, until=tx.clock_ms() + lease_ms) > 0


def release(tx: Tx, name: str, *, mine: str) -> None:
    """This function will give a sink back; `until_ms` keeps when it was last somebody's."""
    tx.run(_RELEASE, of_name=name, mine=mine, now=tx.clock_ms())


def give_up(tx: Tx, name: str, *, mine: str, kind: str, since_ms: int) -> None:
    """This function will give a sink back and say what is wrong with it, and since when."""
    tx.run(_GIVE_UP, of_name=name, mine=mine, now=tx.clock_ms(), kind=kind, since=since_ms)


def events_after(tx: Tx, seq: int, *, most: int) -> list[Event]:
    """This function will read the events of all tenants behind a number, in commit order."""
    return [Event(**row) for row in tx.rows(_EVENTS, after=seq, most=most)]


def event_id(tx: Tx, seq: int) -> str | None:
    """This function will tell the id of the event with a number; None when it is not kept (any more)."""
    rows = tx.rows(_EVENT_ID, of_seq=seq)
    return str(rows[0]["id"]) if rows else None


def standing(tx: Tx, names: Sequence[str]) -> list[Standing]:
    """This function will tell where sinks stand; one that no process ever began stands before all that is kept."""
    if not names:
        return []
    rows = {row["name"]: row for row in tx.rows(_STANDING, names=list(names))}
    latest, oldest = events.latest_seq(tx), tx.rows(_OLDEST)
    before = oldest[0]["seq"] - 1 if oldest else latest
    found = []
    for name in names:
        row = rows.get(name) or {"seq": 0, "trouble": None, "trouble_since_ms": None}
        lag = max(0, latest - max(row["seq"], before))
        found.append(
            Standing(name=name, lag=lag, trouble=row["trouble"], trouble_since_ms=row["trouble_since_ms"])
        )
    return found
