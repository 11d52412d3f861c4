"""Deliveries: written by the fan-out, sent in the order of each job, recorded in sets.

Rule 1: of one job and endpoint only the oldest pending delivery is given out; those behind it wait for its end.
Rule 2: those behind it are due with it when it is put off, and at once when it ends: so nobody who looks for what
is due reads again and again what cannot go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, literal_column, select

from service.domain.endpoint import Delivery, DeliveryState, Try
from service.storage import delivery_statements as sql
from service.storage.database import Tx
from service.storage.delivery_statements import DELIVERY, EVENT
from service.storage.events import Event
from service.storage.statements import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class ToSend:
    """A delivery that may go now, with its event."""

    delivery: Delivery
    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """What a list is narrowed to."""

    endpoint_id: str | None = None
    state: str | None = None
    event_id: str | None = None
    job_id: str | None = None


def insert(tx: Tx, deliveries: Sequence[Delivery]) -> None:
    """This function will write new deliveries; where an endpoint has one of the event, that stays as it is."""
    tx.run_later(sql.INSERT, [_values(each) for each in deliveries])


def reopen(tx: Tx, deliveries: Sequence[Delivery]) -> None:
    """This function will write new deliveries; where an endpoint has one of the event, that begins anew."""
    tx.run_later(sql.REOPEN, [_values(each) for each in deliveries])


def sendable(tx: Tx, *, endpoint_id: str, now_ms: int, most: int) -> list[ToSend]:
    """This function will read what may be sent to an endpoint now: the oldest of each job, those due longest first.

    What is on its way is among them until it is recorded.
    """
    return [
        _to_send(row)
        for row in tx.rows(sql.SENDABLE[tx.dialect], of_endpoint=endpoint_id, now=now_ms, most=most)
    ]


def next_ms(tx: Tx, endpoint_id: str) -> int | None:
    """This function will tell when an endpoint's next delivery is due, those that no other keeps back alone."""
    rows = tx.rows(sql.NEXT, of_endpoint=endpoint_id)
    return int(rows[0]["next_ms"]) if rows else None


def record(tx: Tx, results: Sequence[tuple[Delivery, Try]]) -> None:
    """This function will write deliveries as they are after a try each, and the tries.

    One that somebody else has recorded meanwhile stays as he left it: the number of its tries tells.
    """
    tx.run_later(sql.RECORD, [_recorded(delivery) for delivery, _ in results])
    tx.run_later(
        sql.INSERT_TRY, [{name: getattr(made, name) for name in Try.__slots__} for _, made in results]
    )
    again = [delivery for delivery, _ in results if delivery.job_id is not None]
    put_off = [each for each in again if each.state is DeliveryState.PENDING]
    # What ended with its first try had put off nobody.
    ended = [each for each in again if each.state is not DeliveryState.PENDING and each.tries > 1]
    tx.run_later(
        sql.PUT_OFF,
        [
            {**_row_behind(each, each.next_ms), "of_front": each.id, "front_tries": each.tries}
            for each in put_off
        ],
    )
    tx.run_later(sql.LET_GO, [_row_behind(each, each.completed_ms or 0) for each in ended])


def hasten(tx: Tx, endpoint_id: str, *, due_ms: int) -> int:
    """This function will make everything due that waits for an endpoint longer than till `due_ms`.

    It is as if it had not been tried, so that all goes in the order in which it came.
    """
    return tx.run(sql.HASTEN, of_endpoint=endpoint_id, due=due_ms)


def bury_pending(tx: Tx, endpoint_id: str, *, reason: str, now_ms: int, most: int = 10_000) -> int:
    """This function will give up what waits for an endpoint, up to `most`, and tell how many they were."""
    return tx.run(sql.BURY, of_endpoint=endpoint_id, reason=reason, now=now_ms, most=most)


def one(tx: Tx, delivery_id: str) -> Delivery | None:
    """This function will find one delivery, whosever it is."""
    rows = tx.rows(sql.ONE, of_id=delivery_id)
    return _delivery(rows[0]) if rows else None


def retry(tx: Tx, delivery_id: str, *, due_ms: int) -> bool:
    """This function will make a delivery due at a time, its whole schedule before it, however it had ended."""
    return tx.run(sql.BEGIN_ANEW, of_id=delivery_id, due=due_ms) > 0


