"""The ends that we make ourselves: deadline and cancel; what comes after them; and the retry."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from service.domain.failures import ErrorCode
from service.domain.states import JobState, LearnedBy
from service.flows.cancel import cancel
from service.flows.errors import Conflict, NotFound
from tests.paths.flow_providers import Taken, said
from tests.paths.flow_scene import Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


async def ask_times(scene: Scene, taken: Taken, until_s: float) -> list[float]:
    """Let time pass; give at which seconds, from now, questions were asked."""
    began_ms = scene.clock.now_ms
    taken.questions.clear()
    await scene.after(until_s)
    return [(at_ms - began_ms) / 1000 for at_ms in taken.questions]


async def test_at_the_deadline_the_job_expires_and_the_provider_is_asked_to_cancel(scene: Scene) -> None:
    job, taken = await scene.submitted("fal", deadline_s=60)
    await scene.after(59)
    assert taken.cancels == 0
    await scene.after(1)
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.EXPIRED, LearnedBy.CLOCK)
    assert done.error is not None
    assert done.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert taken.cancels == 1
    assert ("cancel.answered", False) in await scene.told(job.id)


@pytest.mark.parametrize("end", ["expired", "canceled"])
async def test_after_the_end_it_is_asked_for_after_one_and_after_five_minutes(scene: Scene, end: str) -> None:
    job, taken = await scene.submitted("fal", deadline_s=60)
    if end == "canceled":
        await scene.cancel(job.id)
    else:
        await scene.after(60)
    assert await ask_times(scene, taken, 600) == [60, 300]
    assert await scene.work(job.id) == {}


async def test_a_forged_callback_after_the_end_does_not_use_up_the_question_after_a_minute(
    scene: Scene,
) -> None:
    job, taken = await scene.submitted("bfl", deadline_s=60)
    await scene.cancel(job.id)
    await scene.after(10)
    await scene.receive("bfl", taken.token, {"x-webhook-secret": "no"}, b"{}")
    assert await ask_times(scene, taken, 400) == [0, 50, 290]


@pytest.mark.parametrize("by", ["poll", "callback"])
async def test_a_late_success_is_recorded_with_its_cost_and_the_output_stays_null(
    scene: Scene, by: str
) -> None:
    job, taken = await scene.submitted("bfl", deadline_s=60)
    await scene.after(60)
    scene.providers.bfl.succeed(taken)
    if by == "callback":
        await scene.bfl_calls(taken, cost=4)
    await scene.after(61)
    done = await scene.job(job.id)
    assert (done.state, done.output) == (JobState.EXPIRED, None)
    late = done.attempts[0]
    assert late.output is not None
    assert late.cost_usd == Decimal("0.04" if by == "callback" else "0.03")
    assert late.learned_by is LearnedBy(by)
    assert (await scene.event_types(job.id))[-2:] == ["job.expired", "job.late_result"]
    assert await scene.work(job.id) == {}


async def test_one_last_question_two_seconds_before_the_deadline(scene: Scene) -> None:
    job, taken = await scene.submitted("fal", deadline_s=100)
    scene.fal.succeed(taken)
    taken.status = "IN_PROGRESS"
    times = await ask_times(scene, taken, 97.5)
    taken.status = "COMPLETED"
    assert times[0] == 20
    assert times[-1] < 97.5
    await scene.after(0.5)
    done = await scene.job(job.id)
    assert (done.state, scene.clock.now_ms) == (JobState.SUCCEEDED, done.deadline_ms - 2_000)


@pytest.mark.parametrize("state", ["accepted", "parked", "uncertain", "queued", "running"])
async def test_a_job_can_be_canceled_from_every_open_state(scene: Scene, state: str) -> None:
    answers = {"parked": said(429, {}), "uncertain": said(500, {})}
    if state in answers:
        scene.fal.submits.append(answers[state])
    job = await scene.accept("fal")
    if state != "accepted":
        await scene.settle()
    if state == "running":
        next(iter(scene.fal.taken.values())).status = "IN_PROGRESS"
        await scene.after(20)
    expected = {"parked": "accepted"}.get(state, state)
    assert (await scene.job(job.id)).state == expected
    done = await scene.cancel(job.id)
    assert (done.state, done.learned_by) == (JobState.CANCELED, LearnedBy.OPERATOR)
    assert done.error is not None
    assert done.error.code is ErrorCode.CANCELED
    sent = len(scene.fal.sent)
    await scene.after(400)
    assert len(scene.fal.sent) == sent
    assert [taken.cancels for taken in scene.fal.taken.values()] == [1] * len(scene.fal.taken)
    assert await scene.work(job.id) == {}
    with pytest.raises(Conflict):
        await scene.cancel(job.id)


async def test_a_job_can_be_canceled_while_it_is_sent(scene: Scene) -> None:
    async def meanwhile(request: httpx.Request) -> httpx.Response:
        assert (await scene.job(job.id)).state is JobState.SUBMITTING
        await scene.cancel(job.id)
        return scene.fal.accept(request)

    scene.fal.submits.append(meanwhile)
    job = await scene.accept("fal")
    await scene.settle()
    assert (await scene.job(job.id)).state is JobState.CANCELED
    (taken,) = scene.fal.taken.values()
    assert taken.cancels == 1


async def test_an_id_that_comes_by_callback_after_the_cancel_is_canceled_too(scene: Scene) -> None:
    async def cut(request: httpx.Request) -> Exception:
        scene.fal.take(request)
        return httpx.ReadError("reset")

    scene.fal.submits.append(cut)
    job = await scene.accept("fal")
    await scene.settle()
    await scene.cancel(job.id)
    (taken,) = scene.fal.taken.values()
    scene.fal.succeed(taken)
    headers, body = scene.fal.callback(taken, now_ms=scene.clock.now_ms)
    taken.status = "IN_PROGRESS"
    await scene.receive("fal", taken.token, headers, body)
    await scene.settle()
    assert taken.cancels == 1
    assert (await scene.job(job.id)).attempts[0].provider_request_id == taken.id


async def test_a_wish_to_cancel_that_does_not_get_through_is_repeated(scene: Scene) -> None:
    job, taken = await scene.submitted("fal")
    taken.cancel_answer = said(503, {})
    await scene.cancel(job.id)
    await scene.after(10)
    assert taken.cancels > 1
    taken.cancel_answer = None
    await scene.after(60)
    answered = [line for line in await scene.history(job.id) if line.type == "cancel.answered"]
    assert len(answered) == 1


async def test_nobody_cancels_another_tenants_job(scene: Scene) -> None:
    job = await scene.accept("fal")
    with pytest.raises(NotFound):
        await cancel(scene.runtime, scene.advance, tenant="other", job_id=job.id, cause="api:key_2")
    assert (await scene.job(job.id)).state is JobState.ACCEPTED
    assert await scene.told(job.id) == [("job.accepted", True)]


async def test_cancel_deadline_and_result_at_once_leave_one_end(scene: Scene) -> None:
    job, taken = await scene.submitted("bfl", deadline_s=60)
    scene.providers.bfl.succeed(taken)
    scene.clock.go(61)
    await asyncio.gather(
        scene.cancel(job.id), scene.bfl_calls(taken), scene.worker._expire(), return_exceptions=True
    )
    await scene.settle()
    moved_to_the_end = [
        line
        for line in await scene.history(job.id)
        if line.moved and line.after in ("succeeded", "canceled", "expired")
    ]
    assert len(moved_to_the_end) == 1
    assert (await scene.job(job.id)).state == moved_to_the_end[0].after


class TestRetry:
    async def test_makes_one_successor_with_a_deadline_of_its_own(self, scene: Scene) -> None:
        scene.fal.submits.append(said(422, {"detail": "no"}))
        job = await scene.accept("fal", deadline_s=100, metadata={"a": "b"})
        await scene.settle()
        scene.clock.go(500)
        first = await scene.retry(job.id)
        again = await scene.retry(job.id)
        assert (first.replayed, again.replayed) == (False, True)
        assert first.job.id == again.job.id != job.id
        assert first.job.retry_of == job.id
        assert first.job.deadline_ms == scene.clock.now_ms + 100_000
        await scene.settle()
        assert (await scene.job(first.job.id)).state is JobState.QUEUED
        assert scene.fal.sent[0].content == scene.fal.sent[1].content

    async def test_at_once_from_several_makes_one_successor(self, scene: Scene) -> None:
        scene.fal.submits.append(said(422, {"detail": "no"}))
        job = await scene.accept("fal")
        await scene.settle()
        others = [scene, *(scene.changed(process_id=f"other-{place}") for place in range(3))]
        came = await asyncio.gather(*(other.retry(job.id) for other in others for _ in range(3)))
        assert len({accepted.job.id for accepted in came}) == 1
        assert [accepted.replayed for accepted in came].count(False) == 1

    async def test_of_an_open_or_succeeded_or_canceled_job_conflicts(self, scene: Scene) -> None:
        job, taken = await scene.submitted("fal")
        with pytest.raises(Conflict):
            await scene.retry(job.id)
        scene.fal.succeed(taken)
        await scene.fal_calls(taken)
        with pytest.raises(Conflict):
            await scene.retry(job.id)
