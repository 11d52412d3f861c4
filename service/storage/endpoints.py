"""Endpoints: written, found, and claimed while they have something to send.

The endpoint is the unit of claim: who holds it sends its deliveries, so that order, concurrency and rate are one
process's own affair. A wake-up that comes while it is held is kept beside the lease (`woken_ms`) and counts when
the endpoint is given back.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import bindparam, case, delete, func, null, or_, select, update

from service.domain.endpoint import Endpoint, EndpointState
from service.storage import events
from service.storage.database import Tx, WriteConflict
from service.storage.endpoint_rows import changed, endpoint_of, inserted, job_key_of
from service.storage.endpoint_tables import DeliveryRow, EndpointRow
from service.storage.statements import Many, Statement, among, insert_many, rows_of, update_many
from service.storage.tables import table

ENDPOINT = table(EndpointRow)
DELIVERY = table(DeliveryRow)

_FIXED = ("id", "tenant", "job_key", "created_ms")
_HELD = ("due_ms", "woken_ms", "claim")
_MUTABLE = [column.name for column in ENDPOINT.c if column.name not in {*_FIXED, *_HELD}]
_SHOWN = [column for column in ENDPOINT.c if column.name not in {"woken_ms", "claim"}]
_INSERT = insert_many(ENDPOINT)
_ENSURE = insert_many(ENDPOINT, unless=["tenant", "job_key"])
_UPDATE = update_many(ENDPOINT, _MUTABLE, where={"id": "of_id", "version": "seen_version"})
_BY_IDS = select(*_SHOWN).where(among(ENDPOINT.c.id, "ids")).order_by(ENDPOINT.c.id)
_LOAD = Statement(_BY_IDS)
_LOAD_TO_CHANGE = Statement(_BY_IDS.with_for_update())
_LISTED = (
    select(*_SHOWN)
    .where(ENDPOINT.c.tenant == bindparam("of_tenant"), ENDPOINT.c.job_key.is_(None))
    .order_by(ENDPOINT.c.id.desc())
    .limit(bindparam("most"))
)
_NEWEST = Statement(_LISTED)
_NEWEST_BEFORE = Statement(_LISTED.where(ENDPOINT.c.id < bindparam("before")))
_ACTIVE = Statement(
    select(*_SHOWN)
    .where(
        among(ENDPOINT.c.tenant, "tenants"),
        ENDPOINT.c.job_key.is_(None),
        ENDPOINT.c.state != EndpointState.DISABLED.value,
    )
    .order_by(ENDPOINT.c.tenant, ENDPOINT.c.id)
)
_OF_JOBS = Statement(
    select(*_SHOWN)
    .where(among(ENDPOINT.c.tenant, "tenants"), among(ENDPOINT.c.job_key, "keys"))
    .order_by(ENDPOINT.c.id)
)
_DELETE = Statement(delete(ENDPOINT).where(ENDPOINT.c.id == bindparam("of_id")))
_REPLAYING = Statement(
    select(*_SHOWN)
    .where(ENDPOINT.c.replay_until.is_not(None))
    .order_by(ENDPOINT.c.id)
    .limit(bindparam("most"))
)
_OLDEST = Statement(
    select(ENDPOINT.c.id, ENDPOINT.c.job_key, ENDPOINT.c.due_ms, ENDPOINT.c.created_ms)
    .where(ENDPOINT.c.id > bindparam("after"))
    .order_by(ENDPOINT.c.id)
    .limit(bindparam("most"))
)
_DELETE_UNUSED = Statement(
    delete(ENDPOINT).where(
        among(ENDPOINT.c.id, "ids"),
        ENDPOINT.c.due_ms.is_(None),
        ~select(DELIVERY.c.id).where(DELIVERY.c.endpoint_id == ENDPOINT.c.id).exists(),
    )
)


def insert(tx: Tx, endpoint: Endpoint) -> None:
    """This function will write a new endpoint."""
    tx.run_later(_INSERT, [inserted(endpoint)])


def load(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> dict[str, Endpoint]:
    """This function will read endpoints by their ids, and hold them for a change when told to."""
    rows = tx.rows(_LOAD_TO_CHANGE if lock and tx.dialect == "postgresql" else _LOAD, ids=list(ids))
    return {row["id"]: endpoint_of(row) for row in rows}


def one(tx: Tx, *, tenant: str, endpoint_id: str, lock: bool = False) -> Endpoint | None:
    """This function will find one endpoint of a tenant; those that are made for jobs are nobody's to see."""
    found = load(tx, [endpoint_id], lock=lock).get(endpoint_id)
    return found if found is not None and found.tenant == tenant and not found.for_jobs else None


def listed(tx: Tx, *, tenant: str, before_id: str | None, most: int) -> list[Endpoint]:
    """This function will list a tenant's endpoints, newest first, without those made for jobs."""
    if before_id is None:
        rows = tx.rows(_NEWEST, of_tenant=tenant, most=most)
    else:
        rows = tx.rows(_NEWEST_BEFORE, of_tenant=tenant, most=most, before=before_id)
    return [endpoint_of(row) for row in rows]


