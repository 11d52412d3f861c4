"""The history line: what is hashed, how lines are chained, and how a line is checked.

`hash` is SHA-256 over the canonical `{v, job_id, seq, at, type, cause, moved, from, to, commitment, prev}`;
`commitment` is SHA-256 over the salt and the canonical detail, so that a detail can be removed later without
breaking the chain. `prev` of the first line is 64 zeros.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from service.domain.canonical import VERSION, canonical
from service.domain.timestamps import rfc3339

GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryLine:
    """One fact about a job, as it is kept. `detail` is canonical JSON text, `salt` is hex."""

    job_id: str
    seq: int
    at_ms: int
    type: str
    cause: str
    moved: bool
    before: str | None
    after: str
    detail: str
    salt: str
    commitment: str
    prev: str
    hash: str


def commitment_of(salt: str, detail: str) -> str:
    """This function will commit to a detail: SHA-256 over the salt's bytes and the canonical text, in hex.

    :raises ValueError: if the salt is not hex.
    """
    return hashlib.sha256(bytes.fromhex(salt) + detail.encode()).hexdigest()


def hash_of(
    *,
    job_id: str,
    seq: int,
    at_ms: int,
    type: str,
    cause: str,
    moved: bool,
    before: str | None,
    after: str,
    commitment: str,
    prev: str,
) -> str:
    """This function will hash what a line says together with the hash of the line before it."""
    said = {
        "v": VERSION,
        "job_id": job_id,
        "seq": seq,
        "at": rfc3339(at_ms),
        "type": type,
        "cause": cause,
        "moved": moved,
        "from": before,
        "to": after,
        "commitment": commitment,
        "prev": prev,
    }
    # Canonical as it is: ASCII names, text and small integers alone, so the general way is not needed.
    try:
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ValueError("a line holds text that is no Unicode") from error
    return hashlib.sha256(text).hexdigest()


def chain(
    *,
    job_id: str,
    seq: int,
    at_ms: int,
    type: str,
    cause: str,
    moved: bool,
    before: str | None,
    after: str,
    detail: Mapping[str, Any],
    salt: str,
    prev: str,
) -> HistoryLine:
    """This function will make the next line of a job's chain."""
    text = canonical(detail).decode()
    commitment = commitment_of(salt, text)
    line_hash = hash_of(
        job_id=job_id,
        seq=seq,
        at_ms=at_ms,
        type=type,
        cause=cause,
        moved=moved,
        before=before,
        after=after,
        commitment=commitment,
        prev=prev,
    )
    return HistoryLine(
        job_id=job_id,
        seq=seq,
        at_ms=at_ms,
        type=type,
        cause=cause,
        moved=moved,
        before=before,
        after=after,
        detail=text,
        salt=salt,
        commitment=commitment,
        prev=prev,
        hash=line_hash,
    )


def first_broken(lines: Sequence[HistoryLine]) -> int | None:
    """This function will return the position of the first line that does not follow from those before it.

    A line is broken if it was changed, if one before it was removed, or if it was put in. Lines cut off at the end
    show only against the head of the chain that is kept elsewhere.
    """
    prev = GENESIS
    for position, line in enumerate(lines):
        if line.seq != position + 1 or line.job_id != lines[0].job_id or not _holds(line, prev):
            return position
        prev = line.hash
    return None


def _holds(line: HistoryLine, prev: str) -> bool:
    """Whether a line says what its hashes say, and follows the one with the hash `prev`."""
    try:
        kept = commitment_of(line.salt, line.detail)
        expected = hash_of(
            job_id=line.job_id,
            seq=line.seq,
            at_ms=line.at_ms,
            type=line.type,
            cause=line.cause,
            moved=line.moved,
            before=line.before,
            after=line.after,
            commitment=line.commitment,
            prev=prev,
        )
    except ValueError:
        return False
    return (line.prev, line.hash, line.commitment) == (prev, expected, kept)
