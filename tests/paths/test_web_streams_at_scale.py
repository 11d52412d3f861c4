"""A thousand idle streams on one real process, and streams across real processes."""

import asyncio
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.cli.process import STOPS_WITHIN_S, staying

pytestmark = pytest.mark.slow

API_KEY = "a-key-for-the-tests-of-streams"
SECRET_KEYS = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
BODY = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}
STREAMS = 1000
#: What one idle stream may cost, all told: its connection, its task, its reader.
MOST_KIB = 40


class Follower:
    """One connection that follows the stream, as small as a client can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def follow(cls, url: str) -> "Follower":
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        made = cls(reader, writer)
        writer.write(
            f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()
        )
        assert b": connected\n" in await reader.readuntil(b": connected\n")
        return made

    async def event(self) -> tuple[float, dict[str, Any]]:
        """Read to the end of the next event; gives when it came, and what it was."""
        text = await self._reader.readuntil(b"\n\n")
        found = re.search(rb"^data: (.*)$", text, re.MULTILINE)
        assert found is not None
        return time.monotonic(), json.loads(found[1])

    async def rest(self) -> bytes:
        return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def client(url: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=40, trust_env=False)


async def test_a_thousand_idle_streams_on_one_process(tmp_path: Path) -> None:
    settings = {
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "BFL_API_KEY": "key",
        "FLUXGATE_BFL_URL": "http://127.0.0.1:9",
    }
    with staying("serve", "--port", "0", log=tmp_path / "log", **settings) as server:
        async with client(server.url) as http:
            process = psutil.Process(server.process.pid)
            warm = [await Follower.follow(server.url) for _ in range(20)]
            for one in warm:
                await one.close()
            before = process.memory_info().rss
            followers: list[Follower] = []
            for _ in range(STREAMS // 50):
                followers += await asyncio.gather(*(Follower.follow(server.url) for _ in range(50)))
            each_kib = (process.memory_info().rss - before) / STREAMS / 1024
            assert each_kib < MOST_KIB

            busy = process.cpu_times()
            began = time.monotonic()
            await asyncio.sleep(2)
            now = process.cpu_times()
            share = (now.user + now.system - busy.user - busy.system) / (time.monotonic() - began)
            assert share < 0.2, "they are idle"

            reading = [asyncio.create_task(one.event()) for one in followers]
            body = {"provider": "bfl", "model": "flux-2-pro", "input": {"prompt": "a fox"}}
            began = time.monotonic()
            job_id = (await http.post("/v1/jobs", json=body)).json()["id"]
            async with asyncio.timeout(20):
                told = await asyncio.gather(*reading)
            assert {event["job_id"] for _, event in told} == {job_id}
            assert {event["seq"] for _, event in told} == {1}
            slowest = max(at for at, _ in told) - began
            print(
                f"{each_kib:.0f} KiB each, {share:.3f} of a core idle, the last of them told after {slowest * 1000:.0f} ms"
            )
            assert slowest < 5

            code, seconds = await asyncio.to_thread(server.stop, signal.SIGTERM)
            assert (code, seconds < STOPS_WITHIN_S) == (0, True), server.log
            assert all(
                b": stopping" in rest for rest in await asyncio.gather(*(one.rest() for one in followers))
            )
            for one in followers:
                await one.close()
            assert "Traceback" not in server.log


async def test_streams_go_on_across_processes_and_a_kill(postgresql_url: str, tmp_path: Path) -> None:
    """What any process commits every process streams; who loses his goes on at another one with his last id."""
    settings = {
        "FLUXGATE_DATABASE_URL": postgresql_url,
        "FLUXGATE_SECRET_KEYS": SECRET_KEYS,
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FAL_KEY": "test",
    }
    web = ("serve", "--no-work", "--port", "0")
    with (
        staying(*web, log=tmp_path / "one", **settings) as one,
        staying(*web, log=tmp_path / "other", **settings) as other,
    ):
        async with client(one.url) as first, client(other.url) as second:
            seen: list[dict[str, Any]] = []
            last = ""

            async def read(http: httpx.AsyncClient, count: int) -> None:
                """Follow until so many are seen in all, or the process goes."""
                nonlocal last
                async with http.stream("GET", "/v1/events/stream", headers={"Last-Event-ID": last}) as answer:
                    rest = b""
                    async for piece in answer.aiter_raw():
                        *blocks, rest = (rest + piece).split(b"\n\n")
                        for block in blocks:
                            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
                            last = fields[b"id"].decode()
                            seen.append(json.loads(fields[b"data"]))
                        if len(seen) >= count:
                            return

            async def submit(http: httpx.AsyncClient, count: int) -> list[str]:
                return [(await http.post("/v1/jobs", json=BODY)).json()["id"] for _ in range(count)]

            reading = asyncio.create_task(read(second, 20))
            ids = await submit(first, 10) + await submit(second, 5)
            await asyncio.sleep(0.3)
            other.process.kill()
            with pytest.raises(httpx.TransportError):
                await reading
            ids += await submit(first, 5)
            async with asyncio.timeout(10):
                await read(first, 20)
            assert [event["job_id"] for event in seen] == ids
            assert [event["seq"] for event in seen] == list(range(1, 21))
            assert (await asyncio.to_thread(one.stop))[0] == 0
