"""What a submit may come to: taken, refused for good, put off with the same attempt, or unknown."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain import facts
from service.domain.failures import ErrorCode
from service.domain.states import AttemptState, JobState, LearnedBy
from service.flows import submit
from service.flows.work import DUTIES
from service.storage.database import DatabaseUnavailable
from tests.paths.flow_providers import Answer, said
from tests.paths.flow_scene import ON_ONE_DATABASE, Outage, Scene, scene_of

LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance."}
WRONG = {
    "detail": [
        {"loc": ["body", "num_images"], "msg": "no", "type": "less_than_equal", "input": "secret prompt"}
    ]
}
REFUSED = httpx.ConnectError("refused")

PARKING: list[tuple[str, Answer, ErrorCode]] = [
    ("fal", said(401, {"detail": "no"}), ErrorCode.AUTHENTICATION),
    ("fal", said(402, {"detail": "no"}), ErrorCode.INSUFFICIENT_CREDIT),
    ("fal", said(403, LOCKED), ErrorCode.INSUFFICIENT_CREDIT),
    ("fal", said(429, {"detail": "slow"}, retry_after="90"), ErrorCode.RATE_LIMITED),
    ("fal", REFUSED, ErrorCode.PROVIDER_UNAVAILABLE),
    ("bfl", said(402, {"detail": "no"}), ErrorCode.INSUFFICIENT_CREDIT),
    ("bfl", said(429, {"detail": "slow"}), ErrorCode.RATE_LIMITED),
    ("bfl", REFUSED, ErrorCode.PROVIDER_UNAVAILABLE),
]
UNKNOWN: list[tuple[str, Answer]] = [
    ("fal", said(500, {"detail": "oops"})),
    ("fal", said(408, {"detail": "late"})),
    ("fal", said(200, {"no": "id"})),
    ("fal", httpx.ReadTimeout("late")),
    ("fal", httpx.ReadError("reset")),
    ("bfl", said(503, {"detail": "oops"})),
    ("bfl", httpx.ReadError("reset")),
]


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


def world(scene: Scene, provider: str) -> Any:
    return scene.fal if provider == "fal" else scene.providers.bfl


async def test_a_submit_refused_for_good_ends_failed_by_its_response(scene: Scene) -> None:
    scene.fal.submits.append(said(422, WRONG))
    job = await scene.accept("fal")
    await scene.settle()
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.FAILED, LearnedBy.RESPONSE)
    assert done.error is not None
    assert (done.error.code, done.error.provider_status) == (ErrorCode.PROVIDER_REJECTED, 422)
    assert await scene.work(job.id) == {}


async def test_prompts_that_a_refusal_quotes_stay_out_of_events(scene: Scene) -> None:
    scene.fal.submits.append(said(422, WRONG))
    job = await scene.accept("fal")
    await scene.settle()
    failed = (await scene.events(job.id))[-1]
    assert failed.type == "job.failed"
    assert "secret prompt" not in failed.data
    assert json.loads(failed.data)["error"]["provider_error"]["detail"][0]["type"] == "less_than_equal"
    error = (await scene.job(job.id)).error
    assert error is not None
    assert error.provider_error["detail"][0]["input"] == "secret prompt"


@pytest.mark.parametrize(("provider", "answer", "code"), PARKING)
async def test_what_was_not_taken_is_parked_with_the_same_attempt_and_goes_on_by_itself(
    scene: Scene, provider: str, answer: Answer, code: ErrorCode
) -> None:
    world(scene, provider).submits.extend([answer] * 3)
    job = await scene.accept(provider)
    began_ms = scene.clock.now_ms
    await scene.settle()
    waits: list[int] = []
    for _ in range(3):
        parked = await scene.job(job.id)
        assert parked.state is JobState.ACCEPTED
        assert parked.waiting is not None
        assert (parked.waiting.code, parked.waiting.since_ms) == (code, began_ms)
        wait_ms = parked.waiting.next_try_ms - scene.clock.now_ms
        assert await scene.work(job.id) == {("submit", 0): wait_ms}
        waits.append(wait_ms)
        await scene.after(wait_ms / 1000)
    retry_after = isinstance(answer, httpx.Response) and "retry-after" in answer.headers
    assert waits == [90_000] * 3 if retry_after else waits[0] < waits[1] < waits[2]
    done = await scene.job(job.id)
    assert (done.state, done.waiting, len(done.attempts)) == (JobState.QUEUED, None, 1)
    assert len(world(scene, provider).sent) == 4
    assert await scene.event_types(job.id) == ["job.accepted", "job.submitted"]
    keys = {request.url.params.get("fal_webhook") for request in world(scene, provider).sent}
    assert len(keys) == 1


async def test_a_job_parked_until_its_deadline_ends_expired_with_that_code(scene: Scene) -> None:
    scene.fal.submits.extend([said(403, LOCKED)] * 10)
    job = await scene.accept("fal", deadline_s=60)
    await scene.settle()
    await scene.after(61)
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.EXPIRED, LearnedBy.CLOCK)
    assert done.error is not None
    assert (done.error.code, done.error.retryable) == (ErrorCode.INSUFFICIENT_CREDIT, True)
    assert done.attempts[0].state is AttemptState.EXPIRED
    assert await scene.work(job.id) == {}


@ON_ONE_DATABASE
@pytest.mark.parametrize(("provider", "answer"), UNKNOWN)
async def test_what_may_have_been_taken_is_uncertain_and_not_sent_again(
    scene: Scene, provider: str, answer: Answer
) -> None:
    world(scene, provider).submits.append(answer)
    job = await scene.accept(provider, deadline_s=900)
    await scene.settle()
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    await scene.after(890)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    assert len(world(scene, provider).sent) == 1
    await scene.after(20)
    done = await scene.job(job.id)
    assert done.error is not None
    assert (done.state, done.error.code) == (JobState.EXPIRED, ErrorCode.SUBMIT_UNCERTAIN)
    assert await scene.event_types(job.id) == ["job.accepted", "job.uncertain", "job.expired"]
    assert await scene.work(job.id) == {}


async def test_a_request_that_would_leave_too_late_does_not_leave(scene: Scene) -> None:
    job = await scene.accept("fal")
    turn = scene.runtime
    dues = await turn.door.write(
        lambda tx: submit.work.claim(tx, kind=DUTIES[0].kind, mine=turn.process_id, lease_ms=15_000, most=5)
    )
    (sending,) = await submit.start(turn, scene.advance, dues)
    scene.clock.go(5.1)
    await submit.send(turn, scene.advance, sending)
    assert scene.fal.sent == []
    parked = await scene.job(job.id)
    assert parked.state is JobState.ACCEPTED
    assert parked.waiting is not None
    await scene.after(2)
    assert (await scene.job(job.id)).state is JobState.QUEUED


async def test_nothing_is_sent_for_a_job_whose_deadline_passed_while_nobody_worked(scene: Scene) -> None:
    job = await scene.accept("fal", deadline_s=60)
    scene.clock.go(61)
    await scene.worker._turn(DUTIES[0], set())
    assert scene.fal.sent == []
    done = await scene.job(job.id)
    assert done.error is not None
    assert (done.state, done.error.code) == (JobState.EXPIRED, ErrorCode.DEADLINE_EXCEEDED)


async def test_a_callback_before_the_answer_to_the_submit_is_believed_once_asked_for(scene: Scene) -> None:
    """The callback names an id that is not recorded yet: only our own question moves the job."""
    seen: list[str] = []

    async def early(request: httpx.Request) -> httpx.Response:
        taken = scene.fal.take(request)
        scene.fal.succeed(taken)
        assert (await scene.fal_calls(taken)).status == 200
        (row,) = await scene.table("attempt")
        seen.append(row["state"])
        assert row["candidate_request_id"] == taken.id
        return scene.fal.acceptance(taken)

    scene.fal.submits.append(early)
    job = await scene.accept("fal")
    await scene.settle()
    assert seen == ["submitting"]
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.POLL)
    assert len(done.attempts) == 1
    assert (await scene.callbacks(job.id))[0]["verdict"] == "verified"


async def test_a_bfl_callback_before_the_answer_to_the_submit_ends_the_job(scene: Scene) -> None:
    async def early(request: httpx.Request) -> httpx.Response:
        taken = scene.providers.bfl.take(request)
        scene.providers.bfl.succeed(taken)
        assert (await scene.bfl_calls(taken)).status == 200
        return scene.providers.bfl.acceptance(taken)

    scene.providers.bfl.submits.append(early)
    job = await scene.accept("bfl")
    await scene.settle()
    done = await scene.job(job.id)
    assert (done.state, done.learned_by) == (JobState.SUCCEEDED, LearnedBy.CALLBACK)
    taken = next(iter(scene.providers.bfl.taken.values()))
    assert done.attempts[0].provider_request_id == taken.id
    assert done.attempts[0].cost_usd is not None


async def test_an_answer_with_the_id_of_another_request_proves_nothing(scene: Scene) -> None:
    first, taken = await scene.submitted("fal")
    scene.fal.submits.append(scene.fal.acceptance(taken))
    second = await scene.accept("fal")
    await scene.settle()
    assert (await scene.job(second.id)).state is JobState.UNCERTAIN
    assert (await scene.job(first.id)).state is JobState.QUEUED


async def test_an_answer_that_comes_after_the_cancel_is_kept_and_canceled_at_the_provider(
    scene: Scene,
) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await scene.cancel(job.id)
        return scene.fal.accept(request)

    scene.fal.submits.append(slow)
    job = await scene.accept("fal")
    await scene.settle()
    (taken,) = scene.fal.taken.values()
    assert taken.cancels == 1
    done = await scene.job(job.id)
    assert done.state is JobState.CANCELED
    assert done.attempts[0].provider_request_id == taken.id


async def test_hostile_text_in_a_refusal_ends_the_job_all_the_same(scene: Scene) -> None:
    nasty = b'{"detail":[{"loc":["body"],"msg":"\\u0000 \\ud800","type":"x","input":{"a":"\\udfff"}}]}'
    scene.fal.submits.append(httpx.Response(422, headers={"content-type": "application/json"}, content=nasty))
    job = await scene.accept("fal")
    await asyncio.wait_for(scene.settle(), 20)
    assert (await scene.job(job.id)).state is JobState.FAILED


async def test_the_providers_id_survives_an_outage_of_the_database(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(scene, monkeypatch)

    async def meanwhile(request: httpx.Request) -> httpx.Response:
        outage.gone = True
        return scene.fal.accept(request)

    async def back() -> None:
        while outage.refused < 3:
            await asyncio.sleep(0.01)
        outage.gone = False

    scene.fal.submits.append(meanwhile)
    job = await scene.accept("fal")
    await asyncio.gather(scene.settle(), back())
    (taken,) = scene.fal.taken.values()
    done = await scene.job(job.id)
    assert (done.state, done.attempts[0].provider_request_id) == (JobState.QUEUED, taken.id)


@pytest.mark.parametrize(("failures", "state"), [(3, JobState.QUEUED), (50, JobState.UNCERTAIN)])
async def test_an_answer_that_cannot_be_written_is_tried_again_before_it_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, failures: int, state: JobState
) -> None:
    """A bug of ours in writing one kind of answer down must not keep its attempt in doubt without saying so."""
    real, left = scene.advance.tell, [failures]

    async def tell(steps: Any) -> Any:
        if any(isinstance(step.fact, facts.SubmitAccepted) for step in steps) and left[0]:
            left[0] -= 1
            raise RuntimeError("a bug of ours")
        return await real(steps)

    monkeypatch.setattr(scene.advance, "tell", tell)
    job = await scene.accept("fal")
    await scene.settle()
    assert (await scene.job(job.id)).state is state
    assert len(scene.fal.sent) == 1


async def test_when_intents_cannot_be_committed_nothing_is_sent_and_the_jobs_go_on_after_the_lease(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(scene, monkeypatch)
    job = await scene.accept("fal")
    # The claim is still written, the intent is not.
    outage.gone, outage.left = True, 1
    with pytest.raises(DatabaseUnavailable):
        await scene.worker._turn(DUTIES[0], set())
    outage.gone = False
    assert scene.fal.sent == []
    await scene.worker._renew()
    await scene.settle()
    assert scene.fal.sent == []
    await scene.after(15.1)
    assert (await scene.job(job.id)).state is JobState.QUEUED
    assert len(scene.fal.sent) == 1


async def test_a_submit_that_a_dead_process_had_begun_becomes_uncertain(scene: Scene) -> None:
    job = await scene.accept("fal")
    dead = scene.runtime.process_id
    dues = await scene.runtime.door.write(
        lambda tx: submit.work.claim(tx, kind=DUTIES[0].kind, mine=dead, lease_ms=15_000, most=5)
    )
    await submit.start(scene.runtime, scene.advance, dues)
    await scene.after(14.9)
    assert (await scene.job(job.id)).state is JobState.SUBMITTING
    await scene.after(0.2)
    assert (await scene.job(job.id)).state is JobState.UNCERTAIN
    assert scene.fal.sent == []


async def test_a_claim_that_nobody_knows_of_is_not_held_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim was committed and its answer lost: no process works on it, so no process may renew it."""
    job = await scene.accept("fal")
    real = submit.work.claim

    def lost(*args: Any, **named: Any) -> Any:
        real(*args, **named)
        return []

    monkeypatch.setattr(submit.work, "claim", lost)
    await scene.worker._turn(DUTIES[0], set())
    monkeypatch.setattr(submit.work, "claim", real)
    for _ in range(4):
        scene.clock.go(5)
        await scene.worker._renew()
    await scene.settle()
    assert (await scene.job(job.id)).state is JobState.QUEUED
