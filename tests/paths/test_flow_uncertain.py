"""An attempt of unknown fate: what settles it, and that nothing is sent again unless that was asked for."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.job import Job
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain
from tests.paths.flow_providers import Taken, said
from tests.paths.flow_scene import FAL_MODEL, Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


async def lost(scene: Scene, provider: str = "fal", **changes: Any) -> tuple[Job, Taken]:
    """A job whose submit the provider took, and whose answer was lost."""
    world: Any = scene.fal if provider == "fal" else scene.providers.bfl

    async def cut(request: httpx.Request) -> httpx.Response | Exception:
        world.take(request)
        return httpx.ReadError("reset")

    world.submits.append(cut)
    job = await scene.accept(provider, **changes)
    await scene.settle()
    job = await scene.job(job.id)
    assert job.state is JobState.UNCERTAIN
    return job, list(world.taken.values())[-1]


def entry(scene: Scene, request_id: str, prompt: str = "a fox", **members: Any) -> dict[str, Any]:
    """One line of fal's listing."""
    sent = datetime.fromtimestamp(scene.clock.now_ms / 1000, UTC).isoformat()
    return {
        "request_id": request_id,
        "endpoint_id": FAL_MODEL,
        "sent_at": sent,
        "json_input": {"prompt": prompt},
        **members,
    }


async def test_its_own_callback_settles_a_bfl_attempt(scene: Scene) -> None:
    job, taken = await lost(scene, "bfl")
    scene.providers.bfl.succeed(taken)
    await scene.bfl_calls(taken)
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.CALLBACK)
    assert done.attempts[0].provider_request_id == taken.id


async def test_its_own_callback_makes_us_ask_fal_and_only_that_answer_settles_it(scene: Scene) -> None:
    job, taken = await lost(scene, "fal")
    scene.fal.succeed(taken)
    assert (await scene.fal_calls(taken)).status == 200
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    await scene.settle()
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)
    assert done.attempts[0].provider_request_id == taken.id
    assert taken.asked == 1


async def test_an_id_that_fal_does_not_know_moves_nothing(scene: Scene) -> None:
    job, taken = await lost(scene, "fal")
    scene.fal.succeed(taken)
    headers, body = scene.fal.callback(taken, now_ms=scene.clock.now_ms)
    del scene.fal.taken[taken.id]
    await scene.receive("fal", taken.token, headers, body)
    await scene.after(60)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN


async def test_fals_listing_adopts_the_one_equal_request(scene: Scene) -> None:
    job, taken = await lost(scene, "fal")
    scene.fal.listing = scene.fal.listed(entry(scene, taken.id), entry(scene, "other", "a dog"))
    scene.fal.succeed(taken)
    await scene.after(3)
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)
    accepted = next(line for line in await scene.history(job.id) if line.type == "submit.accepted")
    assert json.loads(accepted.detail)["found_in"] == "the provider's listing"
    assert len(scene.fal.sent) == 1


async def test_fals_listing_never_adopts_one_of_two(scene: Scene) -> None:
    job, taken = await lost(scene, "fal")
    scene.fal.listing = scene.fal.listed(entry(scene, taken.id), entry(scene, "another"))
    await scene.after(300)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN


async def test_fals_listing_never_adopts_what_another_attempt_holds(scene: Scene) -> None:
    _, held = await scene.submitted("fal")
    job, _ = await lost(scene, "fal")
    scene.fal.listing = scene.fal.listed(entry(scene, held.id))
    await scene.after(300)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN


async def test_fals_listing_adopts_the_one_that_no_other_attempt_holds(scene: Scene) -> None:
    _, held = await scene.submitted("fal")
    job, taken = await lost(scene, "fal")
    scene.fal.listing = scene.fal.listed(entry(scene, held.id), entry(scene, taken.id))
    await scene.after(10)
    assert (await scene.attempt(job.id)).provider_request_id == taken.id


async def test_fals_listing_never_adopts_another_input_or_another_time(scene: Scene) -> None:
    job, _ = await lost(scene, "fal")
    old = datetime.fromtimestamp(scene.clock.now_ms / 1000 - 120, UTC).isoformat()
    scene.fal.listing = scene.fal.listed(entry(scene, "one", "a cat"), entry(scene, "two", sent_at=old))
    await scene.after(120)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN


async def test_a_listing_that_cannot_be_had_is_asked_for_again_and_denies_nothing(scene: Scene) -> None:
    job, taken = await lost(scene, "fal")
    scene.fal.listing = httpx.ConnectError("away")
    await scene.after(60)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    started = (await scene.attempt(job.id)).started_ms
    sent_at = datetime.fromtimestamp(started / 1000, UTC).isoformat()
    scene.fal.listing = scene.fal.listed(entry(scene, taken.id, sent_at=sent_at))
    await scene.after(70)
    assert (await scene.job(job.id)).attempts[0].provider_request_id == taken.id


