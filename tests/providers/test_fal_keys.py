"""fal's key set: read with patience, kept for a day, fetched seldom."""

from typing import Any

import pytest

from service.domain.callback import Judgement, Verdict
from service.providers.base import KeysNeeded, Stage, Trouble
from service.providers.fal import Fal
from service.providers.fal.jwks import MOST_KEYS, parse
from tests.providers.fal_scene import (
    NOW_MS,
    RESULT,
    SIGNERS,
    VECTORS,
    addressee,
    drive,
    fal,
    jwk,
    learn_keys,
    reply,
    signed,
    webhook,
)

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SETS = VECTORS["jwks_documents"]
UNREACHABLE = Trouble(stage=Stage.NOT_SENT, reason="refused")
NEW_KEY = {"keys": [jwk(SIGNERS[2], kid="new")]}


def judged(adapter: Fal, now_ms: int, signer: Any = SIGNERS[0]) -> Judgement | KeysNeeded:
    callback = signed(webhook(payload=RESULT), signer=signer, at_ms=now_ms, received_ms=now_ms)
    return adapter.judge(callback, addressee())


def is_verified(adapter: Fal, now_ms: int, signer: Any = SIGNERS[0]) -> bool:
    judgement = judged(adapter, now_ms, signer)
    return isinstance(judgement, Judgement) and judgement.verdict is Verdict.VERIFIED


def is_forged(adapter: Fal, now_ms: int, signer: Any) -> bool:
    judgement = judged(adapter, now_ms, signer)
    return isinstance(judgement, Judgement) and judgement.verdict is Verdict.FORGED


class TestReadingAKeySet:
    @pytest.mark.parametrize(
        ("name", "ids"),
        [
            ("main", ["fal-test-1", "fal-test-2"]),
            ("minimal", ["A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"]),
            ("empty", []),
            ("no_keys_member", []),
            ("junk_only", []),
        ],
    )
    def test_names_a_key_by_kid_or_else_by_x(self, name: str, ids: list[str]) -> None:
        assert [key.id for key in parse(SETS[name])] == ids

    def test_skips_junk(self) -> None:
        assert "fal-test-1" in [key.id for key in parse(SETS["junk_then_good"])]

    @pytest.mark.parametrize(
        "document", [None, [], "x", 1, {"keys": {}}, {"keys": "x"}, {"keys": [[], "x", 1.5]}]
    )
    def test_of_any_shape_never_raises(self, document: Any) -> None:
        assert parse(document) == ()

    @pytest.mark.parametrize("kid", [None, 5, "", "x" * 201, "a\nb"])
    def test_takes_no_strange_kid_as_a_name(self, kid: Any) -> None:
        entry = jwk(SIGNERS[0], kid=kid)
        assert [key.id for key in parse({"keys": [entry]})] == [entry["x"]]

    def test_stops_at_a_bound(self) -> None:
        assert len(parse({"keys": [jwk(SIGNERS[0])] * 1_000})) == MOST_KEYS


class TestTheFetch:
    def test_carries_no_key_of_ours(self) -> None:
        _, calls = drive(fal().fetch_keys(NOW_MS), reply(200, SETS["main"]))
        assert calls[0].url == "https://rest.fal.ai/.well-known/jwks.json"
        assert calls[0].headers == {"Accept": "application/json"}

    @pytest.mark.parametrize(
        "answer",
        [
            UNREACHABLE,
            reply(500, SETS["minimal"]),
            reply(302, SETS["minimal"]),
            reply(200, b"<html>"),
            reply(200, SETS["empty"]),
            reply(200, SETS["junk_only"]),
        ],
    )
    def test_that_brings_no_key_leaves_the_old_ones(self, answer: Any) -> None:
        adapter = fal()
        assert learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        assert drive(adapter.fetch_keys(NOW_MS + HOUR_MS), answer)[0] is False
        assert is_verified(adapter, NOW_MS + HOUR_MS)

    def test_that_brings_keys_replaces_the_old_ones(self) -> None:
        adapter = fal()
        assert learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        assert learn_keys(adapter, NEW_KEY, now_ms=NOW_MS + HOUR_MS)
        assert is_verified(adapter, NOW_MS + HOUR_MS, SIGNERS[2])
        assert is_forged(adapter, NOW_MS + HOUR_MS, SIGNERS[0])


