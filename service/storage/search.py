"""Lists of jobs by what callers filter for, newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select

from service.storage.database import Tx
from service.storage.jobs import JOB, TAG, Stored, load


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a list is narrowed to; times are milliseconds, `created_after` and `created_before` exclusive."""

    tenant: str
    states: Sequence[str] = ()
    provider: str | None = None
    model: str | None = None
    created_after_ms: int | None = None
    created_before_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def jobs(tx: Tx, filters: Filters, *, before_id: str | None, most: int) -> list[Stored]:
    """This function will list jobs older than `before_id` that fit all filters, newest first."""
    query = select(JOB.c.id).where(JOB.c.tenant == filters.tenant)
    if before_id is not None:
        query = query.where(JOB.c.id < before_id)
    if filters.states:
        query = query.where(JOB.c.state.in_(filters.states))
    if filters.provider is not None:
        query = query.where(JOB.c.provider == filters.provider)
    if filters.model is not None:
        query = query.where(JOB.c.model == filters.model)
    if filters.created_after_ms is not None:
        query = query.where(JOB.c.created_ms > filters.created_after_ms)
    if filters.created_before_ms is not None:
        query = query.where(JOB.c.created_ms < filters.created_before_ms)
    for key, value in filters.metadata.items():
        found = select(TAG.c.job_id).where(
            TAG.c.tenant == filters.tenant, TAG.c.key == key, TAG.c.value == value
        )
        query = query.where(JOB.c.id.in_(found))
    ids = [row["id"] for row in tx.rows(query.order_by(JOB.c.id.desc()).limit(most))]
    found_jobs = load(tx, ids)
    return [found_jobs[job_id] for job_id in ids]


def open_by_state(tx: Tx) -> dict[tuple[str, str], int]:
    """This function will count the jobs that are not final, by provider and state."""
    query = (
        select(JOB.c.provider, JOB.c.state, func.count().label("jobs"))
        .where(JOB.c.completed_ms.is_(None))
        .group_by(JOB.c.provider, JOB.c.state)
    )
    return {(row["provider"], row["state"]): int(row["jobs"]) for row in tx.rows(query)}
