"""Work that is due: claimed for a while, renewed while a process lives, done or put off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, delete, func, null, select, tuple_, update

from service.domain.effects import Work
from service.storage.database import Tx
from service.storage.statements import Many, Statement, delete_many, insert_many, rows_of
from service.storage.tables import WorkRow, table

WORK = table(WorkRow)


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed piece of work."""

    job_id: str
    kind: Work
    number: int
    tries: int


_KEY = (
    WORK.c.job_id == bindparam("of_job"),
    WORK.c.kind == bindparam("of_kind"),
    WORK.c.number == bindparam("of_number"),
)
_KEY_MEMBERS = {"job_id": "of_job", "kind": "of_kind", "number": "of_number"}
_SCHEDULE = insert_many(
    WORK, unless=["job_id", "kind", "number"], instead=["queue", "due_ms", "tries", "claim"]
)
_DROP = delete_many(WORK, where=_KEY_MEMBERS)
_DROP_ALL = delete_many(WORK, where={"job_id": "of_job"})


def _hasten() -> Many:
    rows = rows_of(
        {**{member: WORK.c[name].type for name, member in _KEY_MEMBERS.items()}, "due": WORK.c.due_ms.type}
    )

    def made(member: Callable[[str], Any]) -> Any:
        same = [WORK.c[name] == member(named) for name, named in _KEY_MEMBERS.items()]
        later = (WORK.c.claim.is_(None), WORK.c.due_ms > member("due"))
        return update(WORK).where(*same, *later).values(due_ms=member("due"))

    return Many(made(bindparam), made(lambda name: rows.c[name]))


_HASTEN = _hasten()
_DONE = Statement(delete(WORK).where(*_KEY, WORK.c.claim == bindparam("mine")))
_PUT_OFF = Statement(
    update(WORK)
    .where(*_KEY, WORK.c.claim == bindparam("mine"))
    .values(due_ms=bindparam("due"), tries=WORK.c.tries + bindparam("more"), claim=null())
)


def _picked(*, locked: bool) -> Any:
    picked = (
        select(WORK.c.job_id, WORK.c.kind, WORK.c.number)
        .where(
            WORK.c.queue == bindparam("of_queue"),
            WORK.c.due_ms <= bindparam("now"),
        )
        .order_by(WORK.c.due_ms)
        .limit(bindparam("most"))
    )
    return picked.with_for_update(skip_locked=True) if locked else picked


def _claim(*, locked: bool) -> Statement:
    key = tuple_(WORK.c.job_id, WORK.c.kind, WORK.c.number)
    return Statement(
        update(WORK)
        .where(key.in_(_picked(locked=locked)))
        .values(claim=bindparam("mine"), due_ms=bindparam("until"))
        .returning(WORK.c.job_id, WORK.c.kind, WORK.c.number, WORK.c.tries)
    )


def _held(*, locked: bool) -> Statement:
    """What we hold. A row that another transaction is just deleting is passed over: waiting for it could deadlock."""
    key = tuple_(WORK.c.job_id, WORK.c.kind, WORK.c.number)
    held = select(WORK.c.job_id, WORK.c.kind, WORK.c.number).where(WORK.c.claim == bindparam("mine"))
    picked = held.with_for_update(skip_locked=True) if locked else held
    return Statement(update(WORK).where(key.in_(picked)).values(due_ms=bindparam("until")))


_CLAIM = {"sqlite": _claim(locked=False), "postgresql": _claim(locked=True)}
_RENEW = {"sqlite": _held(locked=False), "postgresql": _held(locked=True)}
_RELEASE = Statement(
    update(WORK).where(WORK.c.claim == bindparam("mine")).values(due_ms=bindparam("now"), claim=null())
)
_NEXT = Statement(
    select(func.min(WORK.c.due_ms).label("due_ms")).where(WORK.c.queue == bindparam("of_queue"))
)
_COUNTS = Statement(
    select(
        WORK.c.kind,
        func.count().label("waiting"),
        func.sum(case((WORK.c.due_ms <= bindparam("now"), 1), else_=0)).label("due"),
    ).group_by(WORK.c.kind)
)


