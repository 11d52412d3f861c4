"""Server-sent events over a real server: exact, resumed, patient with the idle and not with the stuck."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.domain.cursors import cursor
from service.flows import keys as key_flow
from service.flows.tail import Pace
from service.storage import events, keys, retention
from service.storage.events import Event
from service.web.app import create_app
from service.wiring import Service, running
from tests.paths.sse import Served, serving, streaming
from tests.paths.visitors import House, paths_of, problem, settings, submit

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
MIB = 1024 * 1024


@pytest.fixture
async def served(house: House) -> AsyncIterator[Served]:
    async with serving(house) as made:
        yield made


async def until(holds: Any, within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def tell(service: Service, count: int, *, tenant: str = "default", size: int = 10) -> None:
    """Let events happen that belong to no job, with so many bytes of data each."""
    made = [
        Event(
            id=service.runtime.make_id("evt"),
            tenant=tenant,
            type="endpoint.test",
            job_id=None,
            job_seq=None,
            at_ms=service.runtime.now_ms(),
            data='{"id":"' + "x" * size + '"}',
        )
        for _ in range(count)
    ]
    await service.runtime.door.write(lambda tx: events.append(tx, made))
    service.runtime.bell.ring({"feed"})


async def prune(service: Service, seq: int) -> None:
    """Prune every event up to a number."""

    def work(tx: Any) -> None:
        tx.run_many(retention._NOTE, [{"name": "fan_out", "value": seq}])
        retention.prune_events(tx, before_ms=service.runtime.now_ms() + 1, most=1000)

    await service.runtime.door.write(work)


def readers(service: Service) -> int:
    return len(service.tail._readers)


async def test_a_stream_has_the_bytes_of_the_feed_and_its_ids_are_the_feeds_cursors(served: Served) -> None:
    client = await served.client()
    for number in range(3):
        await served.house.succeeded(await submit(client, metadata={"n": f"{number}\u2028 ключ"}))
    async with streaming(client) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream"
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        await stream.until(9)
        later = await submit(client)
        told = list(await stream.until(10))
    assert told[-1].body["job_id"] == later
    page = await client.get("/v1/events")
    assert (
        page.content
        == b'{"data":['
        + b",".join(one.data for one in told)
        + b'],"next_cursor":"'
        + told[-1].id.encode()
        + b'"}'
    )
    assert [one.event for one in told] == [one.body["type"] for one in told]
    for place, one in enumerate(told):
        rest = (await client.get("/v1/events", params={"after": one.id})).json()["data"]
        assert [event["id"] for event in rest] == [event.body["id"] for event in told[place + 1 :]]


async def test_a_reader_goes_on_behind_the_last_id_that_it_has_seen(served: Served) -> None:
    client = await served.client()
    await tell(served.house.service, 5)
    async with streaming(client) as stream:
        told = list(await stream.until(5))
    await tell(served.house.service, 2)
    seen = {"Last-Event-ID": told[2].id}
    for request in ({"headers": seen}, {"params": {"after": told[2].id}}):
        async with streaming(client, **request) as stream:
            assert [one.body["seq"] for one in await stream.until(4)] == [4, 5, 6, 7]
    async with streaming(client, headers=seen, params={"after": told[4].id}) as stream:
        assert (await stream.until(4))[0] == told[3], "the header is stronger"
    async with streaming(client, headers={"Last-Event-ID": ""}) as stream:
        assert (await stream.until(7))[0] == told[0]


async def test_who_wants_only_what_happens_from_now_on_says_so(served: Served) -> None:
    client = await served.client()
    await tell(served.house.service, 3)
    page = (await client.get("/v1/events?after=now")).json()
    assert page == {"data": [], "next_cursor": cursor("events", 3)}
    async with streaming(client, params={"after": "now"}) as stream:
        await stream.until_comment("connected")
        await tell(served.house.service, 1)
        assert [one.body["seq"] for one in await stream.until(1)] == [4]


async def test_the_feed_has_what_was_just_answered_also_while_streams_are_open(served: Served) -> None:
    client = await served.client()
    async with streaming(client) as stream:
        await stream.until_comment("connected")
        after = cursor("events", 0)
        for _ in range(20):
            job_id = await submit(client)
            page = (await client.get("/v1/events", params={"after": after})).json()
            assert [event["job_id"] for event in page["data"]] == [job_id]
            after = page["next_cursor"]


async def test_types_choose_and_other_tenants_see_nothing(served: Served) -> None:
    client, other = await served.client(), await served.client(tenant="other")
    async with (
        streaming(client, params={"types": "job.succeeded,job.failed"}) as some,
        streaming(other) as nothing,
    ):
        done, failed = await submit(client), await submit(client)
        await served.house.succeeded(done)
        await served.house.failed(failed)
        told = await some.until(2)
        assert [(one.event, one.body["job_id"]) for one in told] == [
            ("job.succeeded", done),
            ("job.failed", failed),
        ]
        assert nothing.told == []


async def test_a_job_has_a_stream_of_its_own(served: Served) -> None:
    client = await served.client(scopes=["jobs:read", "jobs:write"])
    one, other = await submit(client), await submit(client)
    path = f"/v1/jobs/{one}/events/stream"
    async with streaming(client, path) as stream:
        await stream.until(1)
        await served.house.succeeded(other)
        await served.house.succeeded(one)
        told = list(await stream.until(3))
        assert [(each.body["job_id"], each.body["job_seq"]) for each in told] == [
            (one, 1),
            (one, 2),
            (one, 3),
        ]
    async with streaming(client, path, headers={"Last-Event-ID": told[1].id}) as stream:
        assert await stream.until(1) == [told[2]]
    async with streaming(client, path, params={"types": "job.succeeded"}) as stream:
        assert await stream.until(1) == [told[2]]


async def test_a_wrong_question_is_answered_before_the_stream_begins(served: Served) -> None:
    client, other = await served.client(), await served.client(tenant="other")
    job_id = await submit(client)
    for path in ("/v1/events/stream", f"/v1/jobs/{job_id}/events/stream"):
        for value in ("1", "ZXZlbnRzOi0x", "now", "am9iczpqb2JfMQ"):
            answer = await client.get(path, headers={"Last-Event-ID": value})
            assert paths_of(problem(answer, 422, "invalid_input")) == ["Last-Event-ID"]
        twice = [("Last-Event-ID", cursor("events", 1)), ("Last-Event-ID", cursor("events", 2))]
        assert paths_of(problem(await client.get(path, headers=twice), 422, "invalid_input")) == [
            "Last-Event-ID"
        ]
        for query, named in (("after=1", "after"), ("types=job.done", "types"), ("limit=5", "limit")):
            assert paths_of(problem(await client.get(f"{path}?{query}"), 422, "invalid_input")) == [named]
    problem(await other.get(f"/v1/jobs/{job_id}/events/stream"), 404, "not_found")
    problem(await client.get("/v1/jobs/job_0/events/stream"), 404, "not_found")
    submitter = await served.client(scopes=["jobs:read"])
    problem(await submitter.get("/v1/events/stream"), 403, "forbidden")
    problem(await client.post("/v1/events/stream"), 405, "method_not_allowed")


async def test_head_tells_how_a_stream_would_begin(house: House) -> None:
    visitor = await house.visitor()
    for path in ("/v1/events/stream", f"/v1/jobs/{await submit(visitor)}/events/stream"):
        answer = await visitor.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "text/event-stream"
        assert "content-length" not in answer.headers
        refused = await visitor.head(path, headers={"Last-Event-ID": "1"})
        assert refused.status_code == 422
    assert readers(house.service) == 0


async def test_an_expired_cursor_is_answered_with_the_oldest_one(served: Served) -> None:
    client = await served.client()
    await tell(served.house.service, 5)
    await prune(served.house.service, 3)
    for request in (
        {"params": {"after": cursor("events", 2)}},
        {"headers": {"Last-Event-ID": cursor("events", 2)}},
    ):
        answer = await client.get("/v1/events/stream", **request)
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_expired")
        oldest = answer.json()["oldest_cursor"]
        async with streaming(client, headers={"Last-Event-ID": oldest}) as stream:
            assert [one.body["seq"] for one in await stream.until(2)] == [4, 5]
    async with streaming(client) as stream:
        assert [one.body["seq"] for one in await stream.until(2)] == [4, 5]


@ON_ONE_DATABASE
async def test_a_reader_that_the_pruning_overtakes_is_told_and_ended(house: House) -> None:
    house.service.pace = Pace(stuck_s=30)
    async with serving(house) as served:
        client = await served.client()
        await tell(house.service, 200, size=100_000)
        with slow_reader(served.url, client.headers["authorization"]) as taken:
            await until(lambda: readers(house.service) == 1)
            await asyncio.sleep(0.2)  # it is stuck somewhere in the first half
            await prune(house.service, 199)
            text = await asyncio.to_thread(taken.everything)
        assert b"\n: cursor_expired" in text[-200:]
        assert text.endswith(b"\n")
        last = re.findall(rb"^id: (\S+)$", text, re.MULTILINE)[-1].decode()
        gone = await client.get("/v1/events/stream", headers={"Last-Event-ID": last})
        assert gone.status_code == 410


@ON_ONE_DATABASE
async def test_a_comment_comes_at_every_beat_also_between_events(house: House) -> None:
    assert Pace().beat_s == 15.0
    house.service.pace = Pace(beat_s=0.1)
    async with serving(house) as served:
        client = await served.client()
        async with streaming(client) as idle:
            began = time.monotonic()
            await idle.until_comment("still here", count=8)
            assert 0.5 < time.monotonic() - began < 3
            for _ in range(10):
                await tell(house.service, 1)
                await asyncio.sleep(0.05)
            await idle.until(10)
            await idle.until_comment("still here", count=12)
        # Not one empty line more than events: some clients take it for an event without data.
        assert idle.raw.count(b"\n\n") == 10
        assert idle.comments[0] == "connected"


class _Slow:
    """A client that takes nothing until it is told to."""

    def __init__(self, url: str, key: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((host, int(port)))
        request = f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n"
        self._socket.sendall(request.encode())

    def everything(self) -> bytes:
        """Read until the other side ends, and give what was sent, without the marks of the chunks."""
        taken = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := self._socket.recv(1 << 20):
                taken += piece
                if taken.endswith(b"0\r\n\r\n"):
                    break
        body, found = bytes(taken).partition(b"\r\n\r\n")[2], bytearray()
        while body:
            size, _, body = body.partition(b"\r\n")
            found += body[: int(size or b"0", 16)]
            body = body[int(size or b"0", 16) + 2 :]
        return bytes(found)

    def close(self) -> None:
        self._socket.close()


def slow_reader(url: str, key: str) -> contextlib.closing[_Slow]:
    return contextlib.closing(_Slow(url, key))


@ON_ONE_DATABASE
async def test_stuck_readers_are_cut_off_cost_little_and_can_go_on(house: House) -> None:
    count, size, slow = 300, 100_000, 40
    house.service.pace = Pace(stuck_s=1.0)
    async with serving(house) as served:
        client = await served.client()
        await tell(house.service, 1, size=size)
        process = psutil.Process()
        before = process.memory_info().rss
        with contextlib.ExitStack() as stack:
            taken = [
                stack.enter_context(slow_reader(served.url, client.headers["authorization"]))
                for _ in range(slow)
            ]
            await until(lambda: readers(house.service) == slow)
            for _ in range(count // 30):
                await tell(house.service, 30, size=size)
                await asyncio.sleep(0.01)
            highest = process.memory_info().rss
            await until(lambda: readers(house.service) == 0, within_s=10)
            highest = max(highest, process.memory_info().rss)
            text = await asyncio.to_thread(taken[0].everything)
        # Queued for each of them it would be more than a gigabyte; each may have what is sent at once, and a little.
        assert (highest - before) / MIB < 150
        seen = [int(found) for found in re.findall(rb'"seq":(\d+),"type"', text)]
        whole = text.rpartition(b"\n\n")[0]
        last = re.findall(rb"^id: (\S+)$", whole, re.MULTILINE)[-1].decode()
        async with streaming(client, headers={"Last-Event-ID": last}) as stream:
            left = count + 1 - len(re.findall(rb"^id: ", whole, re.MULTILINE))
            assert 0 < left < count + 1
            rest = [one.body["seq"] for one in await stream.until(left, within_s=10)]
        assert rest == list(range(count + 2 - left, count + 2))
        assert seen[: count + 1 - left] == list(range(1, count + 2 - left))


@ON_ONE_DATABASE
async def test_a_reader_that_goes_away_is_forgotten(served: Served) -> None:
    client = await served.client()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(streaming(client))
        await until(lambda: readers(served.house.service) == 10)
    await until(lambda: readers(served.house.service) == 0, within_s=2)


async def test_a_revoked_key_ends_its_streams(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_flow._LOOK_EVERY_MS + 2 * Pace().beat_s * 1000 < 60_000, "within a minute"
    monkeypatch.setattr(key_flow, "_LOOK_EVERY_MS", 50)
    house.service.pace = Pace(beat_s=0.1)
    async with serving(house) as served:
        client, other = await served.client(), await served.client()
        async with streaming(client) as stream, streaming(other) as stays:
            await stream.until_comment("still here")
            await stays.until_comment("still here")
            first = (await house.service.runtime.door.read(keys.all_keys))[0]
            assert await key_flow.revoke(house.service.runtime, first.id)
            await stream.until_ended()
            assert stream.comments[-1].startswith("unauthenticated")
            heard = len(stays.comments)
            await stays.until_comment("still here", count=heard + 2)
            assert not stays.ended.is_set()


@ON_ONE_DATABASE
async def test_a_thousand_streams_ask_for_their_keys_once(house: House) -> None:
    asked: list[int] = []
    real = keys.revoked_among

    async with serving(house) as served:
        clients = [await served.client() for _ in range(3)]
        found = [await house.service.keys.find(c.headers["authorization"][7:]) for c in clients]
        ids = [key.id for key in found if key is not None]

        def counted(tx: Any, key_ids: Any) -> set[str]:
            asked.append(len(key_ids))
            return real(tx, key_ids)

        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            patch.setattr(keys, "revoked_among", counted)
            for number in range(1000):
                stack.enter_context(house.service.keys.using(ids[number % 3]))
            assert all(
                await asyncio.gather(*(house.service.keys.still_valid(ids[n % 3]) for n in range(1000)))
            )
        assert asked == [3]


@pytest.mark.parametrize("stuck", [False, True], ids=["idle", "stuck"])
@ON_ONE_DATABASE
async def test_the_stop_ends_streams_at_once(house: House, stuck: bool) -> None:
    async with contextlib.AsyncExitStack() as outliving:
        async with serving(house) as served:
            client, busy = await served.client(), await served.client(tenant="busy")
            outliving.push_async_exit(served.clients.pop_all())
            streams = [await outliving.enter_async_context(streaming(client)) for _ in range(20)]
            if stuck:
                outliving.enter_context(slow_reader(served.url, busy.headers["authorization"]))
                await until(lambda: readers(house.service) == 21)
                await tell(house.service, 100, tenant="busy", size=100_000)
                await asyncio.sleep(0.3)
            began = time.monotonic()
            house.service.stop()
            for stream in streams:
                await stream.until_ended(within_s=2)
                assert stream.comments[-1].startswith("stopping")
            assert readers(house.service) <= int(stuck)
        assert time.monotonic() - began < 3, "and the server is gone"
        assert readers(house.service) == 0


@pytest.fixture
async def neighbours(postgresql_url: str, tmp_path: Path) -> AsyncIterator[tuple[House, House]]:
    """Give two services on one database, with their own connections and wake-ups, as two processes have."""
    async with (
        running(settings(postgresql_url, tmp_path), work=False) as one,
        running(settings(postgresql_url, tmp_path), work=False) as other,
    ):
        houses = House(one, create_app(one)), House(other, create_app(other))
        yield houses
        for house in houses:
            for client in house.clients:
                await client.aclose()


@pytest.mark.parametrize(
    ("lost", "within_s"), [(False, 0.7), (True, 2.5)], ids=["notified", "notification lost"]
)
async def test_what_one_process_commits_the_other_streams(
    neighbours: tuple[House, House], lost: bool, within_s: float
) -> None:
    one, other = neighbours
    if lost:
        other.service.runtime.bell.ring = lambda topics, **_: None  # type: ignore[method-assign]
    async with serving(other) as served:
        client = await served.client()
        async with streaming(client) as stream:
            await stream.until_comment("connected")
            await asyncio.sleep(1.2)  # both listen by now
            for count in range(1, 4):
                await tell(one.service, 1)
                await stream.until(count, within_s=within_s)
        assert [told.body["seq"] for told in stream.told] == [1, 2, 3]
