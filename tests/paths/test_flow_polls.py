"""When we ask: learned, paced, once more before the deadline, and while a provider is switched off or away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.failures import ErrorCode
from service.domain.states import JobState, LearnedBy
from service.flows.learn import Learned
from service.storage.database import DatabaseUnavailable
from tests.paths.flow_providers import said
from tests.paths.flow_scene import ON_ONE_DATABASE, Outage, Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A scene in which nobody has set when to ask first."""
    async with scene_of(database_url, tmp_path, monkeypatch, FLUXGATE_POLL_AFTER_S="") as scene:
        yield scene


async def took(scene: Scene, provider: str, seconds: float, times: int) -> None:
    """Let jobs succeed by callback after so many seconds."""
    for _ in range(times):
        _, taken = await scene.submitted(provider)
        scene.clock.go(seconds)
        if provider == "fal":
            scene.fal.succeed(taken)
            await scene.fal_calls(taken)
        else:
            scene.providers.bfl.succeed(taken)
            await scene.bfl_calls(taken)


async def first_question_s(scene: Scene, provider: str, **changes: Any) -> float:
    job, _ = await scene.submitted(provider, **changes)
    return (await scene.work(job.id))["ask", 1] / 1000


class TestTheFirstQuestion:
    async def test_comes_after_thirty_seconds_before_twenty_samples(self, scene: Scene) -> None:
        await took(scene, "bfl", 4, 19)
        scene.clock.go(31)
        assert await first_question_s(scene, "bfl") == pytest.approx(31.5)

    async def test_is_learned_from_twenty_past_jobs_that_were_all_learned_by_callback(
        self, scene: Scene
    ) -> None:
        await took(scene, "bfl", 4, 20)
        scene.clock.go(31)
        assert await first_question_s(scene, "bfl") == pytest.approx(6.3)
        # Of another provider nothing is known.
        assert await first_question_s(scene, "fal") == pytest.approx(31.5)

    async def test_is_learned_by_a_process_that_has_just_started(self, scene: Scene) -> None:
        await took(scene, "bfl", 4, 20)
        assert await first_question_s(scene.changed(learned=Learned()), "bfl") == pytest.approx(6.3)

    @pytest.mark.parametrize(("provider", "cap_s"), [("fal", 120), ("bfl", 60)])
    async def test_waits_no_longer_than_the_providers_cap(
        self, scene: Scene, provider: str, cap_s: float
    ) -> None:
        await took(scene, provider, 500, 20)
        scene.clock.go(31)
        assert await first_question_s(scene, provider) == cap_s

    async def test_waits_no_longer_than_half_of_what_is_left(self, scene: Scene) -> None:
        assert await first_question_s(scene, "fal", deadline_s=40) == 20

    async def test_comes_when_the_operator_says(self, scene: Scene) -> None:
        told = scene.changed(timing=replace(scene.runtime.timing, poll_after_ms=7_000))
        assert await first_question_s(told, "fal") == 7


@ON_ONE_DATABASE
@pytest.mark.parametrize(("provider", "interval_s", "cap_s"), [("fal", 4, 60), ("bfl", 2, 30)])
async def test_questions_are_asked_at_the_providers_pace_and_not_more_often(
    scene: Scene, provider: str, interval_s: float, cap_s: float
) -> None:
    _, taken = await scene.submitted(provider)
    await scene.after(900)
    gaps = [(later - earlier) / 1000 for earlier, later in pairwise(taken.questions)]
    assert gaps[0] >= interval_s
    assert all(gap <= following + 0.001 for gap, following in pairwise(gaps))
    assert gaps[-1] == cap_s


async def test_a_provider_that_asks_us_to_wait_is_not_asked_earlier(scene: Scene) -> None:
    _, taken = await scene.submitted("fal")
    taken.status = said(429, {}, retry_after="45")
    await scene.after(200)
    gaps = [later - earlier for earlier, later in pairwise(taken.questions)]
    assert min(gaps) >= 45_000


@ON_ONE_DATABASE
@pytest.mark.parametrize("answer", [said(500, {}), said(401, {}), said(404, {}), httpx.ReadError("cut")])
async def test_trouble_with_a_question_only_means_to_ask_again(scene: Scene, answer: Any) -> None:
    job, taken = await scene.submitted("fal")
    taken.status = answer
    await scene.after(120)
    assert (await scene.job(job.id)).state is JobState.QUEUED
    scene.fal.succeed(taken)
    await scene.after(60)
    assert (await scene.job(job.id)).learned_by is LearnedBy.POLL