def _queues(kind: Work) -> tuple[str, str]:
    """Normal before low."""
    return kind.value, f"{kind.value}.low"


def _key(job_id: str, kind: Work, number: int) -> dict[str, Any]:
    return {"of_job": job_id, "of_kind": kind.value, "of_number": number}


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Work to be written: what, for which attempt, when."""

    job_id: str
    kind: Work
    number: int
    due_ms: int
    #: Of a job of low priority.
    low: bool = False


def schedule(tx: Tx, items: Sequence[Scheduled]) -> None:
    """This function will write work, replacing what was scheduled for the same key; a claim on it is void then."""
    tx.run_later(
        _SCHEDULE,
        [
            {
                "job_id": item.job_id,
                "kind": item.kind.value,
                "number": item.number,
                "queue": _queues(item.kind)[item.low],
                "due_ms": item.due_ms,
                "tries": 0,
                "claim": None,
            }
            for item in items
        ],
    )


def hasten(tx: Tx, items: Sequence[tuple[str, Work, int, int]]) -> int:
    """This function will bring unclaimed work forward to a time (job, kind, number, due_ms); never back."""
    return tx.run_many(_HASTEN, [{**_key(job, kind, number), "due": due} for job, kind, number, due in items])


def drop(tx: Tx, items: Sequence[tuple[str, Work, int]]) -> None:
    """This function will delete work, claimed or not."""
    tx.run_later(_DROP, [_key(*item) for item in items])


def drop_all(tx: Tx, job_ids: Sequence[str]) -> None:
    """This function will delete all work of jobs."""
    tx.run_later(_DROP_ALL, [{"of_job": job_id} for job_id in job_ids])


def claim(tx: Tx, *, kind: Work, mine: str, lease_ms: int, most: int) -> list[Due]:
    """This function will take up to `most` due rows of one kind for `lease_ms`; nobody else gets them meanwhile."""
    now = tx.clock_ms()
    taken: list[Due] = []
    for queue in _queues(kind):
        rows = tx.rows(
            _CLAIM[tx.dialect],
            of_queue=queue,
            now=now,
            most=most - len(taken),
            mine=mine,
            until=now + lease_ms,
        )
        taken += [Due(row["job_id"], Work(row["kind"]), row["number"], row["tries"]) for row in rows]
        if len(taken) >= most:
            break
    return taken


def done(tx: Tx, due: Due, *, mine: str) -> bool:
    """This function will delete work that we still hold; False when somebody else has it or it was rescheduled."""
    return tx.run(_DONE, **_key(due.job_id, due.kind, due.number), mine=mine) > 0


def put_off(tx: Tx, due: Due, *, mine: str, due_ms: int, counts: bool = True) -> bool:
    """This function will give back work that we still hold, to be done later."""
    return (
        tx.run(
            _PUT_OFF, **_key(due.job_id, due.kind, due.number), mine=mine, due=due_ms, more=1 if counts else 0
        )
        > 0
    )


def renew(tx: Tx, *, mine: str, lease_ms: int) -> int:
    """This function will hold everything that we claimed for another `lease_ms`."""
    return tx.run(_RENEW[tx.dialect], mine=mine, until=tx.clock_ms() + lease_ms)


def release(tx: Tx, *, mine: str) -> int:
    """This function will give back everything that we still hold, due at once."""
    return tx.run(_RELEASE, mine=mine, now=tx.clock_ms())


def next_due_ms(tx: Tx, kind: Work) -> int | None:
    """This function will tell when the next work of a kind is due (a lease's end counts, too)."""
    dues = [row["due_ms"] for queue in _queues(kind) for row in tx.rows(_NEXT, of_queue=queue)]
    return min((due for due in dues if due is not None), default=None)


def counts(tx: Tx, *, now_ms: int) -> dict[str, tuple[int, int]]:
    """This function will count work by kind: all of it, and what is due."""
    return {row["kind"]: (int(row["waiting"]), int(row["due"] or 0)) for row in tx.rows(_COUNTS, now=now_ms)}
