"""A job from its acceptance to its result, by callback and by poll, at both providers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.states import JobState, LearnedBy
from tests.paths.flow_providers import PNG
from tests.paths.flow_scene import Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


async def test_a_fal_job_succeeds_by_its_callback(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    assert job.state is JobState.QUEUED
    scene.fal.succeed(taken)
    assert (await scene.fal_calls(taken)).status == 200
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.CALLBACK)
    assert done.output is not None
    assert done.output.seed == "15860307465884635512"
    assert taken.asked == 0
    lines = await scene.history(job.id)
    assert [line.type for line in lines] == [
        "job.accepted",
        "submit.started",
        "submit.accepted",
        "provider.succeeded",
    ]
    assert lines[-1].cause.startswith("callback:cb_")


async def test_a_bfl_job_succeeds_by_its_callback(scene: Scene) -> None:
    job, taken = await scene.submitted("bfl")
    scene.providers.bfl.succeed(taken)
    assert (await scene.bfl_calls(taken)).status == 200
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.CALLBACK)
    assert done.attempts[0].cost_usd is not None
    assert taken.asked == 0


@pytest.mark.parametrize("provider", ["fal", "bfl"])
async def test_a_job_whose_callback_is_lost_succeeds_by_a_question(scene: Scene, provider: str) -> None:
    job, taken = await scene.submitted(provider)
    world = scene.fal if provider == "fal" else scene.providers.bfl
    world.succeed(taken)
    await scene.after(19)
    assert (await scene.job(job.id)).state is JobState.QUEUED
    await scene.after(1)
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)
    assert taken.asked == 1
    assert (await scene.history(job.id))[3].cause == "poll"


@pytest.mark.parametrize("provider", ["fal", "bfl"])
async def test_without_a_public_url_jobs_run_by_polling_alone(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    alone = {"FLUXGATE_PUBLIC_URL": "", "FLUXGATE_POLL_AFTER_S": ""}
    async with scene_of(database_url, tmp_path, monkeypatch, **alone) as scene:
        job, taken = await scene.submitted(provider)
        assert taken.callback_url is None
        assert taken.secret == ""
        world = scene.fal if provider == "fal" else scene.providers.bfl
        world.succeed(taken)
        await scene.after(5)
        done = await scene.job(job.id)
        assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)


@pytest.mark.parametrize("provider", ["fal", "bfl"])
async def test_progress_is_told_once_and_the_result_files_are_kept(scene: Scene, provider: str) -> None:
    job, taken = await scene.submitted(provider)
    taken.status = "IN_PROGRESS" if provider == "fal" else "Generating"
    await scene.after(20)
    assert (await scene.job(job.id)).state is JobState.RUNNING
    await scene.after(60)
    asked = taken.asked
    assert asked > 2
    world = scene.fal if provider == "fal" else scene.providers.bfl
    world.succeed(taken)
    await scene.after(60)
    done = await scene.job(job.id)
    assert await scene.event_types(job.id) == [
        "job.accepted",
        "job.submitted",
        "job.running",
        "job.succeeded",
        "job.archived",
    ]
    assert done.output is not None
    image = done.output.images[0]
    assert image.artifact_id is not None
    assert image.sha256 is not None
    kept = scene.runtime.files.open(image.sha256)
    assert kept is not None
    assert kept.read_bytes().startswith(PNG)
    assert image.size_bytes == len(kept.read_bytes())
    assert taken.asked == asked + 1


async def test_the_events_carry_the_job_without_prompt_and_raw_output(scene: Scene) -> None:
    job, taken = await scene.submitted("fal", input={"prompt": "a secret fox"})
    scene.fal.succeed(taken)
    await scene.fal_calls(taken)
    events = await scene.events(job.id)
    assert [event.job_seq for event in events] == [1, 2, 3]
    for event in events:
        assert "a secret fox" not in event.data
        shown = json.loads(event.data)
        assert "input" not in shown
        assert shown["output"] is None or "raw" not in shown["output"]


async def test_the_key_goes_only_to_the_providers_own_hosts(scene: Scene) -> None:
    for provider in ("fal", "bfl"):
        _, taken = await scene.submitted(provider)
        (scene.fal if provider == "fal" else scene.providers.bfl).succeed(taken)
    await scene.after(30)
    assert scene.providers.keyed_hosts == {"queue.fal.run", "api.bfl.ai"}
    assert len(scene.providers.files.fetched) == 2
