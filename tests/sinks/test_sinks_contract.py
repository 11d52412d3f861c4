"""What every sink does, shown on real servers (Kafka: librdkafka's mock cluster)."""

import asyncio

import pytest

from service.sinks.base import Kind, Sink, SinkTrouble, Tail
from service.sinks.kafka import KafkaSink
from service.sinks.nats import NatsSink
from service.sinks.redis import RedisSink
from tests.sinks.brokers import Broker, KafkaBroker, free_port
from tests.sinks.messages import by_key, expected, message, several


async def published(sink: Sink, first: int, last: int) -> None:
    """Publish a row of messages, however many the sink takes at once."""
    left = several(first, last)
    while left:
        taken = await sink.publish(left, after=left[0].seq - 1)
        assert taken > 0
        del left[:taken]


async def test_a_reader_gets_the_bytes_the_id_the_key_and_the_labels(broker: Broker) -> None:
    sent = [
        message(1, body=b'{"data":"\xf0\x9f\xa6\x8a\\u0000"}'),
        message(2, job_id=None, job_seq=None, type="endpoint.disabled", tenant="Acme & Söhne. *>"),
    ]
    sink = broker.sink()
    await sink.open()
    assert await sink.publish(sent, after=0) == 2
    await sink.close()
    found = sorted(await broker.read(), key=lambda one: one.seq)
    assert [(one.id, one.seq, one.body) for one in found] == [(one.id, one.seq, one.body) for one in sent]
    assert [one.labels["type"] for one in found] == ["job.succeeded", "endpoint.disabled"]
    assert found[0].key == found[0].labels["job_id"] == "job_1"
    assert found[0].labels["job_seq"] == "1"
    assert "job_id" not in found[1].labels
    assert "thinned" not in found[1].labels


async def test_what_is_confirmed_stands_in_its_order(broker: Broker) -> None:
    sink = broker.sink()
    await sink.open()
    await published(sink, 1, 700)
    await sink.close()
    found = await broker.read()
    assert len(found) == 700
    assert by_key(found) == expected(several(1, 700))


async def test_an_empty_broker_has_none_of_ours_and_a_full_one_tells_the_newest(lasting: Broker) -> None:
    sink = lasting.sink()
    assert await sink.open() == Tail(0)
    await published(sink, 1, 5)
    await sink.close()
    again = lasting.sink()
    assert await again.open() == Tail(5, "evt_000005")
    await published(again, 6, 8)
    await again.close()
    assert [one.seq for one in await lasting.read()] == list(range(1, 9))


async def test_kafka_cannot_tell(kafka_broker: KafkaBroker) -> None:
    sink = kafka_broker.sink()
    assert await sink.open() is None
    await sink.close()


async def test_who_publishes_behind_an_end_that_is_not_there_any_more_is_refused(lasting: Broker) -> None:
    """Two processes that both believe the sink is theirs: the slower one changes nothing."""
    slow, quick = lasting.sink(), lasting.sink()
    await slow.open()
    await quick.open()
    await published(quick, 1, 9)
    with pytest.raises(SinkTrouble) as caught:
        # Another id, so that no deduplication can hide it.
        await slow.publish([message(3, id="evt_other"), message(4, id="evt_more")], after=0)
    assert caught.value.kind is Kind.MOVED
    await slow.close()
    await quick.close()
    assert [one.id for one in await lasting.read()] == [one.id for one in several(1, 9)]


async def test_a_broker_that_goes_away_is_noticed_and_loses_nothing_that_it_confirmed(broker: Broker) -> None:
    sink = broker.sink()
    await sink.open()
    await published(sink, 1, 50)
    await broker.take_away()
    with pytest.raises(SinkTrouble) as caught:
        async with asyncio.timeout(20):
            await sink.publish(several(51, 60), after=50)
    assert caught.value.kind in (Kind.UNREACHABLE, Kind.TIMEOUT)
    await sink.close()
    await broker.give_back()
    again = broker.sink()
    tail = await again.open()
    assert tail in (None, Tail(50, "evt_000050"), Tail(60, "evt_000060"))
    if tail is None or tail.seq == 50:
        await published(again, 51, 60)
    await again.close()
    found = await broker.read()
    assert by_key(found) == expected(several(1, 60))


@pytest.mark.parametrize("kind", ["nats", "redis", "kafka"])
async def test_a_server_that_is_not_there_is_said_so_without_the_url(kind: str) -> None:
    port = free_port()
    sink: Sink = {
        "nats": lambda: NatsSink(url=f"nats://app:hidden-word@127.0.0.1:{port}", stream="S"),
        "redis": lambda: RedisSink(url=f"redis://app:hidden-word@127.0.0.1:{port}", stream="s"),
        "kafka": lambda: KafkaSink(bootstrap=f"127.0.0.1:{port}", topic="t"),
    }[kind]()
    with pytest.raises(SinkTrouble) as caught:
        await sink.open()
    await sink.close()
    assert caught.value.kind is Kind.UNREACHABLE
    assert "hidden-word" not in repr(caught.value)
    assert str(port) not in str(caught.value)
    assert "hidden-word" not in repr(sink)


async def test_publishing_without_a_connection_is_trouble_and_not_a_defect(broker: Broker) -> None:
    sink = broker.sink()
    with pytest.raises(SinkTrouble):
        await sink.publish(several(1, 2), after=0)
    await sink.open()
    await sink.close()
    await sink.close()
    with pytest.raises(SinkTrouble):
        await sink.publish(several(1, 2), after=0)


async def test_a_sink_that_is_cut_off_while_it_publishes_leaves_nothing_behind(broker: Broker) -> None:
    """As at the end of the process: no task, no connection, no warning stays."""
    sink = broker.sink()
    await sink.open()
    publishing = asyncio.ensure_future(sink.publish(several(1, 200), after=0))
    await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    await sink.close()
    again = broker.sink()
    tail = await again.open()
    await published(again, (tail.seq if tail else 0) + 1, 200)
    await again.close()
    assert by_key(await broker.read()) == expected(several(1, 200))
