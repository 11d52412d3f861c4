"""The chain of the history: every change to a kept line is found, at the line where it was made."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from service.domain.history import GENESIS, HistoryLine, chain, commitment_of, first_broken
from service.domain.timestamps import rfc3339

LENGTH = 6


def line(seq: int, prev: str, job_id: str = "job_1", **fields: Any) -> HistoryLine:
    return chain(
        **{
            "job_id": job_id,
            "seq": seq,
            "at_ms": 1_800_000_000_000 + seq,
            "type": "provider.queued",
            "cause": "poll",
            "moved": False,
            "before": "queued",
            "after": "queued",
            "detail": {"queue_position": 15860307465884635512, "note": "é"},
            "salt": f"{seq:032x}",
            "prev": prev,
            **fields,
        }
    )


def lines(job_id: str = "job_1") -> list[HistoryLine]:
    made = [line(1, GENESIS, job_id, before=None, after="accepted", moved=True)]
    while len(made) < LENGTH:
        made.append(line(len(made) + 1, made[-1].hash, job_id))
    return made


def test_an_untouched_chain_holds() -> None:
    assert first_broken(lines()) is None
    assert first_broken([]) is None


@pytest.mark.parametrize("position", range(LENGTH))
@pytest.mark.parametrize(
    "change",
    [
        {"job_id": "job_2"},
        {"seq": 99},
        {"at_ms": 1},
        {"type": "provider.succeeded"},
        {"cause": "callback:cb_1"},
        {"moved": None},
        {"before": "running"},
        {"after": "succeeded"},
        {"detail": '{"queue_position":1}'},
        {"detail": "\ud800"},
        {"salt": "ff" * 16},
        {"salt": "no hex"},
        {"commitment": "0" * 64},
        {"prev": "1" * 64},
        {"hash": "2" * 64},
        {"type": "\ud800"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_line_is_found(position: int, change: dict[str, Any]) -> None:
    kept = lines()
    kept[position] = replace(kept[position], **change)
    assert first_broken(kept) == position


@pytest.mark.parametrize("position", range(LENGTH))
def test_a_detail_changed_together_with_its_commitment_is_found(position: int) -> None:
    kept = lines()
    forged = '{"queue_position":"1"}'
    commitment = commitment_of(kept[position].salt, forged)
    kept[position] = replace(kept[position], detail=forged, commitment=commitment)
    assert first_broken(kept) == position


@pytest.mark.parametrize("position", range(LENGTH - 1))
def test_a_line_hashed_anew_is_found_at_the_next_one(position: int) -> None:
    kept = lines()
    prev = kept[position - 1].hash if position else GENESIS
    kept[position] = line(position + 1, prev, cause="callback:cb_1")
    assert first_broken(kept) == position + 1


@pytest.mark.parametrize("position", range(LENGTH - 1))
def test_a_removed_line_is_found_where_it_is_missing(position: int) -> None:
    kept = lines()
    del kept[position]
    assert first_broken(kept) == position


@pytest.mark.parametrize("position", range(1, LENGTH + 1))
def test_a_line_put_in_twice_is_found(position: int) -> None:
    kept = lines()
    kept.insert(position, kept[position - 1])
    assert first_broken(kept) == position


@pytest.mark.parametrize("position", range(LENGTH - 1))
def test_lines_in_another_order_are_found(position: int) -> None:
    kept = lines()
    kept[position], kept[position + 1] = kept[position + 1], kept[position]
    assert first_broken(kept) == position


def test_a_chain_that_skips_a_number_is_found_although_it_follows() -> None:
    kept = lines()[:2]
    assert first_broken([*kept, line(4, kept[-1].hash)]) == 2


def test_a_line_of_another_job_is_found_although_it_follows() -> None:
    kept = lines()[:2]
    assert first_broken([*kept, line(3, kept[-1].hash, "job_2")]) == 2


def test_a_line_can_be_checked_by_anybody_from_its_description() -> None:
    made = lines()[0]
    detail = '{"note":"é","queue_position":"15860307465884635512"}'
    assert made.detail == detail
    assert made.commitment == hashlib.sha256(bytes.fromhex(made.salt) + detail.encode()).hexdigest()
    said = {
        "v": 1,
        "job_id": made.job_id,
        "seq": made.seq,
        "at": rfc3339(made.at_ms),
        "type": made.type,
        "cause": made.cause,
        "moved": made.moved,
        "from": made.before,
        "to": made.after,
        "commitment": made.commitment,
        "prev": "0" * 64,
    }
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert made.hash == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_detail_under_another_salt_does_not_show_that_it_is_the_same() -> None:
    one, other = line(1, GENESIS, salt="00" * 16), line(1, GENESIS, salt="01" * 16)
    assert one.commitment != other.commitment
