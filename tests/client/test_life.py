"""The client against a real server process: jobs to their end by every way, and events through restarts."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import (
    Event,
    Fluxgate,
    InvalidInput,
    InvalidWebhook,
    JobCanceled,
    JobFailed,
    NotFound,
    WaitTimedOut,
    verify_webhook,
)
from service.client import streams as client_streams
from service.simulator.app import Simulator
from tests.cli.process import COMMAND, environment
from tests.cli.receiver import receiving
from tests.client.proxies import proxy_to
from tests.faults.processes import API_KEY, Process, Site, simulated, site

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
ASKED: dict[str, Any] = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}


@asynccontextmanager
async def serving(
    database_url: str, folder: Path, faults: str = "", **settings: str
) -> AsyncIterator[tuple[Site, Process, Simulator]]:
    async with (
        simulated(faults) as simulator,
        site(database_url, folder, provider_url=simulator.url, **settings) as there,
    ):
        yield there, await there.serve(), simulator


async def key_with(there: Site, *scopes: str) -> str:
    """Make a key of its own by the command line."""
    given = [part for scope in scopes for part in ("--scope", scope)]
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "keys", "create", "--name", "client", *given,
        env=environment(there.settings), cwd=there.folder, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    found = re.search(r"secret: (\S+)", said.decode())
    assert found, said
    return found[1]


class Paths:
    """Counts which paths were asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def note(self, request: httpx.Request) -> None:
        self.seen.append(request.url.path + ("?wait" if "wait" in request.url.params else ""))


WAYS = [
    (True, ["jobs:read"], "/v1/jobs/{id}/events/stream"),
    (False, ["jobs:read"], "/v1/jobs/{id}?wait"),
    (False, ["events:read"], "/v1/events?wait"),
]


async def test_a_job_is_waited_for_by_each_way(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        serving(sqlite_url, tmp_path, "run_ms=300") as (there, _, _),
        Fluxgate(there.port.url, API_KEY) as submitter,
    ):
        for streams_work, scopes, way in WAYS:
            paths, key = Paths(), await key_with(there, *scopes)
            async with (
                httpx.AsyncClient(event_hooks={"request": [paths.note]}) as http,
                Fluxgate(there.port.url, key, http=http) as gate,
            ):
                if not streams_work:
                    gate._calls.do_without_streams()
                job = await submitter.submit(**ASKED)
                done = await _handed_over(gate, job.id).result(timeout=20)
                assert (done.state, done.final) == ("succeeded", True)
                assert done.output is not None
                assert done.output["images"]
                assert way.format(id=job.id) in paths.seen


def _handed_over(gate: Fluxgate, job_id: str) -> Any:
    """A job of another client, also where the key may not read it."""
    return gate._job({"id": job_id, "state": "accepted"})


async def test_the_actions_do_what_they_say(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        serving(sqlite_url, tmp_path, "run_ms=60000") as (there, _, simulator),
        Fluxgate(there.port.url, API_KEY) as gate,
    ):
        job = await gate.submit(**ASKED, metadata={"order": "7"}, idempotency_key="order 7")
        again = await gate.submit(**ASKED, metadata={"order": "7"}, idempotency_key="order 7")
        assert (again.id, again.replayed, job.replayed) == (job.id, True, False)
        with pytest.raises(WaitTimedOut) as late:
            await job.result(timeout=0.3)
        assert late.value.job.id == job.id
        canceled = await job.cancel()
        assert canceled.state == "canceled"
        with pytest.raises(JobCanceled):
            await job.result(timeout=5)
        assert (await job.refresh()).state == "canceled"

        simulator.set_faults(run_ms=10, fail=1.0)
        failing = await gate.submit(**ASKED)
        with pytest.raises(JobFailed) as failed:
            await failing.result(timeout=20)
        assert failed.value.job.error is not None
        simulator.set_faults(fail=0.0)
        successor = await failed.value.job.retry()
        assert successor.document["retry_of"] == failing.id
        assert (await failing.retry()).id == successor.id
        assert (await successor.result(timeout=20)).state == "succeeded"

        with pytest.raises(NotFound):
            await gate.get("job_none")
        with pytest.raises(InvalidInput) as wrong:
            await gate.submit(provider="fal", model="fal-ai/flux-2", input={}, deadline_s=1)
        assert "deadline_s" in {field.path for field in wrong.value.errors}
        assert wrong.value.request_id


