"""The stream of events as readers see it: pages behind a cursor, the newest of all tenants, and what is pruned.

Rule: a page and the word on whether its cursor is still good come from one snapshot, or a reader that is overtaken by
the pruning would miss events without hearing of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from service.storage import events
from service.storage.database import Tx
from service.storage.events import COUNTER, EVENT, Event
from service.storage.statements import Statement, among

#: Where pruning goes on; with a tenant's name behind it: the newest event of that tenant that is pruned.
PRUNED = "pruned_seq"

_VALUES = Statement(select(COUNTER.c.name, COUNTER.c.value).where(among(COUNTER.c.name, "names")))
_HOLD_PRUNING = Statement(select(COUNTER.c.value).where(COUNTER.c.name == PRUNED).with_for_update(read=True))
_COLUMNS = [column for column in EVENT.c if column.name != "position"]
_NEWER = Statement(
    select(*_COLUMNS).where(EVENT.c.seq > bindparam("after")).order_by(EVENT.c.seq).limit(bindparam("most"))
)
_OF_JOB = Statement(
    select(*_COLUMNS)
    .where(
        EVENT.c.job_id == bindparam("of_job"),
        EVENT.c.tenant == bindparam("of_tenant"),
        EVENT.c.seq > bindparam("after"),
    )
    .order_by(EVENT.c.job_seq)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Page:
    """Events behind a cursor, where to go on, and up to where the tenant's events are pruned."""

    events: list[Event]
    following: int
    pruned: int


def page(
    tx: Tx,
    *,
    tenant: str,
    after: int,
    most: int,
    types: Sequence[str] | None = None,
    job_id: str | None = None,
) -> Page:
    """This function will read a tenant's events behind a cursor, in commit order, as one snapshot.

    A page that is not full goes on behind the newest event of all: nothing up to there was left out.
    """
    own = f"{PRUNED}/{tenant}"
    known = values_of(tx, [own, events.SEQ])
    pruned, latest = known[own], known[events.SEQ]
    if job_id is None:
        found = events.feed(tx, tenant=tenant, after=after, most=most, types=types)
        full = len(found) >= most
    else:
        rows = tx.rows(_OF_JOB, of_job=job_id, of_tenant=tenant, after=after, most=most)
        full = len(rows) >= most
        found = [Event(**row) for row in rows]
    following = found[-1].seq if full else max(after, latest)
    if job_id is not None and types is not None:
        found = [event for event in found if event.type in types]
    return Page(found, following, pruned)


def newest(tx: Tx, *, after: int, most: int) -> list[Event]:
    """This function will read the events of all tenants behind a number, in commit order."""
    return [Event(**row) for row in tx.rows(_NEWER, after=after, most=most)]


def pruned_seq(tx: Tx, tenant: str) -> int:
    """This function will tell the number of a tenant's newest pruned event; a cursor below it has missed something."""
    name = f"{PRUNED}/{tenant}"
    return values_of(tx, [name])[name]


def hold_pruning(tx: Tx) -> None:
    """This function will wait until nobody prunes events, and keep it so until the commit."""
    if tx.dialect == "postgresql":
        tx.rows(_HOLD_PRUNING)


def values_of(tx: Tx, names: Sequence[str]) -> dict[str, int]:
    """This function will read counters; 0 for one that is not there."""
    rows = tx.rows(_VALUES, names=list(names))
    return dict.fromkeys(names, 0) | {row["name"]: int(row["value"]) for row in rows}
