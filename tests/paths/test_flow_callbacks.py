"""What comes to the callback URLs: believed, refused, repeated, too early, too late, or not to be judged now."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import update

from service.domain.states import JobState, LearnedBy
from service.storage import callbacks
from service.storage.database import DatabaseUnavailable
from service.storage.tables import METADATA
from tests.paths.flow_providers import Taken, said
from tests.paths.flow_scene import Outage, Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


Message = tuple[dict[str, str], bytes]


def _changed(scene: Scene, taken: Taken) -> Message:
    headers, body = scene.fal.callback(taken, now_ms=scene.clock.now_ms)
    return headers, body + b" "


def _wrong_key(scene: Scene, taken: Taken) -> Message:
    return scene.fal.callback(taken, now_ms=scene.clock.now_ms, signer=Ed25519PrivateKey.generate())


def _stale(scene: Scene, taken: Taken) -> Message:
    return scene.fal.callback(taken, now_ms=scene.clock.now_ms - 301_000)


def _from_the_future(scene: Scene, taken: Taken) -> Message:
    return scene.fal.callback(taken, now_ms=scene.clock.now_ms + 302_000)


def _of_another_request(scene: Scene, taken: Taken) -> Message:
    document = {"request_id": "another", "status": "OK", "payload": taken.result}
    return scene.fal.signed(document, now_ms=scene.clock.now_ms)


def _other_id_signed(scene: Scene, taken: Taken) -> Message:
    return scene.fal.callback(taken, now_ms=scene.clock.now_ms, request_id="another")


def _without_headers(scene: Scene, taken: Taken) -> Message:
    return {}, scene.fal.callback(taken, now_ms=scene.clock.now_ms)[1]


def _no_json(scene: Scene, taken: Taken) -> Message:
    return scene.fal.signed(b"\x00<html>", now_ms=scene.clock.now_ms, request_id=taken.id)


FAL_REFUSED: list[tuple[Any, int, str]] = [
    (_changed, 401, "forged"),
    (_wrong_key, 401, "forged"),
    (_stale, 401, "stale"),
    (_from_the_future, 401, "stale"),
    (_of_another_request, 401, "mismatched"),
    (_other_id_signed, 401, "mismatched"),
    (_without_headers, 400, "malformed"),
    (_no_json, 400, "malformed"),
]


@pytest.mark.parametrize(("make", "status", "verdict"), FAL_REFUSED)
async def test_a_refused_fal_callback_is_kept_and_told_and_moves_nothing_but_the_question(
    scene: Scene, make: Any, status: int, verdict: str
) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    headers, body = make(scene, taken)
    answered = await scene.receive("fal", taken.token, headers, body)
    assert (answered.status, answered.verdict) == (status, verdict)
    assert (await scene.job(job.id)).state is JobState.QUEUED
    (kept,) = await scene.callbacks(job.id)
    assert (kept["verdict"], kept["status"]) == (verdict, status)
    (row,) = await scene.table("callback")
    assert bytes(row["body"]) == body
    line = (await scene.history(job.id))[-1]
    assert (line.type, line.moved, line.cause) == ("callback.not_used", False, f"callback:{kept['id']}")
    assert json.loads(line.detail)["verdict"] == verdict
    await scene.settle()
    done = await scene.job(job.id)
    assert (done.state, done.learned_by, taken.asked) == (JobState.SUCCEEDED, LearnedBy.POLL, 1)


async def test_a_bfl_callback_with_a_wrong_secret_is_forged_and_one_without_is_only_a_hint(
    scene: Scene,
) -> None:
    job, taken = await scene.submitted("bfl")
    scene.providers.bfl.succeed(taken)
    _, body = scene.providers.bfl.callback(taken)
    forged = await scene.receive("bfl", taken.token, {"x-webhook-secret": "guessed"}, body)
    bare = await scene.receive("bfl", taken.token, {}, body)
    assert [(a.status, a.verdict) for a in (forged, bare)] == [(401, "forged"), (200, "unauthenticated")]
    assert (await scene.job(job.id)).state is JobState.QUEUED
    await scene.settle()
    assert ((await scene.job(job.id)).learned_by, taken.asked) == (LearnedBy.POLL, 1)


async def test_a_bfl_callback_about_another_task_is_refused_and_the_job_asked_for(scene: Scene) -> None:
    job, taken = await scene.submitted("bfl")
    answered = await scene.bfl_calls(taken, id="another", status="Ready")
    assert (answered.status, answered.verdict) == (401, "mismatched")
    await scene.settle()
    assert taken.asked == 1
    assert (await scene.job(job.id)).state is JobState.QUEUED


async def test_refused_callbacks_make_us_ask_at_most_once_in_thirty_seconds(scene: Scene) -> None:
    """Without them nothing would be asked for in this time: the first question is due only after 500 s."""
    later = scene.changed(timing=replace(scene.runtime.timing, poll_after_ms=500_000))
    _, taken = await later.submitted("fal", deadline_s=3600)
    began_ms = scene.clock.now_ms
    taken.status = said(503, {})
    for _ in range(7):
        headers, body = _wrong_key(scene, taken)
        await later.receive("fal", taken.token, headers, body)
        await later.settle()
        # Each question without news is followed by others at the provider's pace: put them off again.
        await later.runtime.door.write(
            lambda tx: tx.run(update(METADATA.tables["work"]).values(due_ms=2**52))
        )
        scene.clock.go(10)
    assert [(at_ms - began_ms) / 1000 for at_ms in taken.questions] == [0, 30, 60]


async def test_of_refused_bodies_the_first_twenty_are_kept_and_the_rest_only_counted(scene: Scene) -> None:
    job, taken = await scene.submitted("bfl")
    for number in range(25):
        answered = await scene.receive("bfl", taken.token, {"x-webhook-secret": "no"}, b"%d" % number)
        assert answered.status == 401
    rows = await scene.table("callback")
    assert sorted(bytes(row["body"]) for row in rows) == sorted(b"%d" % number for number in range(20))
    (attempt,) = await scene.table("attempt")
    assert attempt["refused_callbacks"] == 25
    assert len([line for line in await scene.history(job.id) if line.type == "callback.not_used"]) == 20
    scene.providers.bfl.succeed(taken)
    await scene.bfl_calls(taken)
    assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK


async def test_of_refused_bodies_one_mebibyte_is_kept(scene: Scene) -> None:
    _, taken = await scene.submitted("bfl")
    body = b"x" * 400_000
    for _ in range(4):
        await scene.receive("bfl", taken.token, {"x-webhook-secret": "no"}, body)
    await scene.receive("bfl", taken.token, {"x-webhook-secret": "no"}, b"small")
    assert sorted(len(bytes(row["body"])) for row in await scene.table("callback")) == [5, 400_000, 400_000]


async def test_an_unknown_token_or_one_of_another_provider_is_not_found(scene: Scene) -> None:
    _, taken = await scene.submitted("bfl")
    headers, body = scene.providers.bfl.callback(taken)
    assert (await scene.receive("bfl", "unknown", headers, body)).status == 404
    assert (await scene.receive("fal", taken.token, headers, body)).status == 404
    assert (await scene.receive("nobody", taken.token, headers, body)).status == 404
    assert await scene.table("callback") == []


async def test_a_repeated_callback_is_a_duplicate_and_changes_nothing(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    await scene.fal_calls(taken)
    before, events = await scene.job(job.id), len(await scene.events(job.id))
    again = await scene.fal_calls(taken)
    assert (again.status, again.verdict) == (200, "duplicate")
    assert await scene.job(job.id) == before
    assert len(await scene.events(job.id)) == events
    assert [row["verdict"] for row in await scene.callbacks(job.id)] == ["verified", "duplicate"]
    assert (await scene.told(job.id))[-1] == ("callback.not_used", False)


async def test_a_forged_callback_never_makes_the_genuine_one_look_like_a_repeat(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    headers, body = _wrong_key(scene, taken)
    await scene.receive("fal", taken.token, headers, body)
    assert (await scene.fal_calls(taken)).verdict == "verified"
    assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK


async def test_the_same_callback_many_times_at_once_moves_its_job_once(scene: Scene) -> None:
    sent = [await scene.submitted("bfl") for _ in range(6)]
    for _, taken in sent:
        scene.providers.bfl.succeed(taken)
    others = [scene, scene.changed(process_id="another"), scene.changed(process_id="a third")]
    calls = [other.bfl_calls(taken) for _, taken in sent for other in others for _ in range(4)]
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
    for job, _ in sent:
        verdicts = [row["verdict"] for row in await scene.callbacks(job.id)]
        assert sorted(verdicts) == ["duplicate"] * 11 + ["verified"]
        assert (await scene.event_types(job.id)).count("job.succeeded") == 1


async def test_two_processes_that_look_at_once_do_not_both_call_it_the_first(
    scene: Scene, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, taken = await scene.submitted("bfl")
    scene.providers.bfl.succeed(taken)
    headers, body = scene.providers.bfl.callback(taken)
    real = callbacks.addressees

    def addressees(tx: Any, hashes: Any) -> Any:
        found = real(tx, hashes)
        # Long enough for the other one to look, too, unless it has to wait for our commit.
        time.sleep(0.2)
        return found

    monkeypatch.setattr(callbacks, "addressees", addressees)
    async with scene_of(database_url, tmp_path, monkeypatch) as another:
        await asyncio.gather(*(one.receive("bfl", taken.token, headers, body) for one in (scene, another)))
    assert sorted(row["verdict"] for row in await scene.callbacks(job.id)) == ["duplicate", "verified"]


async def test_a_late_callback_changes_nothing_but_the_history(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    await scene.after(20)
    before = await scene.job(job.id)
    assert before.state is JobState.SUCCEEDED
    assert (await scene.fal_calls(taken)).status == 200
    assert await scene.job(job.id) == before
    assert (await scene.told(job.id))[-1] == ("provider.succeeded", False)


async def test_a_callback_from_another_account_is_refused_where_the_account_is_pinned(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_of(database_url, tmp_path, monkeypatch, FLUXGATE_FAL_USER_ID="user_1") as scene:
        job, taken = await scene.submitted("fal")
        scene.fal.succeed(taken)
        stranger = await scene.fal_calls(taken, user="user_2")
        assert (stranger.status, stranger.verdict) == (401, "mismatched")
        assert (await scene.job(job.id)).state is JobState.QUEUED
        assert (await scene.fal_calls(taken)).status == 200
        assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK


@pytest.mark.parametrize("status", ["OK", "ERROR"])
async def test_a_callback_without_payload_makes_us_fetch_the_result(scene: Scene, status: str) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    document = {"request_id": taken.id, "status": status, "payload": None, "payload_error": "not JSON"}
    headers, body = scene.fal.signed(document, now_ms=scene.clock.now_ms)
    answered = await scene.receive("fal", taken.token, headers, body)
    assert (answered.status, answered.verdict) == (200, "verified")
    assert (await scene.job(job.id)).state is JobState.QUEUED
    await scene.settle()
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)


class TestKeys:
    async def test_without_any_key_the_callback_is_unjudged_kept_and_the_job_asked_for(
        self, scene: Scene
    ) -> None:
        job, taken = await scene.submitted("fal")
        scene.fal.succeed(taken)
        scene.fal.jwks = httpx.ConnectError("away")
        answered = await scene.fal_calls(taken)
        assert (answered.status, answered.verdict) == (503, "unjudged")
        assert len(await scene.table("callback")) == 1
        assert (await scene.job(job.id)).state is JobState.QUEUED
        await scene.settle()
        assert (await scene.job(job.id)).learned_by is LearnedBy.POLL

    async def test_a_callback_that_was_unjudged_is_verified_when_it_comes_again(self, scene: Scene) -> None:
        job, taken = await scene.submitted("fal")
        scene.fal.succeed(taken)
        scene.fal.jwks = said(503, {})
        assert (await scene.fal_calls(taken)).status == 503
        scene.fal.jwks = None
        scene.clock.go(11)
        answered = await scene.fal_calls(taken)
        assert (answered.status, answered.verdict) == (200, "verified")
        assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK

    async def test_many_callbacks_before_the_first_keys_wait_for_one_fetch(self, scene: Scene) -> None:
        taken = []
        for _ in range(6):
            taken.append((await scene.submitted("fal"))[1])
            scene.fal.succeed(taken[-1])
        answers = await asyncio.gather(*(scene.fal_calls(one) for one in taken))
        assert [answer.status for answer in answers] == [200] * 6
        assert scene.fal.jwks_asked == 1

    async def test_after_a_rotation_the_keys_are_fetched_again_and_the_callback_believed(
        self, scene: Scene
    ) -> None:
        _, first = await scene.submitted("fal")
        scene.fal.succeed(first)
        await scene.fal_calls(first)
        scene.clock.go(61)
        scene.fal.signer = Ed25519PrivateKey.generate()
        scene.fal.published.insert(0, scene.fal.signer)
        job, second = await scene.submitted("fal")
        scene.fal.succeed(second)
        answers = await asyncio.gather(*(scene.fal_calls(second) for _ in range(3)))
        assert [answer.status for answer in answers] == [200] * 3
        assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK
        assert scene.fal.jwks_asked == 2

    async def test_forgers_cannot_cause_a_fetch_for_each_callback(self, scene: Scene) -> None:
        _, taken = await scene.submitted("fal")
        scene.fal.succeed(taken)
        for _ in range(10):
            headers, body = _wrong_key(scene, taken)
            answered = await scene.receive("fal", taken.token, headers, body)
            assert (answered.status, answered.verdict) == (401, "forged")
            scene.clock.go(5)
        assert scene.fal.jwks_asked <= 2

    async def test_old_keys_go_on_verifying_while_the_key_set_cannot_be_had(self, scene: Scene) -> None:
        _, first = await scene.submitted("fal")
        scene.fal.succeed(first)
        await scene.fal_calls(first)
        scene.fal.jwks = httpx.ConnectError("away")
        for _ in range(3):
            scene.clock.go(6 * 3_600)
            job, taken = await scene.submitted("fal")
            scene.fal.succeed(taken)
            assert (await scene.fal_calls(taken)).status == 200
            assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK

    async def test_with_the_service_key_gone_a_callback_is_only_a_hint(
        self, scene: Scene, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job, taken = await scene.submitted("bfl")
        scene.providers.bfl.succeed(taken)
        other = {"FLUXGATE_SECRET_KEYS": "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="}
        async with scene_of(database_url, tmp_path, monkeypatch, **other) as later:
            later.providers.bfl.taken = scene.providers.bfl.taken
            later.providers.files.kept = scene.providers.files.kept
            answered = await later.bfl_calls(taken)
            assert (answered.status, answered.verdict) == (200, "unauthenticated")
            assert (await later.job(job.id)).state is JobState.QUEUED
            await later.settle()
            assert (await later.job(job.id)).learned_by is LearnedBy.POLL


async def test_a_callback_that_cannot_be_committed_is_not_answered_with_success(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    outage = Outage(scene, monkeypatch)
    outage.gone = True
    with pytest.raises(DatabaseUnavailable):
        await scene.fal_calls(taken)
    outage.gone = False
    assert await scene.table("callback") == []
    assert (await scene.fal_calls(taken)).verdict == "verified"
    assert (await scene.job(job.id)).learned_by is LearnedBy.CALLBACK


async def test_headers_that_hold_a_secret_are_kept_as_their_digest(scene: Scene) -> None:
    _, taken = await scene.submitted("bfl")
    scene.providers.bfl.succeed(taken)
    await scene.bfl_calls(taken)
    (row,) = await scene.table("callback")
    assert json.loads(row["headers"])["x-webhook-secret"].startswith("sha256:")
    assert taken.secret not in row["headers"]