class TestWithoutKeys:
    def test_nothing_is_judged(self) -> None:
        assert judged(fal(), NOW_MS) is KeysNeeded.MISSING

    @pytest.mark.parametrize("why", [None, *KeysNeeded])
    def test_a_fetch_is_wanted_every_ten_seconds_at_most(self, why: KeysNeeded | None) -> None:
        adapter = fal()
        assert adapter.wants_keys(why, NOW_MS)
        drive(adapter.fetch_keys(NOW_MS), UNREACHABLE)
        assert not adapter.wants_keys(why, NOW_MS + 9_999)
        assert adapter.wants_keys(why, NOW_MS + 10_000)
        assert judged(adapter, NOW_MS + 10_000) is KeysNeeded.MISSING


class TestOldKeys:
    def test_are_renewed_after_an_hour_and_believed_for_a_day(self) -> None:
        adapter = fal()
        learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        assert not adapter.wants_keys(None, NOW_MS + HOUR_MS - 1)
        assert adapter.wants_keys(None, NOW_MS + HOUR_MS)
        assert is_verified(adapter, NOW_MS + 24 * HOUR_MS - 1)
        assert judged(adapter, NOW_MS + 24 * HOUR_MS) is KeysNeeded.MISSING

    def test_are_asked_for_once_a_minute_while_the_endpoint_is_down(self) -> None:
        adapter = fal()
        learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        later = NOW_MS + 2 * HOUR_MS
        drive(adapter.fetch_keys(later), UNREACHABLE)
        assert not adapter.wants_keys(None, later + MINUTE_MS - 1)
        assert adapter.wants_keys(None, later + MINUTE_MS)


class TestASignatureThatNoKeyFits:
    def test_is_worth_one_fetch_a_minute_and_then_forged(self) -> None:
        adapter = fal()
        learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        assert is_forged(adapter, NOW_MS + MINUTE_MS - 1, SIGNERS[2])
        later = NOW_MS + MINUTE_MS
        assert judged(adapter, later, SIGNERS[2]) is KeysNeeded.UNKNOWN_KEY
        assert adapter.wants_keys(KeysNeeded.UNKNOWN_KEY, later)
        learn_keys(adapter, SETS["main"], now_ms=later)
        assert is_forged(adapter, later, SIGNERS[2])
        assert not adapter.wants_keys(KeysNeeded.UNKNOWN_KEY, later + MINUTE_MS - 1)

    def test_is_verified_after_a_rotation(self) -> None:
        adapter = fal()
        learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        later = NOW_MS + MINUTE_MS
        assert judged(adapter, later, SIGNERS[2]) is KeysNeeded.UNKNOWN_KEY
        learn_keys(adapter, NEW_KEY, now_ms=later)
        assert is_verified(adapter, later, SIGNERS[2])

    def test_is_not_called_forged_while_a_fetch_is_under_way(self) -> None:
        adapter = fal()
        learn_keys(adapter, SETS["main"], now_ms=NOW_MS)
        later = NOW_MS + MINUTE_MS
        fetch = adapter.fetch_keys(later)
        next(fetch)
        assert judged(adapter, later, SIGNERS[2]) is KeysNeeded.UNKNOWN_KEY
        assert not adapter.wants_keys(KeysNeeded.UNKNOWN_KEY, later)
        with pytest.raises(StopIteration):
            fetch.send(reply(200, NEW_KEY))
        assert is_verified(adapter, later, SIGNERS[2])