async def test_a_result_that_is_no_longer_kept_is_said_to_be_so(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    taken.status, taken.result = "COMPLETED", said(404, {"detail": "gone"})
    await scene.after(40)
    done = await scene.job(job.id)
    assert done.error is not None
    assert (done.state, done.error.code) == (JobState.FAILED, ErrorCode.RESULT_EXPIRED)


class TestAProviderThatIsSwitchedOff:
    def without(self, scene: Scene) -> Scene:
        return scene.changed(providers={}, process_id="without-keys")

    async def test_parks_jobs_that_are_not_sent_yet_until_it_is_on_again(self, scene: Scene) -> None:
        job = await scene.accept("fal")
        off = self.without(scene)
        await off.after(60)
        parked = await off.job(job.id)
        assert parked.waiting is not None
        assert (parked.state, parked.waiting.code) == (JobState.ACCEPTED, ErrorCode.AUTHENTICATION)
        await scene.after(300)
        done = await scene.job(job.id)
        assert (done.state, len(done.attempts), len(scene.fal.sent)) == (JobState.QUEUED, 1, 1)

    async def test_keeps_the_question_about_jobs_that_were_taken(self, scene: Scene) -> None:
        job, taken = await scene.submitted("fal")
        scene.fal.succeed(taken)
        await self.without(scene).after(300)
        assert (await scene.job(job.id)).state is JobState.QUEUED
        await scene.after(60)
        assert (await scene.job(job.id)).state is JobState.SUCCEEDED

    @pytest.mark.parametrize("state", ["accepted", "uncertain", "queued"])
    async def test_ends_its_jobs_at_their_deadline(self, scene: Scene, state: str) -> None:
        if state == "uncertain":
            scene.fal.submits.append(said(500, {}))
        job = await scene.accept("fal", deadline_s=300)
        if state != "accepted":
            await scene.settle()
        assert (await scene.job(job.id)).state == state
        off = self.without(scene)
        await off.after(301)
        assert (await off.job(job.id)).state is JobState.EXPIRED
        await off.after(400)
        assert await off.work(job.id) == {}

    async def test_does_not_keep_the_worker_busy(self, scene: Scene) -> None:
        job, _ = await scene.submitted("fal")
        waiting = await scene.accept("fal")
        off = self.without(scene)
        await off.after(40)
        assert min((await off.work(job.id)).values()) > 5_000
        assert min((await off.work(waiting.id)).values()) > 5_000


class TestAnOutageOfTheDatabase:
    async def test_in_the_middle_of_a_question_loses_nothing(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job, taken = await scene.submitted("bfl")
        scene.providers.bfl.succeed(taken)
        outage = Outage(scene, monkeypatch)
        bfl_document = scene.providers.bfl.document

        def cut(task: Any) -> dict[str, Any]:
            outage.gone = True
            return bfl_document(task)

        async def back() -> None:
            while outage.refused < 3:
                await asyncio.sleep(0.005)
            outage.gone = False

        monkeypatch.setattr(scene.providers.bfl, "document", cut)
        scene.clock.go(32)
        await asyncio.gather(scene.settle(), back())
        outage.gone = False
        monkeypatch.setattr(scene.providers.bfl, "document", bfl_document)
        await scene.after(5)
        assert (await scene.job(job.id)).state is JobState.SUCCEEDED

    async def test_refuses_a_job_that_cannot_be_committed(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outage = Outage(scene, monkeypatch)
        outage.gone = True
        with pytest.raises(DatabaseUnavailable):
            await scene.accept("fal")
        outage.gone = False
        assert await scene.table("job") == []
        job = await scene.accept("fal")
        await scene.settle()
        assert (await scene.job(job.id)).state is JobState.QUEUED


async def test_every_open_job_has_work_or_a_deadline_that_ends_it(scene: Scene) -> None:
    """Whatever was answered to its submit, an open job that was not put on hold has something scheduled."""
    answers = [None, said(429, {}), said(500, {}), httpx.ConnectError("no"), said(401, {})]
    for answer in answers:
        for provider in ("fal", "bfl"):
            world: Any = scene.fal if provider == "fal" else scene.providers.bfl
            if answer is not None:
                world.submits.append(answer)
            job = await scene.accept(provider)
            await scene.settle()
            state = (await scene.job(job.id)).state
            held = state is JobState.UNCERTAIN and provider == "bfl"
            scene.clock.go(3)
            await scene.settle()
            assert bool(await scene.work(job.id)) is not held
    scene.clock.go(3_700)
    await scene.settle()
    for row in await scene.table("job"):
        assert row["completed_ms"] is not None
