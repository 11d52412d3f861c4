"""From the database to a real broker, while either side is killed."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.domain.event_object import event_text
from service.sinks.redis import RedisSink
from service.storage import sinks
from service.storage.migrate import upgrade
from tests.project.repository import ROOT
from tests.sinks.brokers import Broker, NatsBroker, Received, RedisBroker
from tests.sinks.publishing import made, published, publisher_of, up_to, wall_clock, write
from tests.storage.world import Process, process

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def in_order(found: list[Received]) -> list[int]:
    """The numbers as a reader has them that drops what is not newer than what it had (for each partition)."""
    newest: dict[str, int] = {}
    kept = []
    for one in found:
        place = one.labels.get("partition", "")
        if one.seq > newest.get(place, 0):
            newest[place] = one.seq
            kept.append(one.seq)
    return kept


def complete(found: list[Received], last: int) -> None:
    """Every event is there, each job's in order; and once where the broker itself keeps repeats out."""
    assert sorted(in_order(found)) == list(range(1, last + 1))
    for job in {one.key for one in found}:
        seqs = in_order([one for one in found if one.key == job])
        assert seqs == sorted(seqs)
    if "partition" not in found[0].labels:
        assert len(found) == last
        assert [one.seq for one in found] == list(range(1, last + 1))


@pytest.fixture
async def one(database_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    async with process(database_url, tmp_path, clock=wall_clock, name="one") as made_one:  # type: ignore[arg-type]
        yield made_one


def address(broker: Any) -> dict[str, str]:
    kinds = {"nats": "nats_url", "redis": "redis_url", "kafka": "kafka_bootstrap"}
    kind = broker.sink().name.partition(":")[0]
    return {kinds[kind]: broker.bootstrap if kind == "kafka" else broker.url}


@ON_ONE_DATABASE
async def test_no_event_is_lost_doubled_or_reordered_when_the_broker_is_killed(
    one: Process, broker: Broker
) -> None:
    publisher = publisher_of(one, broker.sink())
    writing = asyncio.create_task(_write_slowly(one, 600))
    await published(publisher, up_to(publisher, 100))
    with structlog.testing.capture_logs() as logged:
        await broker.take_away()
        await published(publisher, lambda: publisher._tries > 0)
        [standing] = await one.door.read(lambda tx: sinks.standing(tx, [publisher.name]))
        assert standing.trouble in ("unreachable", "timeout")
        await writing
        await broker.give_back()
        await published(publisher, up_to(publisher, 600))
    await publisher.end()
    complete(await broker.read(), 600)
    told = [line["event"] for line in logged]
    assert told[-1] == "sink_up"
    assert told.count("sink_down") == len({line["kind"] for line in logged if line["event"] == "sink_down"})


async def _write_slowly(one: Process, last: int) -> None:
    for first in range(1, last, 20):
        await write(one, first, first + 19)
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_no_event_is_lost_doubled_or_reordered_when_the_publishing_process_is_killed(
    one: Process, broker: Broker, database_url: str
) -> None:
    """Between the confirmation and the cursor's commit, where the database does not know what the broker has."""
    await write(one, 1, 700)
    command = [sys.executable, "-m", "tests.sinks.publishing", database_url, json.dumps(address(broker)), "2"]
    killed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=subprocess.PIPE)
    _, said = await killed.communicate()
    assert killed.returncode == -9, said.decode()
    rows = await one.door.read(lambda tx: tx.rows(sinks.SINK.select()))
    assert 0 < rows[0]["seq"] < len(await broker.read()), "the broker has more than the cursor says"
    assert rows[0]["claim"] == "deadly"
    publisher = publisher_of(one, broker.sink())
    await published(publisher, up_to(publisher, 700))
    await publisher.end()
    complete(await broker.read(), 700)


