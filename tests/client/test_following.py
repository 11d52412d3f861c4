"""Following all events: in order, again from where it broke off, with a cursor on each to store."""

import asyncio
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import respx

from service.client import CursorExpired, Event, Fluxgate, Forbidden, UnexpectedAnswer, Unreachable
from tests.client.scene import BASE, JOB_ID, Machine, event, frame, gate, page, place, problem, stream

pytestmark = pytest.mark.anyio
STREAM = f"{BASE}/v1/events/stream"
FEED = f"{BASE}/v1/events"
GREETING = b": connected\n"


async def first(client: Fluxgate, count: int, **wanted: Any) -> list[Event]:
    """Read so many events and leave."""
    found: list[Event] = []
    async with aclosing(client.events(**wanted)) as events:
        async for seen in events:
            found.append(seen)
            if len(found) == count:
                break
    return found


@respx.mock
async def test_events_come_as_they_are_with_the_cursor_behind_each() -> None:
    shown = [event(1), event(5, data={"id": JOB_ID, "state": "running", "seed": 10**30, "note": "ä\u2028"})]
    opened = respx.get(STREAM).mock(return_value=stream(GREETING, b"".join(map(frame, shown))))
    async with gate(Machine()) as client:
        found = await first(client, 2, types=["job.running", "job.succeeded"], after="ZXZlbnRzOjA")
    assert [one.cursor for one in found] == [place(1), place(5)]
    assert (found[0].id, found[0].type, found[0].seq, found[0].job_id) == ("evt_1", "job.running", 1, JOB_ID)
    assert found[1].data == shown[1]["data"]
    assert found[1].text in frame(shown[1])
    request = opened.calls.last.request
    assert request.url.params["types"] == "job.running,job.succeeded"
    assert request.headers["last-event-id"] == "ZXZlbnRzOjA"


@respx.mock
async def test_a_broken_stream_goes_on_and_shows_nothing_twice() -> None:
    opened = respx.get(STREAM).mock(
        side_effect=[
            stream(GREETING, frame(event(1)), frame(event(2))[:-1], httpx.RemoteProtocolError("incomplete")),
            stream(GREETING, frame(event(2))),
            httpx.ConnectError("restarting"),
            stream(b"\r\n: connected\r\n", frame(event(3)).replace(b"\n", b"\r\n")),
        ]
    )
    async with gate(Machine()) as client:
        assert [one.seq for one in await first(client, 3)] == [1, 2, 3]
    resumed = [call.request.headers.get("last-event-id") for call in opened.calls]
    assert resumed == [None, place(1), place(2), place(2)]


@respx.mock
async def test_where_streams_do_not_work_the_feed_is_read_page_by_page() -> None:
    machine = Machine()
    respx.get(STREAM).mock(side_effect=[stream(frame(event(1)), b"data: broken\n\n")])
    feed = respx.get(FEED).mock(
        side_effect=[
            page(event(2), event(3), following=7),
            page(following=9),
            problem(503, "unavailable"),
            page(event(10), following=10),
        ]
    )
    async with gate(machine) as client:
        found = await first(client, 4, types=["job.running"])
    assert [(one.seq, one.cursor) for one in found] == [(seq, place(seq)) for seq in (1, 2, 3, 10)]
    asked = [dict(call.request.url.params) for call in feed.calls]
    assert [query["after"] for query in asked] == [place(1), place(7), place(9), place(9)]
    assert {query["types"] for query in asked} == {"job.running"}
    assert {query["wait"] for query in asked} == {"20"}
    # The empty page came at once: nobody asks on at once.
    assert machine.naps[0] == 1.0


@respx.mock
async def test_cursors_of_another_make_are_only_passed_on() -> None:
    respx.get(STREAM).mock(return_value=problem(404, "not_found"))
    answers = [
        httpx.Response(200, json={"data": [event(1), event(2)], "next_cursor": "v2.aaa"}),
        httpx.Response(200, json={"data": [event(3), event(4)], "next_cursor": "v2.bbb"}),
    ]
    respx.get(FEED).mock(side_effect=answers)
    async with gate(Machine()) as client:
        found = await first(client, 4, after="v2.000")
    # A consumer that goes on at any of them may see some events again, and misses none.
    assert [one.cursor for one in found] == ["v2.000", "v2.aaa", "v2.aaa", "v2.bbb"]


@respx.mock
async def test_from_now_on_means_from_one_place_however_often_the_stream_breaks() -> None:
    now = respx.get(FEED).mock(return_value=page(following=41))
    opened = respx.get(STREAM).mock(side_effect=[httpx.ReadError("reset"), stream(frame(event(42)))])
    async with gate(Machine()) as client:
        (found,) = await first(client, 1, after="now")
    assert found.seq == 42
    assert now.calls.last.request.url.params["after"] == "now"
    assert [call.request.headers["last-event-id"] for call in opened.calls] == [place(41)] * 2


@respx.mock
@pytest.mark.parametrize("by", ["stream", "feed"])
async def test_an_expired_cursor_tells_the_oldest_one(by: str) -> None:
    expired = problem(410, "cursor_expired", oldest_cursor=place(100))
    respx.get(STREAM).mock(return_value=expired if by == "stream" else httpx.Response(404))
    respx.get(FEED).mock(return_value=expired)
    async with gate(Machine()) as client:
        with pytest.raises(CursorExpired) as caught:
            await first(client, 1, after=place(1))
    assert (caught.value.oldest_cursor, caught.value.cursor) == (place(100), place(1))


@respx.mock
async def test_a_key_that_may_not_read_events_is_told_so() -> None:
    respx.get(STREAM).mock(return_value=problem(403, "forbidden"))
    async with gate(Machine()) as client:
        with pytest.raises(Forbidden):
            await first(client, 1)


@respx.mock
@pytest.mark.parametrize("by", ["stream", "feed"])
async def test_when_patience_ends_the_error_says_where_to_go_on(by: str) -> None:
    gone = httpx.ConnectError("refused")
    if by == "stream":
        respx.get(STREAM).mock(side_effect=[stream(frame(event(1))), *[gone] * 100])
    else:
        respx.get(STREAM).mock(return_value=httpx.Response(404))
        respx.get(FEED).mock(side_effect=[page(event(1), following=1), *[gone] * 100])
    async with gate(Machine()) as client:
        with pytest.raises(Unreachable) as caught:
            await first(client, 2)
    assert caught.value.cursor == place(1)


@respx.mock
@pytest.mark.parametrize(
    "answer",
    [
        {"data": {}, "next_cursor": "x"},
        {"data": [], "next_cursor": None},
        {"data": [{"id": "evt_1"}], "next_cursor": "x"},
        {"data": ["evt"], "next_cursor": "x"},
    ],
)
async def test_a_page_that_is_none_is_named_so(answer: Any) -> None:
    respx.get(STREAM).mock(return_value=httpx.Response(404))
    respx.get(FEED).respond(200, json=answer)
    async with gate(Machine()) as client:
        with pytest.raises(UnexpectedAnswer):
            await first(client, 1)


@respx.mock
async def test_a_slow_consumer_is_not_hurried() -> None:
    """No timeout of ours may end what the consumer does between two events."""
    respx.get(STREAM).mock(return_value=stream(GREETING, frame(event(1)), frame(event(2))))
    async with gate(Machine()) as client:
        seen = []
        async with aclosing(client.events()) as events:
            async for one in events:
                await asyncio.sleep(0.05)
                seen.append(one.seq)
                if len(seen) == 2:
                    break
    assert seen == [1, 2]
