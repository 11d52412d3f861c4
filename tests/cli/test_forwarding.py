"""`fluxgate listen` through trouble: a program that stays broken, and a service that goes away and comes back."""

import asyncio

import httpx
import pytest
import respx

from service.cli import listen
from service.cli.forwarding import Forwarder
from service.client import verify_webhook
from service.client.event import event_from
from service.domain.webhook import new_secret
from tests.client.scene import BASE, Machine, event, frame, gate, page, place, problem, stream

pytestmark = pytest.mark.anyio
HOOK = "http://127.0.0.1:3000/hook"
SECRET = new_secret(bytes(range(32)))


def forwarder(machine: Machine, said: list[str]) -> Forwarder:
    return Forwarder(HOOK, SECRET, surroundings=machine.surroundings(), say=said.append)


@respx.mock
async def test_a_program_that_stays_broken_loses_its_event_after_some_tries() -> None:
    machine = Machine()
    said: list[str] = []
    broken = [httpx.ConnectError("connection refused"), httpx.Response(302), httpx.Response(599)]
    hook = respx.post(HOOK).mock(side_effect=[*broken, httpx.ReadTimeout(""), httpx.Response(410)])
    to = forwarder(machine, said)
    assert await to.forward(event_from(event(7))) is False
    await to.aclose()
    assert machine.naps == [0.5, 1, 2, 4]
    assert [line.partition(" job.running job_0199 ")[2] for line in said] == [
        "connection refused: again in 0.5 s",
        "302 Found in 0 ms: again in 1 s",
        "599 in 0 ms: again in 2 s",
        "ReadTimeout: again in 4 s",
        "410 Gone in 0 ms: left out",
    ]
    assert said[0].startswith("1970-01-01T00:16:40.000Z ")
    # Each try was signed anew, for its own time.
    for call, at_s in zip(hook.calls, (1000, 1000, 1001, 1003, 1007), strict=True):
        assert call.request.headers["webhook-timestamp"] == str(at_s)
        shown = verify_webhook(call.request.headers, call.request.content, SECRET, now_s=at_s)
        assert shown.id == "evt_7"


@respx.mock
async def test_a_service_that_goes_away_is_followed_again_when_it_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Machine()
    gone = httpx.ConnectError("connection refused")
    respx.get(f"{BASE}/v1/events").mock(return_value=page(following=6))
    opened = respx.get(f"{BASE}/v1/events/stream").mock(
        side_effect=[
            stream(frame(event(7))), *[gone] * 8, *[problem(503, "unavailable")] * 8, stream(frame(event(9))),
            *[gone] * 1000,
        ]
    )  # fmt: skip
    hook = respx.post(HOOK).respond(204)
    to = forwarder(machine, [])
    async with gate(machine, retry_for_s=5) as client:
        following = asyncio.create_task(listen._follow(client, to, after="now", types=[], ready="ready"))
        async with asyncio.timeout(10):
            while hook.call_count < 2:
                await asyncio.sleep(0.01)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    await to.aclose()
    assert [call.request.headers["webhook-id"] for call in hook.calls] == ["evt_7", "evt_9"]
    assert opened.calls[1].request.headers["last-event-id"] == place(7)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ready"
    assert "fluxgate: the service did not answer: connection refused; trying on" in lines
    assert lines[-1] == f"fluxgate: stopped; --after {place(9)} goes on here"