@ON_ONE_DATABASE
async def test_a_process_that_lost_its_lease_publishes_nothing_twice(
    one: Process, lasting: Broker, database_url: str, tmp_path: Path
) -> None:
    """It stood still while another went on, and comes back with a set in its hands."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(
            process(database_url, tmp_path, clock=wall_clock, name="other")  # type: ignore[arg-type]
        )
        slow, quick = publisher_of(one, lasting.sink()), publisher_of(other, lasting.sink())
        await write(one, 1, 50)
        await published(slow, up_to(slow, 50))
        await asyncio.sleep(0.7)
        await write(one, 51, 100)
        await published(quick, up_to(quick, 100))
        await slow.turn()
        assert not slow.held
        await write(one, 101, 110)
        await published(quick, up_to(quick, 110))
        await quick.end()
        await slow.end()
    complete(await lasting.read(), 110)


async def test_the_bytes_at_the_broker_are_those_of_the_feed(one: Process, redis_broker: RedisBroker) -> None:
    await write(one, 1, 1, data='{"seed":15860307465884635512,"state":"succeeded"}')
    publisher = publisher_of(one, redis_broker.sink())
    await published(publisher, up_to(publisher, 1))
    await publisher.end()
    [found] = await redis_broker.read()
    [event] = await one.door.read(lambda tx: sinks.events_after(tx, 0, most=9))
    shown = {
        name: getattr(event, name) for name in ("id", "seq", "type", "at_ms", "job_id", "job_seq", "data")
    }
    assert found.body == event_text(**shown)
    assert found.labels["entry"] == "1-0"


@ON_ONE_DATABASE
async def test_a_broker_that_lost_everything_gets_all_that_is_kept_again(
    one: Process, lasting: Broker, tmp_path: Path
) -> None:
    await write(one, 1, 30)
    publisher = publisher_of(one, lasting.sink())
    await published(publisher, up_to(publisher, 30))
    await lasting.take_away()
    assert isinstance(lasting, (NatsBroker, RedisBroker))
    lasting.folder = tmp_path / "empty"
    await lasting.give_back()
    await write(one, 31, 31)
    await published(publisher, up_to(publisher, 31))
    await publisher.end()
    complete(await lasting.read(), 31)


@ON_ONE_DATABASE
async def test_redis_may_be_trimmed_by_its_owner(one: Process, redis_broker: RedisBroker) -> None:
    await write(one, 1, 30)
    publisher = publisher_of(one, redis_broker.sink())
    await published(publisher, up_to(publisher, 30))
    async with contextlib.aclosing(redis_broker.client()) as client:
        await client.xtrim(redis_broker.stream, maxlen=0, approximate=False)
    await publisher.end()
    await write(one, 31, 40)
    again = publisher_of(one, redis_broker.sink())
    await published(again, up_to(again, 40))
    await again.end()
    assert [found.seq for found in await redis_broker.read()] == list(range(31, 41))


@ON_ONE_DATABASE
async def test_entries_of_another_writer_in_the_redis_stream_stop_the_sink_visibly(
    one: Process, redis_broker: RedisBroker
) -> None:
    """Behind an entry with a clock for an id, Redis would refuse all of ours as if it had them."""
    async with contextlib.aclosing(redis_broker.client()) as client:
        await client.xadd(redis_broker.stream, {"of": "somebody else"})
    await write(one, 1, 3)
    publisher = publisher_of(one, redis_broker.sink())
    await publisher.turn()
    [standing] = await one.door.read(lambda tx: sinks.standing(tx, [publisher.name]))
    assert (standing.trouble, standing.lag) == ("foreign", 3)
    async with contextlib.aclosing(redis_broker.client()) as client:
        await client.delete(redis_broker.stream)
    await published(publisher, up_to(publisher, 3))
    await publisher.end()
    assert len(await redis_broker.read()) == 3


@ON_ONE_DATABASE
async def test_another_writer_that_comes_later_is_seen_too(one: Process, redis_broker: RedisBroker) -> None:
    await write(one, 1, 3)
    publisher = publisher_of(one, redis_broker.sink())
    await published(publisher, up_to(publisher, 3))
    async with contextlib.aclosing(redis_broker.client()) as client:
        await client.xadd(redis_broker.stream, {"of": "somebody else"}, id="3-7")
    await write(one, 4, 6)
    await publisher.turn()
    [standing] = await one.door.read(lambda tx: sinks.standing(tx, [publisher.name]))
    assert (standing.trouble, standing.lag) == ("foreign", 3)
    await publisher.end()


@ON_ONE_DATABASE
async def test_another_installation_in_the_same_stream_stops_the_sink_visibly(
    one: Process, lasting: Broker, tmp_path: Path
) -> None:
    """Its numbers mean other events: to go on behind them would leave ours out."""
    await write(one, 1, 9)
    first = publisher_of(one, lasting.sink())
    await published(first, up_to(first, 9))
    await first.end()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    url = f"sqlite:///{folder / 'fluxgate.db'}"
    upgrade(url)
    async with process(url, folder, clock=wall_clock, name="two") as two:  # type: ignore[arg-type]
        for number in range(1, 21):
            await write(two, number, number, id=f"evt_other_{number}")
        second = publisher_of(two, lasting.sink())
        await second.turn()
        [standing] = await two.door.read(lambda tx: sinks.standing(tx, [second.name]))
        assert (standing.trouble, standing.lag) == ("foreign", 20)
        await second.end()
    complete(await lasting.read(), 9)


@ON_ONE_DATABASE
async def test_a_message_that_is_not_ours_on_our_subjects_stops_the_sink_visibly(
    one: Process, nats_broker: NatsBroker
) -> None:
    await write(one, 1, 2)
    publisher = publisher_of(one, nats_broker.sink())
    await published(publisher, up_to(publisher, 2))
    await publisher.end()
    client = await nats_broker.client()
    await client.jetstream().publish("fluxgate.events.x.y", b"not ours")
    await client.close()
    await write(one, 3, 3)
    again = publisher_of(one, nats_broker.sink())
    await again.turn()
    [standing] = await one.door.read(lambda tx: sinks.standing(tx, [again.name]))
    assert (standing.trouble, standing.lag) == ("foreign", 1)
    await again.end()


@ON_ONE_DATABASE
async def test_other_subjects_in_the_nats_stream_are_no_hindrance(
    one: Process, nats_broker: NatsBroker
) -> None:
    client = await nats_broker.client()
    stream = client.jetstream()
    await stream.add_stream(name=nats_broker.stream, subjects=["fluxgate.events.>", "orders.>"])
    await stream.publish("orders.1", b"an order")
    await write(one, 1, 3)
    publisher = publisher_of(one, nats_broker.sink())
    await published(publisher, up_to(publisher, 3))
    for number in range(2, 5):
        await stream.publish(f"orders.{number}", b"an order")
    await write(one, 4, 6)
    await published(publisher, up_to(publisher, 6))
    await publisher.end()
    info = await client.jsm().stream_info(nats_broker.stream, subjects_filter="fluxgate.events.>")
    assert info.state.messages == 10
    assert sum((info.state.subjects or {}).values()) == 6
    await client.close()


@ON_ONE_DATABASE
async def test_events_larger_than_the_nats_server_takes_go_without_their_data(
    one: Process, tmp_path: Path
) -> None:
    config = tmp_path / "small.conf"
    config.write_text("max_payload: 4096\n")
    broker = NatsBroker(tmp_path / "broker", "-c", str(config))
    try:
        await broker.start()
        await write(one, 1, 1)
        await write(one, 2, 2, data='"' + "x" * 5_000 + '"')
        await write(one, 3, 3)
        publisher = publisher_of(one, broker.sink())
        await published(publisher, up_to(publisher, 3))
        await publisher.end()
        found = await broker.read()
    finally:
        broker.close()
    assert [one.seq for one in found] == [1, 2, 3]
    assert ["thinned" in one.labels for one in found] == [False, True, False]
    told = json.loads(found[1].body)
    assert (told["id"], told["data"]) == ("evt_000002", None)


@ON_ONE_DATABASE
async def test_events_larger_than_the_nats_stream_takes_go_without_their_data(
    one: Process, nats_broker: NatsBroker
) -> None:
    client = await nats_broker.client()
    await client.jetstream().add_stream(
        name=nats_broker.stream, subjects=["fluxgate.events.>"], max_msg_size=2_048
    )
    await client.close()
    await write(one, 1, 1)
    await write(one, 2, 2, data='"' + "x" * 5_000 + '"')
    await write(one, 3, 3)
    publisher = publisher_of(one, nats_broker.sink())
    await published(publisher, up_to(publisher, 3))
    await publisher.end()
    assert ["thinned" in found.labels for found in await nats_broker.read()] == [False, True, False]


@ON_ONE_DATABASE
async def test_events_that_are_not_for_redis_go_without_their_data(
    one: Process, redis_broker: RedisBroker
) -> None:
    await write(one, 1, 1)
    await write(one, 2, 2, data='"' + "x" * 5_000 + '"')
    sink = RedisSink(url=redis_broker.url, stream=redis_broker.stream, most_bytes=4_096)
    publisher = publisher_of(one, sink)
    await published(publisher, up_to(publisher, 2))
    await publisher.end()
    assert ["thinned" in found.labels for found in await redis_broker.read()] == [False, True]


@ON_ONE_DATABASE
async def test_a_redis_without_memory_takes_nothing_and_is_told_so(one: Process, tmp_path: Path) -> None:
    broker = RedisBroker(tmp_path / "broker")
    try:
        await broker.start()
        await write(one, 1, 5)
        publisher = publisher_of(one, broker.sink())
        async with contextlib.aclosing(broker.client()) as client:
            await client.config_set("maxmemory", "1")
            await publisher.turn()
            [standing] = await one.door.read(lambda tx: sinks.standing(tx, [publisher.name]))
            assert standing.trouble == "refused"
            await client.config_set("maxmemory", "0")
        await published(publisher, up_to(publisher, 5))
        await publisher.end()
        complete(await broker.read(), 5)
    finally:
        broker.close()


def test_the_events_of_these_tests_differ() -> None:
    assert len({event.id for event in made(1, 9)}) == 9
