"""What is NATS's own: streams that are not as we would have made them, and messages that expire."""

import asyncio

import pytest

from service.sinks.base import Kind, SinkTrouble, Tail
from service.sinks.nats import NatsSink
from tests.sinks.brokers import NatsBroker
from tests.sinks.messages import message, several


async def test_a_stream_is_made_on_disk_for_our_subjects_and_left_alone_afterwards(
    nats_broker: NatsBroker,
) -> None:
    sink = nats_broker.sink()
    await sink.open()
    await sink.close()
    client = await nats_broker.client()
    made = (await client.jsm().stream_info("FLUXGATE")).config
    assert (made.subjects, made.storage, made.retention) == (["fluxgate.events.>"], "file", "limits")
    await client.jsm().update_stream(made, max_age=3_600.0)
    again = nats_broker.sink()
    await again.open()
    await again.close()
    assert (await client.jsm().stream_info("FLUXGATE")).config.max_age == 3_600.0
    await client.close()


async def test_subjects_tell_tenant_and_type(nats_broker: NatsBroker) -> None:
    sink = nats_broker.sink()
    await sink.open()
    await sink.publish([message(1), message(2, tenant="a.b", type="job.failed")], after=0)
    await sink.close()
    found = await nats_broker.read()
    assert [one.labels["subject"] for one in found] == [
        "fluxgate.events.default.job.succeeded",
        "fluxgate.events.a%2Eb.job.failed",
    ]


async def test_what_expired_at_the_server_cannot_tell_where_we_were(nats_broker: NatsBroker) -> None:
    sink = nats_broker.sink()
    await sink.open()
    await sink.publish(several(1, 5), after=0)
    client = await nats_broker.client()
    await client.jsm().purge_stream("FLUXGATE")
    await client.close()
    await sink.close()
    again = nats_broker.sink()
    assert await again.open() is None
    assert await again.publish(several(6, 8), after=5) == 3
    await again.close()
    assert [one.seq for one in await nats_broker.read()] == [6, 7, 8]


async def test_a_repeat_that_the_server_knows_counts_as_published(nats_broker: NatsBroker) -> None:
    """The messages are gone, their ids are remembered: neither a second time nor a standstill."""
    sink = nats_broker.sink()
    await sink.open()
    await sink.publish(several(1, 5), after=0)
    client = await nats_broker.client()
    await client.jsm().purge_stream("FLUXGATE")
    await client.close()
    left = several(4, 9)
    while left:
        del left[: await sink.publish(left, after=0)]
    await sink.close()
    assert [one.seq for one in await nats_broker.read()] == [6, 7, 8, 9]


async def test_a_stream_that_takes_other_subjects_is_missing(nats_broker: NatsBroker) -> None:
    client = await nats_broker.client()
    await client.jetstream().add_stream(name="FLUXGATE", subjects=["orders.>"])
    await client.close()
    sink = nats_broker.sink()
    assert await sink.open() == Tail(0)
    with pytest.raises(SinkTrouble) as caught:
        await sink.publish(several(1, 3), after=0)
    await sink.close()
    assert caught.value.kind is Kind.MISSING


async def test_another_stream_that_has_our_subjects_is_refused(nats_broker: NatsBroker) -> None:
    client = await nats_broker.client()
    await client.jetstream().add_stream(name="ALL", subjects=["fluxgate.>"])
    await client.close()
    sink = nats_broker.sink()
    with pytest.raises(SinkTrouble) as caught:
        await sink.open()
    await sink.close()
    assert caught.value.kind is Kind.REFUSED


async def test_a_server_without_jetstream_is_refused(nats_broker: NatsBroker) -> None:
    nats_broker.close()
    plain = nats_broker.command
    nats_broker.command = lambda: [part for part in plain() if part != "-js"]  # type: ignore[method-assign]
    await nats_broker.start()
    sink = nats_broker.sink()
    with pytest.raises(SinkTrouble) as caught:
        await sink.open()
    await sink.close()
    assert caught.value.kind in (Kind.REFUSED, Kind.MISSING)


async def test_a_second_server_of_the_list_is_found(nats_broker: NatsBroker) -> None:
    """Which one is tried first is left to chance, so it may take some tries; nobody is asked for ever."""
    sink = NatsSink(url=f"nats://127.0.0.1:1, {nats_broker.url}", stream="FLUXGATE")
    async with asyncio.timeout(20):
        while True:
            try:
                assert await sink.open() == Tail(0)
                break
            except SinkTrouble:
                await sink.close()
    await sink.close()
