"""What came to the callback URLs, and the attempts that their tokens name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from service.storage.database import Tx
from service.storage.statements import Row, Statement, among, insert_many, update_many
from service.storage.tables import AttemptRow, CallbackRow, JobRow, table

CALLBACK = table(CallbackRow)
ATTEMPT = table(AttemptRow)
JOB = table(JobRow)

_ADDRESSED = (
    select(
        ATTEMPT.c.id,
        ATTEMPT.c.job_id,
        ATTEMPT.c.token_hash,
        ATTEMPT.c.provider,
        ATTEMPT.c.model,
        ATTEMPT.c.number,
        ATTEMPT.c.provider_request_id,
        ATTEMPT.c.secret_key_id,
        ATTEMPT.c.message_key,
        ATTEMPT.c.refused_callbacks,
        ATTEMPT.c.refused_bytes,
        ATTEMPT.c.hinted_ms,
    )
    .join_from(ATTEMPT, JOB, JOB.c.id == ATTEMPT.c.job_id)
    .where(among(ATTEMPT.c.token_hash, "hashes"))
    .order_by(JOB.c.id)
)
_ADDRESSEES = {"sqlite": Statement(_ADDRESSED), "postgresql": Statement(_ADDRESSED.with_for_update())}
_INSERT = insert_many(CALLBACK)
_TALLY = update_many(
    ATTEMPT,
    ["message_key", "refused_callbacks", "refused_bytes", "hinted_ms"],
    where={"id": "of_id"},
)
_CANDIDATE = update_many(ATTEMPT, ["candidate_request_id"], where={"id": "of_id"})
_CANDIDATES = Statement(
    select(ATTEMPT.c.id, ATTEMPT.c.candidate_request_id).where(among(ATTEMPT.c.id, "ids"))
)
_LIST_COLUMNS = [column for column in CALLBACK.c if column.name != "body"]
_OF_JOB = Statement(
    select(*_LIST_COLUMNS)
    .where(CALLBACK.c.job_id == bindparam("of_job"), CALLBACK.c.id > bindparam("after"))
    .order_by(CALLBACK.c.id)
    .limit(bindparam("most"))
)
_BODY = Statement(
    select(CALLBACK.c.body, CALLBACK.c.headers).where(
        CALLBACK.c.job_id == bindparam("of_job"), CALLBACK.c.id == bindparam("of_id")
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One callback as it is kept: the raw body, headers as JSON text without secrets, and the judgement."""

    id: str
    job_id: str
    attempt_id: str
    received_ms: int
    verdict: str
    reason: str
    status: int
    key_id: str | None
    body_sha256: str
    headers: str
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What is counted of an attempt's callbacks."""

    attempt_id: str
    message_key: str | None
    refused_callbacks: int
    refused_bytes: int
    hinted_ms: int


def addressees(tx: Tx, token_hashes: Sequence[str]) -> dict[str, Row]:
    """This function will find the attempts that tokens belong to, by the token's hash, and hold them and their jobs.

    Until the commit nobody else judges a callback of the same job: what was counted and said before stays true.
    Jobs are locked in the order of their ids, as `jobs.load` does.
    """
    found = tx.rows(_ADDRESSEES[tx.dialect], hashes=list(token_hashes))
    return {row["token_hash"]: row for row in found}


def keep(tx: Tx, callbacks: Sequence[Kept]) -> None:
    """This function will write callbacks."""
    tx.run_later(_INSERT, [{name: getattr(kept, name) for name in Kept.__slots__} for kept in callbacks])


def tally(tx: Tx, tallies: Sequence[Tally]) -> None:
    """This function will write what is counted of attempts' callbacks."""
    tx.run_later(_TALLY, [_tally(item) for item in tallies])


def _tally(item: Tally) -> dict[str, Any]:
    return {
        "of_id": item.attempt_id,
        "message_key": item.message_key,
        "refused_callbacks": item.refused_callbacks,
        "refused_bytes": item.refused_bytes,
        "hinted_ms": item.hinted_ms,
    }


def name_candidates(tx: Tx, candidates: Sequence[tuple[str, str]]) -> None:
    """This function will note the request ids that genuine callbacks claim for attempts without one."""
    tx.run_later(
        _CANDIDATE, [{"of_id": attempt, "candidate_request_id": request} for attempt, request in candidates]
    )


def candidates(tx: Tx, attempt_ids: Sequence[str]) -> dict[str, str]:
    """This function will read the claimed request ids of attempts."""
    rows = tx.rows(_CANDIDATES, ids=list(attempt_ids))
    return {row["id"]: row["candidate_request_id"] for row in rows if row["candidate_request_id"]}


def of_job(tx: Tx, job_id: str, *, after: str = "", most: int = 200) -> list[Row]:
    """This function will list a job's callbacks, oldest first, without their bodies."""
    return tx.rows(_OF_JOB, of_job=job_id, after=after, most=most)


def body_of(tx: Tx, *, job_id: str, callback_id: str) -> Row | None:
    """This function will read the raw body of one callback, with its headers."""
    rows = tx.rows(_BODY, of_job=job_id, of_id=callback_id)
    return rows[0] if rows else None
