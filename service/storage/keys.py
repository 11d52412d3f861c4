"""API keys: made, listed, revoked, and found by the hash of their secret."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql

from service.storage.database import Tx
from service.storage.statements import Row, Statement, among
from service.storage.tables import ApiKeyRow, table

KEY = table(ApiKeyRow)
_INSERT = Statement(
    postgresql.insert(KEY)
    .values({column.name: bindparam(column.name) for column in KEY.c})
    .on_conflict_do_nothing(index_elements=["secret_hash"])
)
_ALL = Statement(select(KEY).order_by(KEY.c.id))
_BY_HASH = Statement(select(KEY).where(KEY.c.secret_hash == bindparam("of_hash"), KEY.c.revoked_ms.is_(None)))
_REVOKED_AMONG = Statement(select(KEY.c.id).where(among(KEY.c.id, "ids"), KEY.c.revoked_ms.is_not(None)))
_REVOKE = Statement(
    update(KEY)
    .where(KEY.c.id == bindparam("of_id"), KEY.c.revoked_ms.is_(None))
    .values(revoked_ms=bindparam("now"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key of one tenant, without its secret."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[str]
    created_ms: int
    revoked_ms: int | None = None


def insert(tx: Tx, key: ApiKey, *, secret_hash: str) -> bool:
    """This function will store a key; False when one with this secret is there already."""
    return (
        tx.run(
            _INSERT,
            id=key.id,
            tenant=key.tenant,
            name=key.name,
            secret_hash=secret_hash,
            scopes=" ".join(sorted(key.scopes)),
            created_ms=key.created_ms,
            revoked_ms=None,
        )
        > 0
    )


def all_keys(tx: Tx) -> list[ApiKey]:
    """This function will list every key, the oldest first, revoked ones too."""
    return [_key(row) for row in tx.rows(_ALL)]


def find(tx: Tx, secret_hash: str) -> ApiKey | None:
    """This function will find the valid key with this secret."""
    rows = tx.rows(_BY_HASH, of_hash=secret_hash)
    return _key(rows[0]) if rows else None


def revoked_among(tx: Tx, key_ids: Sequence[str]) -> set[str]:
    """This function will tell which of some keys are revoked."""
    return {row["id"] for row in tx.rows(_REVOKED_AMONG, ids=list(key_ids))}


def revoke(tx: Tx, key_id: str, *, now_ms: int) -> bool:
    """This function will end a key; False when there is no valid one with this id."""
    return tx.run(_REVOKE, of_id=key_id, now=now_ms) > 0


def _key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        scopes=frozenset(row["scopes"].split()),
        created_ms=row["created_ms"],
        revoked_ms=row["revoked_ms"],
    )
