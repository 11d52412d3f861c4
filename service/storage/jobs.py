"""Jobs and their attempts: read whole, written in sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from service.domain import exact_json
from service.domain.job import Attempt, Job
from service.domain.money import usd_text
from service.domain.results import Output
from service.storage.database import Tx
from service.storage.rows import attempt_values, job_of, job_values
from service.storage.statements import Row, Statement, among, update_many
from service.storage.statements import insert_many as insert_many_of
from service.storage.tables import AttemptRow, JobRow, JobTag, table

JOB = table(JobRow)
ATTEMPT = table(AttemptRow)
TAG = table(JobTag)

#: Everything but what may be large: the input and the raw output are read only where they are used.
_LIGHT = [column for column in JOB.c if column.name not in ("input", "output_raw")]
_LIGHT_ATTEMPT = [column for column in ATTEMPT.c if column.name != "output_raw"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A job as it is stored, with where its history and its events stand."""

    job: Job
    history_seq: int
    history_hash: str
    event_seq: int


_BY_IDS = Statement(select(*_LIGHT).where(among(JOB.c.id, "ids")).order_by(JOB.c.id))
_LOCK_BY_IDS = Statement(select(*_LIGHT).where(among(JOB.c.id, "ids")).order_by(JOB.c.id).with_for_update())
_ATTEMPTS = Statement(
    select(*_LIGHT_ATTEMPT).where(among(ATTEMPT.c.job_id, "ids")).order_by(ATTEMPT.c.job_id, ATTEMPT.c.number)
)
_INSERT = insert_many_of(JOB)
_INSERT_TAG = insert_many_of(TAG)
_MUTABLE = [
    "state",
    "version",
    "updated_ms",
    "completed_ms",
    "learned_by",
    "waiting",
    "error",
    "output",
    "history_seq",
    "history_hash",
    "event_seq",
    "output_raw",
]
_UPDATE = update_many(
    JOB, _MUTABLE, where={"id": "id", "history_seq": "seen_history_seq"}, unless_null=["output_raw"]
)
_ATTEMPT_MUTABLE = [
    "state",
    "started_ms",
    "postponed",
    "postponed_since_ms",
    "provider_request_id",
    "links",
    "queue_position",
    "submitted_ms",
    "completed_ms",
    "learned_by",
    "lag_ms",
    "cost_usd",
    "outcome",
    "output",
    "output_raw",
]
_ATTEMPT_FIXED = ["id", "job_id", "number", "provider", "model", "token_hash", "secret_key_id"]
_INSERT_ATTEMPT = insert_many_of(ATTEMPT, [*_ATTEMPT_FIXED, *_ATTEMPT_MUTABLE])
_UPDATE_ATTEMPT = update_many(ATTEMPT, _ATTEMPT_MUTABLE, where={"id": "of_id"}, unless_null=["output_raw"])
_INPUTS = Statement(select(JOB.c.id, JOB.c.input).where(among(JOB.c.id, "ids")))
_LARGE = Statement(select(JOB.c.input, JOB.c.output_raw).where(JOB.c.id == bindparam("of_id")))
_LARGE_ATTEMPTS = Statement(
    select(ATTEMPT.c.id, ATTEMPT.c.output_raw).where(
        ATTEMPT.c.job_id == bindparam("of_id"), ATTEMPT.c.output_raw.is_not(None)
    )
)
_SUCCESSOR = Statement(select(JOB.c.id).where(JOB.c.retry_of == bindparam("of_id")))
_OVERDUE = Statement(
    select(JOB.c.id)
    .where(JOB.c.completed_ms.is_(None), JOB.c.deadline_ms <= bindparam("now"))
    .order_by(JOB.c.deadline_ms)
    .limit(bindparam("most"))
)
_REQUEST_HOLDER = Statement(
    select(ATTEMPT.c.id, ATTEMPT.c.job_id).where(
        ATTEMPT.c.provider == bindparam("of_provider"),
        ATTEMPT.c.provider_request_id == bindparam("request_id"),
    )
)
_DURATIONS = Statement(
    select((ATTEMPT.c.completed_ms - ATTEMPT.c.submitted_ms).label("took"))
    .where(
        ATTEMPT.c.provider == bindparam("of_provider"),
        ATTEMPT.c.model == bindparam("of_model"),
        ATTEMPT.c.completed_ms.is_not(None),
        ATTEMPT.c.submitted_ms.is_not(None),
        ATTEMPT.c.outcome == "succeeded",
        # What was learned by asking says how we ask, not how long the model takes.
        ATTEMPT.c.learned_by == "callback",
    )
    .order_by(ATTEMPT.c.completed_ms.desc())
    .limit(100)
)