async def test_hold_sends_nothing_again(scene: Scene) -> None:
    job, _ = await lost(scene, "bfl", deadline_s=900)
    await scene.after(899)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    assert len(scene.providers.bfl.sent) == 1


class TestResubmit:
    async def test_sends_once_more_after_the_time_for_it(self, scene: Scene) -> None:
        job, first = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT)
        await scene.after(119)
        assert len(scene.providers.bfl.sent) == 1
        await scene.after(2)
        again = await scene.job(job.id)
        assert (again.state, len(again.attempts), len(scene.providers.bfl.sent)) == (JobState.QUEUED, 2, 2)
        second = list(scene.providers.bfl.taken.values())[-1]
        assert second.token != first.token
        assert second.secret != first.secret

    async def test_the_first_token_stays_valid_and_the_first_result_wins(self, scene: Scene) -> None:
        job, first = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT)
        await scene.after(121)
        second = list(scene.providers.bfl.taken.values())[-1]
        scene.providers.bfl.succeed(first)
        scene.providers.bfl.succeed(second)
        await scene.bfl_calls(first, cost=5)
        won = await scene.job(job.id)
        assert won.state is JobState.SUCCEEDED
        assert won.output is not None
        assert first.id in won.output.images[0].url
        await scene.bfl_calls(second, cost=7)
        late = await scene.job(job.id)
        assert late.output == won.output
        assert late.attempts[1].output is not None
        assert second.id in late.attempts[1].output.images[0].url
        assert [str(attempt.cost_usd) for attempt in late.attempts] == ["0.05", "0.07"]
        assert (await scene.event_types(job.id))[-1] == "job.late_result"

    async def test_what_the_first_attempt_brings_while_the_second_is_sent_ends_the_job(
        self, scene: Scene
    ) -> None:
        job, first = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT)
        scene.providers.bfl.succeed(first)

        async def meanwhile(request: httpx.Request) -> httpx.Response:
            await scene.bfl_calls(first)
            return scene.providers.bfl.accept(request)

        scene.providers.bfl.submits.append(meanwhile)
        await scene.after(121)
        done = await scene.job(job.id)
        second = list(scene.providers.bfl.taken.values())[-1]
        assert done.state is JobState.SUCCEEDED
        assert done.attempts[1].provider_request_id == second.id
        scene.providers.bfl.succeed(second)
        await scene.after(61)
        assert (await scene.job(job.id)).attempts[1].output is not None

    async def test_a_second_unknown_holds(self, scene: Scene) -> None:
        job, _ = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT, deadline_s=3000)
        scene.providers.bfl.submits.append(said(500, {}))
        await scene.after(2900)
        held = await scene.job(job.id)
        assert (held.state, len(held.attempts), len(scene.providers.bfl.sent)) == (JobState.UNCERTAIN, 2, 2)
        await scene.after(101)
        assert (await scene.job(job.id)).state is JobState.EXPIRED

    async def test_nothing_is_sent_again_once_the_first_was_found(self, scene: Scene) -> None:
        job, taken = await lost(scene, "fal", on_uncertain=OnUncertain.RESUBMIT)
        scene.fal.listing = scene.fal.listed(entry(scene, taken.id))
        await scene.after(600)
        found = await scene.job(job.id)
        assert (found.state, len(scene.fal.sent), len(found.attempts)) == (JobState.QUEUED, 1, 1)

    async def test_a_cancel_before_it_sends_nothing_more(self, scene: Scene) -> None:
        job, _ = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT)
        await scene.cancel(job.id)
        await scene.after(300)
        assert len(scene.providers.bfl.sent) == 1

    async def test_a_parked_resubmit_keeps_the_second_attempt(self, scene: Scene) -> None:
        job, first = await lost(scene, "bfl", on_uncertain=OnUncertain.RESUBMIT)
        scene.providers.bfl.submits.append(said(429, {}))
        await scene.after(120.5)
        parked = await scene.job(job.id)
        assert (parked.state, len(parked.attempts)) == (JobState.ACCEPTED, 2)
        scene.providers.bfl.succeed(first)
        await scene.bfl_calls(first)
        await scene.after(60)
        done = await scene.job(job.id)
        assert (done.state, done.attempts[1].state) == (JobState.SUCCEEDED, AttemptState.CANCELED)
        assert len(scene.providers.bfl.sent) == 2


async def test_racing_workers_send_each_job_once(scene: Scene) -> None:
    others = [scene.changed(process_id=f"other-{place}") for place in range(3)]
    jobs = [await scene.accept("fal") for _ in range(20)]
    await asyncio.gather(*(other.settle() for other in others))
    assert len(scene.fal.sent) == 20
    for job in jobs:
        assert (await scene.job(job.id)).state is JobState.QUEUED
