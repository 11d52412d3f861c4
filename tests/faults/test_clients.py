"""Callers that vanish, dawdle, or all come at once: nothing is half done, and nobody else notices."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.process import STOPS_WITHIN_S
from tests.faults.callers import body, is_final, submit, until, until_jobs
from tests.faults.ledger import everything_holds, jobs_of
from tests.faults.processes import API_KEY, Port, simulated, site

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


@contextlib.asynccontextmanager
async def _connection(port: Port) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _head(method: str, path: str, *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: fluxgate", f"Authorization: Bearer {API_KEY}", *more]
    return "\r\n".join((*lines, "", "")).encode()


def _post(number: int) -> tuple[bytes, bytes]:
    content = json.dumps(body(number)).encode()
    return _head(
        "POST",
        "/v1/jobs",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        f"Idempotency-Key: job-{number}",
    ), content


async def test_callers_that_go_away_leave_nothing_half_done(database_url: str, tmp_path: Path) -> None:
    async with (
        simulated() as simulator,
        site(database_url, tmp_path, provider_url=simulator.url) as there,
    ):
        process = await there.serve()

        async def leaves_in_the_middle(number: int) -> None:
            head, content = _post(number)
            async with _connection(there.port) as (_, writer):
                writer.write(head + content[: len(content) // 2])
                await writer.drain()
                await asyncio.sleep(0.05)

        async def leaves_after_sending(number: int) -> None:
            head, content = _post(number)
            async with _connection(there.port) as (_, writer):
                writer.write(head + content)
                await writer.drain()
                await asyncio.sleep(0.002 * (number % 10))

        async def leaves_while_waiting() -> None:
            async with _connection(there.port) as (_, writer):
                writer.write(_head("GET", "/v1/events?after=999999&wait=60"))
                await writer.drain()
                await asyncio.sleep(0.3)

        await asyncio.gather(*[leaves_in_the_middle(number) for number in range(10)])
        assert await jobs_of(there.http) == {}
        await asyncio.gather(
            *[leaves_after_sending(number) for number in range(10, 30)],
            *[leaves_while_waiting() for _ in range(20)],
        )
        # Who cannot know whether he was heard asks again under the same key, and there is one job.
        prompts = {await submit(there.http, number): f"fox number {number}" for number in range(30)}
        assert len(prompts) == 30
        await until_jobs(there.http, is_final, within_s=15)
        await everything_holds(there.http, database_url=database_url, simulator=simulator, prompts=prompts)
        assert "Traceback" not in process.log, process.log


async def test_callers_that_dawdle_keep_nobody_waiting(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        simulated() as simulator,
        site(sqlite_url, tmp_path, provider_url=simulator.url) as there,
    ):
        process = await there.serve()
        dawdling = asyncio.Event()

        async def dawdles(number: int) -> None:
            head, content = _post(number)
            async with _connection(there.port) as (_, writer):
                # Some never come to the end of their headers, some of their body.
                sent = (head + content) if number % 2 else head[:-2] + b"X-Slow: " + b"x" * 100
                for place in range(len(sent) - 1):
                    if dawdling.is_set():
                        return
                    writer.write(sent[place : place + 1])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    await asyncio.sleep(0.05)

        slow = [asyncio.create_task(dawdles(number)) for number in range(100, 160)]
        await asyncio.sleep(0.3)
        began = time.monotonic()
        prompts = {await submit(there.http, number): f"fox number {number}" for number in range(5)}
        assert time.monotonic() - began < 3
        await until_jobs(there.http, is_final, within_s=10)
        await everything_holds(there.http, database_url=sqlite_url, simulator=simulator, prompts=prompts)
        code, seconds = await process.stop()
        assert (code, seconds < STOPS_WITHIN_S) == (0, True), (code, seconds)
        dawdling.set()
        await asyncio.gather(*slow)


async def test_one_key_at_two_web_processes_at_the_same_moment_makes_one_job(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with (
        simulated("run_ms=800") as simulator,
        site(postgresql_url, tmp_path, provider_url=simulator.url) as there,
    ):
        other_port = there.another_port()
        await asyncio.gather(there.serve(), there.serve("--no-work", port=other_port))
        async with there.caller(other_port) as other:
            answers = await asyncio.gather(
                *[
                    (there.http, other)[number % 2].post(
                        "/v1/jobs", json=body(1), headers={"Idempotency-Key": "the one key"}
                    )
                    for number in range(30)
                ]
            )
            assert sorted(answer.status_code for answer in answers) == [200] * 29 + [202]
            assert {answer.headers.get("idempotent-replayed") for answer in answers} == {None, "true"}
            (job_id,) = {answer.json()["id"] for answer in answers}
            different = await asyncio.gather(
                *[
                    (there.http, other)[number % 2].post(
                        "/v1/jobs", json=body(number), headers={"Idempotency-Key": "another key"}
                    )
                    for number in range(10, 30)
                ]
            )
            assert sorted(answer.status_code for answer in different) == [202] + [409] * 19
            (winner,) = [answer.json() for answer in different if answer.status_code == 202]
            codes = {answer.json()["code"] for answer in different if answer.status_code == 409}
            assert codes == {"idempotency_mismatch"}
            # A reader at one process is woken by what another one did.
            seen = await other.get(f"/v1/jobs/{job_id}", params={"wait": 20})
            assert seen.json()["state"] == "succeeded"
            await until(lambda: _all_final(other), within_s=10, saying="both jobs end")
        prompts = {job_id: "fox number 1", winner["id"]: winner["input"]["prompt"]}
        await everything_holds(there.http, database_url=postgresql_url, simulator=simulator, prompts=prompts)
        assert len(simulator.requests()) == 2


async def _all_final(http: object) -> bool:
    return all(is_final(job) for job in (await jobs_of(http)).values())  # type: ignore[arg-type]