def listed(tx: Tx, *, tenant: str, filters: Filters, before_id: str | None, most: int) -> list[Delivery]:
    """This function will list a tenant's deliveries that fit all filters, newest first.

    :raises ValueError: if there is no such state.
    """
    state = None if filters.state is None else DeliveryState(filters.state)
    query = select(DELIVERY).order_by(DELIVERY.c.id.desc())
    if filters.event_id is not None or filters.job_id is not None:
        # They are few, and named by nothing else, so that only their own index can find them.
        told = select(EVENT.c.id).where(EVENT.c.job_id == filters.job_id)
        one_of = DELIVERY.c.event_id.in_(told) if filters.event_id is None else _event_is(filters.event_id)
        rows = tx.rows(query.where(one_of))
    else:
        narrowed = _narrowed(query, tenant, filters.endpoint_id, state, before_id)
        rows = tx.rows(narrowed.limit(most))
    found = [_delivery(row) for row in rows]
    return [each for each in found if _fits(each, tenant, filters, state, before_id)][:most]


def _event_is(event_id: str) -> ColumnElement[bool]:
    return DELIVERY.c.event_id == event_id


def _narrowed(
    query: Select[Any],
    tenant: str,
    endpoint_id: str | None,
    state: DeliveryState | None,
    before_id: str | None,
) -> Select[Any]:
    """By one index: of the dead of a tenant, of all of an endpoint (which is one tenant's), or of all of a tenant."""
    if before_id is not None:
        query = query.where(DELIVERY.c.id < before_id)
    if state is not None:
        query = query.where(DELIVERY.c.state == literal_column(f"'{state.value}'"))
    if endpoint_id is None:
        return query.where(DELIVERY.c.tenant == tenant)
    if state is DeliveryState.DEAD:
        # Not the endpoint's index, in which they stand among all that succeeded.
        return query.where(DELIVERY.c.tenant == tenant, DELIVERY.c.endpoint_id.concat("") == endpoint_id)
    return query.where(DELIVERY.c.endpoint_id == endpoint_id)


def _fits(
    delivery: Delivery, tenant: str, filters: Filters, state: DeliveryState | None, before_id: str | None
) -> bool:
    return (
        delivery.tenant == tenant
        and (filters.endpoint_id is None or delivery.endpoint_id == filters.endpoint_id)
        and (filters.job_id is None or delivery.job_id == filters.job_id)
        and (state is None or delivery.state is state)
        and (before_id is None or delivery.id < before_id)
    )


def tries_of(tx: Tx, delivery_ids: Sequence[str]) -> dict[str, list[Try]]:
    """This function will read the tries of deliveries, oldest first."""
    found: dict[str, list[Try]] = {delivery_id: [] for delivery_id in delivery_ids}
    for row in tx.rows(sql.TRIES, ids=list(delivery_ids)):
        found[row["delivery_id"]].append(Try(**row))
    return found


def oldest_pending_seq(tx: Tx) -> int | None:
    """This function will tell the smallest `seq` of an event that some endpoint still waits for."""
    seq: int | None = tx.rows(sql.OLDEST_PENDING)[0]["seq"]
    return seq


def _values(delivery: Delivery) -> dict[str, Any]:
    return {**{name: getattr(delivery, name) for name in sql.COLUMNS}, "state": delivery.state.value}


def _recorded(delivery: Delivery) -> dict[str, Any]:
    return {
        **{name: getattr(delivery, name) for name in sql.RECORDED},
        "state": delivery.state.value,
        "of_id": delivery.id,
        "seen_tries": delivery.tries - 1,
    }


def _row_behind(delivery: Delivery, at_ms: int) -> dict[str, Any]:
    return {
        "of_job": delivery.job_id,
        "of_endpoint": delivery.endpoint_id,
        "of_seq": delivery.event_seq,
        "at": at_ms,
    }


def _delivery(row: Row) -> Delivery:
    return Delivery(**{**row, "state": DeliveryState(row["state"])})


def _to_send(row: Row) -> ToSend:
    delivery = _delivery({name: row[name] for name in sql.COLUMNS})
    event = Event(
        id=delivery.event_id,
        tenant=delivery.tenant,
        type=delivery.event_type,
        job_id=delivery.job_id,
        job_seq=row["job_seq"],
        at_ms=row["at_ms"],
        data=row["data"],
        seq=delivery.event_seq,
    )
    return ToSend(delivery=delivery, event=event)
