"""Waiting for a job: by its stream, and by the other ways where the stream does not work."""

import asyncio
from typing import Any

import httpx
import pytest
import respx

from service.client import (
    Forbidden,
    Job,
    JobBlocked,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotSucceeded,
    NotFound,
    Unauthenticated,
    Unreachable,
    WaitTimedOut,
)
from service.client import streams as client_streams
from tests.client.scene import BASE, JOB_ID, Machine, event, frame, gate, job, page, problem, stream

pytestmark = pytest.mark.anyio
JOB = f"{BASE}/v1/jobs/{JOB_ID}"
STREAM = f"{JOB}/events/stream"
FEED = f"{BASE}/v1/events"
OUTPUT = {"images": [{"url": "https://files.example/1.png"}], "seed": "7", "raw": {"a": 1}}
GREETING = b": connected\n"
ENDED = event(3, "job.succeeded", state="succeeded")


async def a_job(client: Any, state: str = "queued") -> Job:
    respx.get(JOB, name="first").respond(200, json=job(state))
    return await client.get(JOB_ID)  # type: ignore[no-any-return]


def job_answers(*answers: Any) -> respx.Route:
    """Let the job be read as these, one after the other."""
    return respx.get(JOB, name="first").mock(side_effect=list(answers))


def shown(state: str, **fields: Any) -> httpx.Response:
    return httpx.Response(200, json=job(state, **fields))


@respx.mock
async def test_a_stream_tells_the_end_and_the_job_itself_is_the_result() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        opened = respx.get(STREAM).mock(
            return_value=stream(GREETING, frame(event(2)), b": still here\n", frame(ENDED))
        )
        looks = job_answers(shown("queued"), shown("succeeded", output=OUTPUT))
        done = await waiting.result()
    assert (done.state, done.output) == ("succeeded", OUTPUT)
    assert (opened.call_count, looks.call_count - 1) == (1, 2)
    assert opened.calls.last.request.headers["accept"] == "text/event-stream"


@respx.mock
async def test_a_job_that_ended_before_the_stream_opened_is_seen_at_once() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(return_value=stream(GREETING))
        job_answers(shown("succeeded", output=OUTPUT))
        assert (await waiting.result(timeout=5)).output == OUTPUT


@respx.mock
async def test_a_final_job_is_not_asked_for_again() -> None:
    async with gate(Machine()) as client:
        done = await a_job(client, "succeeded")
        assert await done.result() is done
    assert respx.calls.call_count == 1


ENDS = [
    ("failed", JobFailed),
    ("blocked", JobBlocked),
    ("canceled", JobCanceled),
    ("expired", JobExpired),
]


@respx.mock
@pytest.mark.parametrize(("state", "kind"), ENDS)
async def test_every_other_end_is_an_error_with_the_job_on_it(
    state: str, kind: type[JobNotSucceeded]
) -> None:
    why = {"code": "provider_failed", "message": "out of order", "retryable": True}
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(return_value=stream(frame(event(3, f"job.{state}", state=state))))
        job_answers(shown("queued"), shown(state, error=why))
        with pytest.raises(JobNotSucceeded, match=f"{state}: provider_failed: out of order") as caught:
            await waiting.result()
    assert type(caught.value) is kind
    assert (caught.value.job.state, caught.value.job.error) == (state, why)


@respx.mock
async def test_a_stream_that_breaks_goes_on_behind_the_last_whole_event() -> None:
    whole, half = frame(event(2)), frame(ENDED)[:40]
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        opened = respx.get(STREAM).mock(
            side_effect=[
                stream(GREETING, whole, half, httpx.ReadError("reset")),
                httpx.ConnectError("refused"),
                problem(503, "unavailable", headers={"Retry-After": "2"}),
                stream(GREETING, frame(ENDED)),
            ]
        )
        job_answers(shown("queued"), shown("running"), shown("succeeded"))
        assert (await waiting.result()).state == "succeeded"
    resumed = [call.request.headers.get("last-event-id") for call in opened.calls]
    assert resumed == [None, *["ZXZlbnRzOjI"] * 3]


UNUSABLE = [
    lambda: problem(404, "not_found"),
    lambda: httpx.Response(406),
    lambda: httpx.Response(200, html="<p>hello</p>"),
    lambda: stream(b'data: {"no":"event"}\n\n'),
    lambda: stream(b"data: no json\n\n"),
    lambda: httpx.Response(302, headers={"Location": "/login"}),
]


@respx.mock
@pytest.mark.parametrize("answer", UNUSABLE, ids=range(len(UNUSABLE)))
async def test_where_streams_do_not_work_the_job_is_polled_and_no_other_stream_tried(answer: Any) -> None:
    machine = Machine()
    async with gate(machine) as client:
        waiting = await a_job(client)
        opened = respx.get(STREAM).mock(side_effect=lambda _: answer())
        looks = job_answers(*[shown("running")] * 3, shown("succeeded"), shown("succeeded"))
        assert (await waiting.result()).state == "succeeded"
        assert (await waiting.result()).state == "succeeded"
        assert opened.call_count == 1
        assert looks.calls.last.request.url.params["wait"] == "20"
        # Minutes later somebody may have mended it.
        machine.now_s += 601
        looks.mock(side_effect=None, return_value=shown("succeeded"))
        await waiting.result()
        assert opened.call_count == 2