def active_of(tx: Tx, tenants: Sequence[str]) -> list[Endpoint]:
    """This function will read the endpoints of tenants that deliveries are made for: paused ones, too."""
    return [endpoint_of(row) for row in tx.rows(_ACTIVE, tenants=list(tenants))]


def replaying(tx: Tx, *, most: int) -> list[Endpoint]:
    """This function will read endpoints that are to be sent old events again."""
    return [endpoint_of(row) for row in tx.rows(_REPLAYING, most=most)]


def ensure_for_jobs(tx: Tx, wanted: Sequence[Endpoint]) -> dict[tuple[str, str], Endpoint]:
    """This function will give the endpoints of jobs' URLs by tenant and URL, making those that are not there yet.

    Each of `wanted` is what would be made. Disabled ones are given, too.
    """
    if not wanted:
        return {}
    found = _for_jobs(tx, wanted)
    missing = [each for each in wanted if (each.tenant, each.url) not in found]
    if missing:
        # In one order everywhere: who inserts the same in another order would wait for us, and we for him.
        missing.sort(key=lambda each: (each.tenant, job_key_of(each.url)))
        tx.run_many(_ENSURE, [inserted(each) for each in missing])
        found = _for_jobs(tx, wanted)
    return found


def _for_jobs(tx: Tx, wanted: Sequence[Endpoint]) -> dict[tuple[str, str], Endpoint]:
    tenants = sorted({each.tenant for each in wanted})
    keys = sorted({job_key_of(each.url) for each in wanted})
    asked = {(each.tenant, each.url) for each in wanted}
    rows = tx.rows(_OF_JOBS, tenants=tenants, keys=keys)
    return {key: endpoint_of(row) for row in rows if (key := (row["tenant"], row["url"])) in asked}


def save_many(tx: Tx, endpoints: Sequence[Endpoint]) -> None:
    """This function will write changed endpoints, each with the version that was read; the row's own counts on.

    What they are due for is left to `wake` and `give_back`.

    :raises WriteConflict: if one is gone or was changed by somebody else since it was read.
    """
    rows = [
        {**changed(each), "version": each.version + 1, "of_id": each.id, "seen_version": each.version}
        for each in endpoints
    ]
    if tx.run_many(_UPDATE, rows) != len(rows):
        raise WriteConflict("an endpoint is not as it was when it was read")


def remove(tx: Tx, endpoint_id: str) -> None:
    """This function will delete an endpoint; its deliveries stay as long as deliveries are kept."""
    tx.run(_DELETE, of_id=endpoint_id)


def prune_for_jobs(tx: Tx, *, after_id: str, before_ms: int, most: int) -> tuple[int, str | None]:
    """This function will delete, among the `most` oldest endpoints behind an id, those that were made for jobs before
    `before_ms` and that no delivery is kept of.

    Tells how many, and behind which id to go on (None: the rest is too young).
    """
    oldest = tx.rows(_OLDEST, after=after_id, most=most)
    old = list(takewhile(lambda row: row["created_ms"] < before_ms, oldest))
    ids = [row["id"] for row in old if row["job_key"] is not None and row["due_ms"] is None]
    deleted = 0
    if ids:
        # No delivery is written for one of them meanwhile; and most pages have none, and hold up nobody.
        events.hold_fan_out(tx)
        deleted = tx.run(_DELETE_UNUSED, ids=ids)
    return deleted, old[-1]["id"] if old and len(old) == most else None


def _woken() -> Many:
    rows = rows_of({"of_id": ENDPOINT.c.id.type, "at": ENDPOINT.c.due_ms.type})

    def made(endpoint_id: Any, at: Any) -> Any:
        patient = func.coalesce(ENDPOINT.c.not_before_ms, 0)
        when = case((patient > at, patient), else_=at)
        free, held = ENDPOINT.c.claim.is_(None), ENDPOINT.c.claim.is_not(None)
        sooner = or_(ENDPOINT.c.due_ms.is_(None), ENDPOINT.c.due_ms > when)
        unheard = or_(ENDPOINT.c.woken_ms.is_(None), ENDPOINT.c.woken_ms > at)
        return (
            update(ENDPOINT)
            .where(
                ENDPOINT.c.id == endpoint_id,
                ENDPOINT.c.state != EndpointState.DISABLED.value,
                or_(free & sooner, held & unheard),
            )
            .values(
                due_ms=case((free, when), else_=ENDPOINT.c.due_ms),
                woken_ms=case((held, at), else_=null()),
            )
        )

    return Many(made(bindparam("of_id"), bindparam("at")), made(rows.c.of_id, rows.c.at))


_WAKE = _woken()


