"""What the URLs of a tenant's jobs are signed with: sealed, made when first needed, rotated with an overlap."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, null, select
from sqlalchemy.dialects import postgresql

from service.storage.database import Tx
from service.storage.endpoint_tables import TenantSecretRow
from service.storage.statements import Statement, insert_many
from service.storage.tables import table

SECRET = table(TenantSecretRow)
_NAMES = [column.name for column in SECRET.c]
_ENSURE = insert_many(SECRET, unless=["tenant"])
_ONE = Statement(select(SECRET).where(SECRET.c.tenant == bindparam("of_tenant")))


def _rotate() -> Statement:
    fresh: Any = postgresql.insert(SECRET).values(
        {name: bindparam(name, type_=SECRET.c[name].type) for name in _NAMES if name != "previous_until_ms"}
    )
    until = bindparam("until", type_=SECRET.c.previous_until_ms.type)
    return Statement(
        fresh.on_conflict_do_update(
            index_elements=["tenant"],
            set_={
                "secret": fresh.excluded.secret,
                "previous_secret": case((until.is_(None), null()), else_=SECRET.c.secret),
                "previous_until_ms": until,
                "updated_ms": fresh.excluded.updated_ms,
            },
        ).returning(SECRET)
    )


_ROTATE = _rotate()


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantSecret:
    """A tenant's secret for its jobs' URLs, sealed; until `previous_until_ms` the previous one signs, too."""

    tenant: str
    secret: str
    created_ms: int
    updated_ms: int
    previous_secret: str | None = None
    previous_until_ms: int | None = None


def one(tx: Tx, tenant: str) -> TenantSecret | None:
    """This function will read the secret of a tenant, if it has one."""
    rows = tx.rows(_ONE, of_tenant=tenant)
    return TenantSecret(**rows[0]) if rows else None


def ensure(tx: Tx, *, tenant: str, sealed: str, now_ms: int) -> None:
    """This function will give a tenant a secret, unless it has one."""
    fresh = TenantSecret(tenant=tenant, secret=sealed, created_ms=now_ms, updated_ms=now_ms)
    tx.run_later(_ENSURE, [{name: getattr(fresh, name) for name in _NAMES}])


def rotate(tx: Tx, *, tenant: str, sealed: str, now_ms: int, until_ms: int | None) -> TenantSecret:
    """This function will give a tenant a new secret; the one it had signs until `until_ms`, or no more with None."""
    rows = tx.rows(
        _ROTATE,
        tenant=tenant,
        secret=sealed,
        previous_secret=None,
        created_ms=now_ms,
        updated_ms=now_ms,
        until=until_ms,
    )
    return TenantSecret(**rows[0])