def load(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> dict[str, Stored]:
    """This function will read jobs with their attempts; with `lock` nobody else changes them until the commit.

    Ids that do not exist are missing in the answer. Locks are taken in the order of ids, so that two transactions
    that want the same jobs wait for each other instead of blocking each other for good.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    statement = _LOCK_BY_IDS if lock and tx.dialect == "postgresql" else _BY_IDS
    rows = tx.rows(statement, ids=wanted)
    attempts: dict[str, list[Row]] = {}
    for row in tx.rows(_ATTEMPTS, ids=wanted):
        attempts.setdefault(row["job_id"], []).append(row)
    return {
        row["id"]: Stored(
            job=job_of(row, attempts.get(row["id"], ())),
            history_seq=row["history_seq"],
            history_hash=row["history_hash"],
            event_seq=row["event_seq"],
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be inserted, with its input as JSON text."""

    stored: Stored
    input: str


def insert_many(tx: Tx, new: Sequence[NewJob]) -> None:
    """This function will insert jobs and what they are found by.

    :raises IntegrityError: the driver's own, if `retry_of` already has a successor.
    """
    tx.run_later(_INSERT, [_inserted(item) for item in new])
    tx.run_later(
        _INSERT_TAG,
        [
            {"job_id": item.stored.job.id, "key": key, "tenant": item.stored.job.tenant, "value": value}
            for item in new
            for key, value in item.stored.job.metadata.items()
        ],
    )


def _inserted(item: NewJob) -> dict[str, Any]:
    job = item.stored.job
    return {
        **job_values(job),
        **_standing(item.stored),
        "tenant": job.tenant,
        "provider": job.provider,
        "model": job.model,
        "priority": job.priority.value,
        "on_uncertain": job.on_uncertain.value,
        "archive": job.archive,
        "input": item.input,
        "metadata_json": exact_json.dumps(dict(job.metadata)),
        "webhook_url": job.webhook_url,
        "retry_of": job.retry_of,
        "deadline_s": job.deadline_s,
        "deadline_ms": job.deadline_ms,
        "created_ms": job.created_ms,
        "output_raw": None,
        "estimated_usd": usd_text(job.estimated_usd),
    }


def _standing(stored: Stored) -> dict[str, Any]:
    return {
        "history_seq": stored.history_seq,
        "history_hash": stored.history_hash,
        "event_seq": stored.event_seq,
    }


@dataclass(frozen=True, slots=True)
class Change:
    """A job before and after one or more decisions in the same transaction."""

    before: Stored
    after: Stored


def save_many(tx: Tx, changes: Sequence[Change], token_hashes: Mapping[str, str]) -> None:
    """This function will write changed jobs and attempts; `token_hashes` has one for each new attempt's id.

    :raises WriteConflict: if somebody else wrote one of the jobs since it was read.
    :raises IntegrityError: the driver's own, if a provider's request id already belongs to another attempt.
    """
    updates = [
        {
            **job_values(change.after.job),
            **_standing(change.after),
            "output_raw": _raw_text(change.before.job.output, change.after.job.output),
            "seen_history_seq": change.before.history_seq,
        }
        for change in changes
    ]
    tx.run_all(_UPDATE, updates)
    inserted, updated = [], []
    for change in changes:
        known = {attempt.id: attempt for attempt in change.before.job.attempts}
        for attempt in change.after.job.attempts:
            old = known.get(attempt.id)
            values = {
                **attempt_values(attempt),
                "output_raw": _raw_text(old.output if old else None, attempt.output),
            }
            if old is None:
                inserted.append({**values, **_fixed(change.after.job, attempt, token_hashes[attempt.id])})
            elif old != attempt:
                updated.append({**values, "of_id": attempt.id})
    tx.run_later(_INSERT_ATTEMPT, inserted)
    tx.run_later(_UPDATE_ATTEMPT, updated)


def _raw_text(before: Output | None, after: Output | None) -> str | None:
    """The raw result of an output that is new; None leaves what is stored."""
    return exact_json.dumps(after.raw) if before is None and after is not None else None


def _fixed(job: Job, attempt: Attempt, token_hash: str) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "number": attempt.number,
        "provider": attempt.provider,
        "model": attempt.model,
        "token_hash": token_hash,
        "secret_key_id": attempt.secret_key_id,
    }


def inputs(tx: Tx, ids: Sequence[str]) -> dict[str, str]:
    """This function will read the inputs of jobs, as JSON text."""
    return {row["id"]: row["input"] for row in tx.rows(_INPUTS, ids=list(ids))}


@dataclass(frozen=True, slots=True)
class Large:
    """What of a job may be large, as JSON text."""

    input: str
    output_raw: str | None
    attempt_outputs_raw: Mapping[str, str]


def large(tx: Tx, job_id: str) -> Large | None:
    """This function will read a job's input and raw outputs."""
    rows = tx.rows(_LARGE, of_id=job_id)
    if not rows:
        return None
    raws = {row["id"]: row["output_raw"] for row in tx.rows(_LARGE_ATTEMPTS, of_id=job_id)}
    return Large(rows[0]["input"], rows[0]["output_raw"], raws)


def successor(tx: Tx, job_id: str) -> str | None:
    """This function will find the job that retries this one."""
    rows = tx.rows(_SUCCESSOR, of_id=job_id)
    return rows[0]["id"] if rows else None


def overdue(tx: Tx, *, now_ms: int, most: int) -> list[str]:
    """This function will list open jobs whose deadline has passed, the longest overdue first."""
    return [row["id"] for row in tx.rows(_OVERDUE, now=now_ms, most=most)]


def holder_of(tx: Tx, *, provider: str, request_id: str) -> str | None:
    """This function will find the attempt that a provider's request belongs to."""
    rows = tx.rows(_REQUEST_HOLDER, of_provider=provider, request_id=request_id)
    return rows[0]["id"] if rows else None


def durations_ms(tx: Tx, *, provider: str, model: str) -> list[int]:
    """This function will list how long the last 100 successful attempts took, from submit to completion."""
    return [int(row["took"]) for row in tx.rows(_DURATIONS, of_provider=provider, of_model=model)]