def wake(tx: Tx, due: Mapping[str, int]) -> None:
    """This function will make endpoints due at a time, if they are not due sooner; never before `not_before_ms`.

    One that somebody holds is due then once he gives it back.
    """
    tx.run_later(_WAKE, [{"of_id": endpoint_id, "at": due[endpoint_id]} for endpoint_id in sorted(due)])


def _claim(*, locked: bool) -> Statement:
    picked = (
        select(ENDPOINT.c.id)
        .where(ENDPOINT.c.due_ms <= bindparam("now"))
        .order_by(ENDPOINT.c.due_ms)
        .limit(bindparam("most"))
    )
    chosen = picked.with_for_update(skip_locked=True) if locked else picked
    return Statement(
        update(ENDPOINT)
        .where(ENDPOINT.c.id.in_(chosen))
        .values(claim=bindparam("mine"), due_ms=bindparam("until"), woken_ms=null())
        .returning(*_SHOWN)
    )


#: Held in one order, and waited for: whoever sends to an endpoint changes its row all the time.
_HOLD = Statement(
    select(ENDPOINT.c.id)
    .where(ENDPOINT.c.claim == bindparam("mine"))
    .order_by(ENDPOINT.c.id)
    .with_for_update()
)
_RENEW = Statement(
    update(ENDPOINT).where(ENDPOINT.c.claim == bindparam("mine")).values(due_ms=bindparam("until"))
)
_CLAIM = {"sqlite": _claim(locked=False), "postgresql": _claim(locked=True)}
_MINE = Statement(select(ENDPOINT.c.id).where(ENDPOINT.c.claim == bindparam("mine")))
_RELEASE = Statement(
    update(ENDPOINT)
    .where(among(ENDPOINT.c.id, "ids"), ENDPOINT.c.claim == bindparam("mine"))
    .values(claim=null(), woken_ms=null(), due_ms=bindparam("now"))
)


def _give_back() -> Statement:
    due, now, patient = (bindparam(name, type_=ENDPOINT.c.due_ms.type) for name in ("due", "now", "patient"))
    # Not before now: who was woken early in a long turn would else be first in the row again and again.
    woken = case((ENDPOINT.c.woken_ms < now, now), else_=ENDPOINT.c.woken_ms)
    asked = func.coalesce(ENDPOINT.c.not_before_ms, 0)
    not_before = case((asked < patient, patient), else_=ENDPOINT.c.not_before_ms)
    woken = case((woken < func.coalesce(not_before, 0), not_before), else_=woken)
    sooner = case((ENDPOINT.c.woken_ms.is_(None), due), (or_(due.is_(None), due > woken), woken), else_=due)
    return Statement(
        update(ENDPOINT)
        .where(ENDPOINT.c.id == bindparam("of_id"), ENDPOINT.c.claim == bindparam("mine"))
        .values(
            claim=null(),
            woken_ms=null(),
            not_before_ms=not_before,
            due_ms=case((ENDPOINT.c.state == EndpointState.DISABLED.value, null()), else_=sooner),
        )
    )


_GIVE_BACK = _give_back()
_NEXT = Statement(select(func.min(ENDPOINT.c.due_ms).label("due_ms")).where(ENDPOINT.c.due_ms.is_not(None)))


def claim(tx: Tx, *, mine: str, lease_ms: int, most: int) -> list[Endpoint]:
    """This function will take up to `most` due endpoints for `lease_ms`, those that waited longest."""
    now = tx.clock_ms()
    rows = tx.rows(_CLAIM[tx.dialect], now=now, most=most, mine=mine, until=now + lease_ms)
    return [endpoint_of(row) for row in rows]


def renew(tx: Tx, *, mine: str, lease_ms: int) -> set[str]:
    """This function will hold everything that we claimed for another `lease_ms`, and tell what that is."""
    held = {row["id"] for row in tx.rows(_HOLD if tx.dialect == "postgresql" else _MINE, mine=mine)}
    if held:
        tx.run(_RENEW, mine=mine, until=tx.clock_ms() + lease_ms)
    return held


def release(tx: Tx, ids: Sequence[str], *, mine: str) -> int:
    """This function will give back endpoints that we still hold, due at once."""
    return tx.run(_RELEASE, ids=list(ids), mine=mine, now=tx.clock_ms())


def give_back(
    tx: Tx, endpoint_id: str, *, mine: str, due_ms: int | None, now_ms: int, patient_ms: int = 0
) -> bool:
    """This function will give back an endpoint, due at a time or, with None, when it is woken.

    Whoever woke it meanwhile is heard, and nobody wakes it before `patient_ms`. False when somebody else has it: our
    lease had ended.
    """
    given = {"mine": mine, "due": due_ms, "now": now_ms, "patient": patient_ms}
    return tx.run(_GIVE_BACK, of_id=endpoint_id, **given) > 0


def next_due_ms(tx: Tx) -> int | None:
    """This function will tell when the next endpoint is due (a lease's end counts, too)."""
    due: int | None = tx.rows(_NEXT)[0]["due_ms"]
    return due
