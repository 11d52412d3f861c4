"""What is Kafka's own: whole batches for each partition, sizes, and the library's errors in our words."""

from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

from service.sinks.base import Kind, SinkTrouble, TooLarge
from tests.sinks.brokers import KafkaBroker
from tests.sinks.messages import by_key, expected, message, several


async def test_a_job_stays_in_its_partition_which_is_that_of_its_id(kafka_broker: KafkaBroker) -> None:
    sink = kafka_broker.sink()
    await sink.open()
    await sink.publish(several(1, 70), after=0)
    await sink.close()
    found = await kafka_broker.read()
    partitions = {one.key: set() for one in found}  # type: dict[str, set[str]]
    for one in found:
        partitions[one.key].add(one.labels["partition"])
    assert {len(where) for where in partitions.values()} == {1}
    assert len({*map(frozenset, partitions.values())}) > 1, "jobs are spread"
    # As Java's clients and librdkafka's murmur2 partitioner would choose, with four partitions.
    assert partitions["job_1"] == {"1"}


async def test_a_set_that_fills_a_batch_is_taken_up_to_there(kafka_broker: KafkaBroker) -> None:
    body = b'"' + b"x" * 250_000 + b'"'
    messages = [message(seq, job_id="job_1", body=body) for seq in range(1, 11)]
    sink = kafka_broker.sink()
    await sink.open()
    taken = await sink.publish(messages, after=0)
    assert taken == 3
    left = messages[taken:]
    while left:
        del left[: await sink.publish(left, after=0)]
    await sink.close()
    assert by_key(await kafka_broker.read()) == expected(messages)


async def test_nothing_is_behind_a_message_that_the_broker_does_not_take(
    kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mock cluster takes every size, so its refusal is played: a batch with the large one in it is refused."""
    sink = kafka_broker.sink()
    await sink.open()
    real = sink._send

    async def refusing(producer: Any, batches: dict[int, Any]) -> None:
        if any(batch.size() > 5_000 for batch in batches.values()):
            raise MessageSizeTooLargeError
        await real(producer, batches)

    monkeypatch.setattr(sink, "_send", refusing)
    messages = [message(seq, body=b"x" * 10_000) if seq == 3 else message(seq) for seq in range(1, 6)]
    assert await sink.publish(messages, after=0) == 1
    assert await sink.publish(messages[1:], after=1) == 1
    with pytest.raises(TooLarge) as caught:
        await sink.publish(messages[2:], after=2)
    assert caught.value.size_bytes == 10_000
    assert await sink.publish(messages[3:], after=3) == 2
    await sink.close()
    assert sorted(one.seq for one in await kafka_broker.read()) == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaConnectionError("hidden-word"), Kind.UNREACHABLE),
        (ConnectionResetError("hidden-word"), Kind.UNREACHABLE),
        (RequestTimedOutError("hidden-word"), Kind.TIMEOUT),
        (TimeoutError("hidden-word"), Kind.TIMEOUT),
        (UnknownTopicOrPartitionError("hidden-word"), Kind.MISSING),
        (ClusterAuthorizationFailedError("hidden-word"), Kind.DENIED),
        (NotEnoughReplicasError("hidden-word"), Kind.REFUSED),
    ],
)
async def test_the_librarys_errors_are_told_in_our_words(
    kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: Kind
) -> None:
    async def failing(producer: Any, batches: Any) -> None:
        raise error

    sink = kafka_broker.sink()
    await sink.open()
    monkeypatch.setattr(sink, "_send", failing)
    with pytest.raises(SinkTrouble) as caught:
        await sink.publish(several(1, 2), after=0)
    await sink.close()
    assert caught.value.kind is kind
    assert "hidden-word" not in str(caught.value)