@respx.mock
async def test_a_stream_that_ends_again_and_again_without_a_word_is_given_up() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        opened = respx.get(STREAM).mock(side_effect=lambda _: stream())
        job_answers(shown("succeeded"))
        assert (await waiting.result()).state == "succeeded"
    assert opened.call_count == 3


@respx.mock
async def test_a_proxy_that_collects_the_stream_does_not_hold_up_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_streams, "_GREETING_S", 0.05)

    async def collected(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return stream(frame(ENDED))

    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(side_effect=collected)
        job_answers(shown("succeeded"))
        async with asyncio.timeout(5):
            assert (await waiting.result()).state == "succeeded"


@respx.mock
async def test_a_stream_that_falls_silent_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_streams, "SILENCE_S", 0.05)

    async def silent() -> Any:
        yield GREETING
        yield frame(event(2))
        await asyncio.sleep(60)

    answers = [
        httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=silent()),
        stream(frame(ENDED)),
    ]
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        opened = respx.get(STREAM).mock(side_effect=answers)
        job_answers(shown("running"), shown("running"), shown("succeeded"))
        async with asyncio.timeout(5):
            assert (await waiting.result()).state == "succeeded"
    assert opened.calls.last.request.headers["last-event-id"] == "ZXZlbnRzOjI"


@respx.mock
async def test_a_key_that_reads_only_jobs_waits_by_polls() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(return_value=problem(403, "forbidden"))
        job_answers(shown("running"), shown("succeeded", output=OUTPUT))
        assert (await waiting.result()).output == OUTPUT


@respx.mock
async def test_a_key_that_reads_only_events_waits_by_the_feed() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(JOB, name="first").mock(return_value=problem(403, "forbidden"))
        respx.get(STREAM).mock(return_value=problem(404, "not_found"))
        other = event(3, "job.succeeded", state="succeeded", job_id="job_other")
        feed = respx.get(FEED).mock(
            side_effect=[page(other, following=3), page(ENDED | {"seq": 4}, following=4)]
        )
        assert (await waiting.result()).state == "succeeded"
        assert feed.calls.last.request.url.params["after"] == "ZXZlbnRzOjM"


@respx.mock
async def test_a_key_that_reads_only_events_trusts_the_stream() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(JOB, name="first").mock(return_value=problem(403, "forbidden"))
        respx.get(STREAM).mock(return_value=stream(GREETING, frame(ENDED)))
        assert (await waiting.result()).state == "succeeded"


@respx.mock
async def test_a_key_that_may_read_nothing_is_told_so() -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        for url in (STREAM, FEED, JOB):
            respx.get(url, name="first" if url == JOB else None).mock(return_value=problem(403, "forbidden"))
        with pytest.raises(Forbidden):
            await waiting.result()


@respx.mock
@pytest.mark.parametrize(
    ("status", "code", "kind"), [(401, "unauthenticated", Unauthenticated), (404, "not_found", NotFound)]
)
async def test_a_refusal_ends_the_waiting(status: int, code: str, kind: type[Exception]) -> None:
    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(return_value=problem(status, code))
        respx.get(JOB, name="first").mock(return_value=problem(status, code))
        with pytest.raises(kind):
            await waiting.result()


@respx.mock
async def test_a_service_that_stays_away_is_told_as_such() -> None:
    machine = Machine()
    async with gate(machine, retry_for_s=30) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(side_effect=httpx.ConnectError("refused"))
        with pytest.raises(Unreachable, match="refused"):
            await waiting.result()
    assert 20 < sum(machine.naps) <= 30


@respx.mock
async def test_a_timeout_gives_back_the_job_as_last_seen() -> None:
    async def idle() -> Any:
        yield GREETING
        await asyncio.sleep(60)

    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).respond(200, headers={"Content-Type": "text/event-stream"}, content=idle())
        job_answers(shown("running"))
        with pytest.raises(WaitTimedOut, match=f"{JOB_ID} was running after 0.05 s") as caught:
            await waiting.result(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job.state == "running"


@respx.mock
async def test_a_wait_can_be_canceled() -> None:
    async def idle() -> Any:
        yield GREETING
        await asyncio.sleep(60)

    async with gate(Machine()) as client:
        waiting = await a_job(client)
        respx.get(STREAM).respond(200, headers={"Content-Type": "text/event-stream"}, content=idle())
        job_answers(*[shown("running")] * 2)
        task = asyncio.create_task(waiting.result(timeout=30))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@respx.mock
async def test_polls_that_are_answered_at_once_do_not_become_a_storm() -> None:
    machine = Machine()
    async with gate(machine) as client:
        waiting = await a_job(client)
        respx.get(STREAM).mock(return_value=httpx.Response(404))
        job_answers(*[shown("running")] * 5, shown("succeeded"))
        await waiting.result()
    assert machine.naps == [1.0] * 5