async def test_events_go_on_through_a_restart_and_from_a_stored_cursor(
    database_url: str, tmp_path: Path
) -> None:
    seen: list[Event] = []

    async def follow(gate: Fluxgate, after: str | None, until: int) -> None:
        async with aclosing(gate.events(after=after)) as events:
            async for event in events:
                seen.append(event)
                if len({one.job_id for one in seen if one.type == "job.succeeded"}) == until:
                    return

    async with serving(database_url, tmp_path, "run_ms=50") as (there, _, _):
        async with Fluxgate(there.port.url, API_KEY) as gate, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow(gate, None, 3))
            for job in [await gate.submit(**ASKED) for _ in range(2)]:
                await job.result(timeout=20)
            await there.kill_all()
            pending = tasks.create_task(gate.submit(**ASKED))
            await asyncio.sleep(0.5)
            await there.serve()
            await (await pending).result(timeout=20)
            async with asyncio.timeout(20):
                await following
        kept = (await there.http.get("/v1/events", params={"limit": 200})).json()["data"]
        assert [event.id for event in seen] == [event["id"] for event in kept][: len(seen)]
        assert len({event.id for event in seen}) == len(seen)

        half = seen[: len(seen) // 2]
        rest = [event.id for event in seen[len(half) :]]
        seen[:] = half
        async with Fluxgate(there.port.url, API_KEY) as gate, asyncio.timeout(20):
            await follow(gate, half[-1].cursor, 3)
        assert [event.id for event in seen[len(half) :]] == rest


async def test_a_submitter_meets_a_server_that_dies_and_pays_once_for_each_job(
    sqlite_url: str, tmp_path: Path
) -> None:
    # What may have left when the server died is sent once more after two seconds: else it stays uncertain for long.
    soon = {"FLUXGATE_LEASE_S": "2", "FLUXGATE_UNCERTAIN_S": "2"}
    async with serving(sqlite_url, tmp_path, **soon) as (there, _, simulator):
        async with Fluxgate(there.port.url, API_KEY) as gate:

            async def whole(number: int) -> str:
                await asyncio.sleep(number * 0.02)
                asked = {**ASKED, "input": {"prompt": f"fox {number}"}, "on_uncertain": "resubmit"}
                job = await gate.submit(**asked)
                return (await job.result(timeout=60)).id

            waiting = asyncio.gather(*[whole(number) for number in range(30)])
            await asyncio.sleep(0.5)
            await there.kill_all()
            await there.serve()
            done = await waiting
        assert len(set(done)) == 30
        jobs = (await there.http.get("/v1/jobs", params={"limit": 200})).json()["data"]
        assert {job["id"] for job in jobs} == set(done)
        prompts = [job["input"]["prompt"] for job in jobs]
        assert sorted(prompts) == sorted({f"fox {number}" for number in range(30)})
        assert len(simulator.requests()) <= sum(len(job["attempts"]) for job in jobs)


async def test_a_webhook_of_the_service_is_verified_by_its_secret_and_by_its_public_keys(
    sqlite_url: str, tmp_path: Path
) -> None:
    with receiving() as receiver:
        async with (
            serving(sqlite_url, tmp_path, FLUXGATE_EGRESS_ALLOW="127.0.0.0/8") as (there, _, _),
            Fluxgate(there.port.url, API_KEY) as gate,
        ):
            for format_ in ("standard", "cloudevents"):
                wanted = {"url": receiver.url, "format": format_, "signatures": ["v1", "v1a"]}
                made = (await there.http.post("/v1/endpoints", json=wanted)).json()
                receiver.posts.clear()
                await there.http.post(f"/v1/endpoints/{made['id']}/test")
                ((headers, body),) = await asyncio.to_thread(receiver.first)
                keys = await gate.webhook_keys()
                found = [
                    verify_webhook(headers, body, made["secret"]),
                    verify_webhook(headers, body, public_keys=keys),
                ]
                assert [(event.type, event.job_id, event.id) for event in found] == [
                    ("endpoint.test", None, headers["webhook-id"])
                ] * 2
                with pytest.raises(InvalidWebhook):
                    verify_webhook(headers, body + b" ", made["secret"], public_keys=keys)
                await there.http.delete(f"/v1/endpoints/{made['id']}")


async def test_a_result_comes_through_a_proxy_that_collects_streams(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_streams, "_GREETING_S", 0.5)
    async with (
        serving(sqlite_url, tmp_path, "run_ms=300") as (there, _, _),
        proxy_to(there.port.number, "collect") as proxy,
        Fluxgate(proxy.url, API_KEY) as gate,
    ):
        for _ in range(2):
            job = await gate.submit(**ASKED)
            assert (await job.result(timeout=20)).state == "succeeded"
        assert proxy.opened == 1
        async with aclosing(gate.events(types=["job.succeeded"])) as events, asyncio.timeout(20):
            assert [(await anext(events)).job_id, (await anext(events)).job_id][1] == job.id


@pytest.mark.parametrize("streams", ["shred", 5000])
async def test_events_come_whole_through_a_proxy_that_shreds_or_cuts_streams(
    streams: str | int, sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        serving(sqlite_url, tmp_path) as (there, _, _),
        proxy_to(there.port.number, streams) as proxy,
        Fluxgate(proxy.url, API_KEY) as gate,
    ):
        jobs = [await gate.submit(**ASKED, metadata={"name": "Füchslein 😀\u2028"}) for _ in range(4)]
        for job in jobs:
            await job.result(timeout=20)
        kept = (await there.http.get("/v1/events", params={"limit": 200})).json()["data"]
        found: list[Event] = []
        async with aclosing(gate.events()) as events, asyncio.timeout(20):
            while len(found) < len(kept):
                found.append(await anext(events))
        assert [(event.id, event.data) for event in found] == [(event["id"], event["data"]) for event in kept]
        assert proxy.opened - len(jobs) >= (1 if streams == "shred" else 2)
