"""Idempotency keys: a unique constraint decides who was first, never a look before the insert."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from service.storage.database import Tx
from service.storage.statements import Row, Statement, among, insert_many
from service.storage.tables import IdempotencyRow, table

IDEMPOTENCY = table(IdempotencyRow)
_INSERT = insert_many(IDEMPOTENCY)
_INSERT_UNLESS_THERE = insert_many(IDEMPOTENCY, unless=["tenant", "key"])
_FIND = Statement(
    select(IDEMPOTENCY.c.tenant, IDEMPOTENCY.c.key, IDEMPOTENCY.c.job_id, IDEMPOTENCY.c.body_hash).where(
        among(IDEMPOTENCY.c.tenant, "tenants"), among(IDEMPOTENCY.c.key, "keys")
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A key with the body and the job that it shall stand for."""

    tenant: str
    key: str
    body_hash: str
    job_id: str
    created_ms: int


def take(tx: Tx, claimed: Sequence[Claimed]) -> dict[tuple[str, str], Row]:
    """This function will take keys for jobs and return who holds each key now, by tenant and key.

    A concurrent request with the same key waits here for the other's commit. Keys must come in a fixed order, so
    that two sets of requests cannot wait for each other.
    """
    if not claimed:
        return {}
    rows = [{name: getattr(item, name) for name in Claimed.__slots__} for item in claimed]
    ours = {(row["tenant"], row["key"]): row for row in rows}
    if not tx.cautious and len(ours) == len(rows):
        # As nearly always nobody was there before. If somebody was, nothing is committed and this runs again.
        tx.run_later(_INSERT, rows)
        return ours
    if tx.run_many(_INSERT_UNLESS_THERE, rows) == len(rows):
        return ours
    tenants = sorted({item.tenant for item in claimed})
    rows = tx.rows(_FIND, tenants=tenants, keys=sorted({item.key for item in claimed}))
    return {(row["tenant"], row["key"]): row for row in rows}


def is_taken(tx: Tx, *, tenant: str, key: str) -> bool:
    """This function will tell whether a key stands for a job already."""
    return bool(tx.rows(_FIND, tenants=[tenant], keys=[key]))
