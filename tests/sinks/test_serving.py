"""The service itself with sinks: started as its users do, events of real jobs at three brokers, ended cleanly."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from service.storage.sinks import SINK
from service.wiring import running
from tests.cli.process import STOPS_WITHIN_S, staying
from tests.paths.visitors import BFL_JOB, House, settings
from tests.sinks.brokers import Broker, KafkaBroker, NatsBroker, RedisBroker, free_port
from tests.sinks.publishing import wall_clock, write
from tests.storage.world import Process, process

API_KEY = "a-bootstrap-key-for-the-tests"


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> dict[str, str]:
    return {
        "FLUXGATE_DATABASE_URL": f"sqlite:///{tmp_path / 'served.db'}",
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FLUXGATE_LOG_FORMAT": "json",
        "BFL_API_KEY": "bfl-key",
        "FLUXGATE_BFL_URL": f"http://127.0.0.1:{free_port()}",
    }


async def events_of(http: httpx.AsyncClient) -> list[bytes]:
    told = (await http.get("/v1/events?limit=200")).json()["data"]
    return [json.dumps(event, sort_keys=True).encode() for event in told]


async def at(broker: Broker, count: int) -> list[bytes]:
    async with asyncio.timeout(15):
        while len(found := await broker.read()) < count:
            await asyncio.sleep(0.1)
    ordered = sorted(found, key=lambda one: one.seq)
    return [json.dumps(json.loads(one.body), sort_keys=True).encode() for one in ordered]


@pytest.mark.slow
async def test_events_of_a_served_job_reach_all_brokers_and_the_end_is_clean(
    nats_broker: NatsBroker,
    redis_broker: RedisBroker,
    tmp_path: Path,
    sqlite_settings: dict[str, str],
) -> None:
    kafka_broker = KafkaBroker(tmp_path / "kafka")
    log = tmp_path / "serve.log"
    try:
        await kafka_broker.start()
        brokers: dict[str, str] = {
            "FLUXGATE_NATS_URL": nats_broker.url,
            "FLUXGATE_REDIS_URL": redis_broker.url,
            "FLUXGATE_KAFKA_BOOTSTRAP": kafka_broker.bootstrap,
        }
        with staying("serve", "--port", "0", log=log, **sqlite_settings, **brokers) as served:
            headers = {"Authorization": f"Bearer {API_KEY}"}
            async with httpx.AsyncClient(base_url=served.url, headers=headers) as http:
                for _ in range(3):
                    assert (await http.post("/v1/jobs", json=BFL_JOB)).status_code == 202
                expected = await events_of(http)
                assert len(expected) == 3
                for broker in (nats_broker, redis_broker, kafka_broker):
                    assert await at(broker, 3) == expected
                measures = (await http.get("/metrics")).text
            for name in ("nats:FLUXGATE", "redis:fluxgate:events", "kafka:fluxgate.events"):
                assert f'fluxgate_sink_lag_events{{sink="{name}"}} 0.0' in measures
            code, took_s = served.stop()
        assert code == 0
        assert took_s < STOPS_WITHIN_S
    finally:
        kafka_broker.close()
    assert [line for line in log.read_text().splitlines() if "Traceback" in line or '"error"' in line] == []


@pytest.mark.slow
async def test_brokers_that_are_away_hold_nothing_up_and_are_named_once_without_their_passwords(
    tmp_path: Path, sqlite_settings: dict[str, str]
) -> None:
    port, log = free_port(), tmp_path / "serve.log"
    brokers: dict[str, str] = {
        "FLUXGATE_NATS_URL": f"nats://app:hidden-word@127.0.0.1:{port}",
        "FLUXGATE_REDIS_URL": f"redis://app:hidden-word@127.0.0.1:{port}",
        "FLUXGATE_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
    }
    with staying("serve", "--port", "0", log=log, **sqlite_settings, **brokers) as served:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(base_url=served.url, headers=headers) as http:
            assert (await http.post("/v1/jobs", json=BFL_JOB)).status_code == 202
            await asyncio.sleep(3)
            assert (await http.get("/readyz")).status_code == 200
            measures = (await http.get("/metrics")).text
        for name in ("nats:FLUXGATE", "redis:fluxgate:events", "kafka:fluxgate.events"):
            assert f'fluxgate_sink_lag_events{{sink="{name}"}} 1.0' in measures
            assert f'fluxgate_sink_failing_since_seconds{{kind="unreachable",sink="{name}"}}' in measures
        code, took_s = served.stop()
    assert code == 0
    assert took_s < STOPS_WITHIN_S
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    down = [line["sink"] for line in lines if line["event"] == "sink_down"]
    assert sorted(down) == ["kafka:fluxgate.events", "nats:FLUXGATE", "redis:fluxgate:events"]
    assert "hidden-word" not in log.read_text()
    assert [line for line in lines if line.get("logger", "").startswith(("aiokafka", "nats"))] == []


@pytest.mark.slow
async def test_of_two_working_processes_one_publishes_and_the_other_goes_on_when_it_is_killed(
    postgresql_url: str, redis_broker: RedisBroker, tmp_path: Path
) -> None:
    given = {
        "FLUXGATE_DATABASE_URL": postgresql_url,
        "FLUXGATE_SECRET_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "FLUXGATE_LEASE_S": "1",
        "FLUXGATE_REDIS_URL": redis_broker.url,
    }

    async def holder(one: Process) -> int:
        rows = await one.door.read(lambda tx: tx.rows(SINK.select()))
        return int(rows[0]["claim"].split("-")[-2])

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(process(postgresql_url, tmp_path, clock=wall_clock))  # type: ignore[arg-type]
        working = [
            stack.enter_context(staying("work", log=tmp_path / f"{name}.log", **given)) for name in ("a", "b")
        ]
        pids = {each.process.pid: each for each in working}
        await write(one, 1, 100)
        await at(redis_broker, 100)
        first = await holder(one)
        assert first in pids
        await write(one, 101, 150)
        pids[first].process.kill()
        await write(one, 151, 200)
        await at(redis_broker, 200)
        assert await holder(one) in set(pids) - {first}
        assert [found.seq for found in await redis_broker.read()] == list(range(1, 201))


async def test_a_process_that_does_no_work_publishes_nothing(
    database_url: str, redis_broker: RedisBroker, tmp_path: Path
) -> None:
    given = settings(database_url, tmp_path, FLUXGATE_REDIS_URL=redis_broker.url)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(given, work=False))
        from service.web.app import create_app

        house = House(service, create_app(service))
        client = await house.visitor()
        stack.push_async_callback(client.aclose)
        assert (await client.post("/v1/jobs", json=BFL_JOB)).status_code == 202
        await asyncio.sleep(0.3)
        measures = (await client.get("/metrics")).text
        assert 'fluxgate_sink_lag_events{sink="redis:fluxgate:events"} 1.0' in measures
        assert 'fluxgate_sink_failing_since_seconds{kind="none",sink="redis:fluxgate:events"} 0.0' in measures
    assert await redis_broker.read() == []
