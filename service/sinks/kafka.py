"""Kafka: one topic, the job as key, an idempotent producer that waits for all replicas.

For each partition one batch is made and sent as a whole, and the next only when all of a set are confirmed: a batch
that fails has nothing behind it. What was confirmed to a process that died before it stored its cursor is sent again:
Kafka has no memory for ids, so readers drop repeats (by `id`, or by `seq`, which only grows within a partition).
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.errors import (  # type: ignore[import-untyped]
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    RecordListTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]

from service.sinks.base import Kind, Message, SinkTrouble, Tail, TooLarge

_CONFIRM_S = 10.0
_CLOSE_S = 0.3
#: Below the limit that brokers have by default for a batch (`message.max.bytes`, 1 MiB).
_BATCH_BYTES = 900_000


class KafkaSink:
    """One topic of one Kafka cluster."""

    def __init__(self, *, bootstrap: str, topic: str, confirm_s: float = _CONFIRM_S) -> None:
        self.name = f"kafka:{topic}"
        self._bootstrap = [part.strip() for part in bootstrap.split(",")]
        self._topic = topic
        self._confirm_s = confirm_s
        self._partitioner = DefaultPartitioner()
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> Tail | None:
        """This function will connect; Kafka cannot tell what it holds of us, so the stored cursor counts.

        :raises SinkTrouble: if no broker answers, or the topic is not there.
        """
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id="fluxgate",
            enable_idempotence=True,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=_BATCH_BYTES * 2,
            request_timeout_ms=int(self._confirm_s * 1000),
        )
        try:
            async with asyncio.timeout(2 * self._confirm_s):
                await self._producer.start()
                await self._producer.partitions_for(self._topic)
        except (KafkaError, OSError, TimeoutError) as error:
            raise _trouble(error) from None
        return None

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        """This function will write as many messages as fit into one batch a partition, and wait for all replicas.

        :raises TooLarge: if the first message is larger than the broker takes.
        :raises SinkTrouble: if they were not all confirmed.
        """
        if self._producer is None:
            raise SinkTrouble(Kind.UNREACHABLE, "the connection is closed")
        taken = 0
        try:
            # The library itself would try an idempotent batch again without end.
            async with asyncio.timeout(self._confirm_s):
                partitions = sorted(await self._producer.partitions_for(self._topic))
                batches, taken = self._batches(self._producer, messages, partitions)
                await self._send(self._producer, batches)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            if taken == 1:
                raise TooLarge(len(messages[0].body)) from None
            return await self.publish(messages[:1], after=after)
        except (KafkaError, OSError, TimeoutError) as error:
            raise _trouble(error) from None
        return taken

    def _batches(
        self, producer: AIOKafkaProducer, messages: Sequence[Message], partitions: list[int]
    ) -> tuple[dict[int, Any], int]:
        """One batch a partition, and how many messages, from the first on, they hold."""
        batches: dict[int, Any] = {}
        for place, message in enumerate(messages):
            key = message.key.encode()
            partition = self._partitioner(key, partitions, partitions)
            if partition not in batches:
                batches[partition] = producer.create_batch()
            headers = [(name, text.encode()) for name, text in message.labels().items()]
            added = batches[partition].append(
                key=key, value=message.body, timestamp=message.at_ms, headers=headers
            )
            if added is None:
                return batches, place
        return batches, len(messages)

    async def _send(self, producer: AIOKafkaProducer, batches: dict[int, Any]) -> None:
        sent = []
        for partition, batch in batches.items():
            batch.close()
            sent.append(await producer.send_batch(batch, self._topic, partition=partition))
        came = await asyncio.gather(*sent, return_exceptions=True)
        failed = [one for one in came if isinstance(one, BaseException)]
        if failed:
            raise failed[0]

    async def close(self) -> None:
        """This function will end the connection; what is not confirmed by now is given up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError):
                await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End at once. The library's own `stop` waits for what it tries to send without end, and leaves tasks behind."""
    sending = producer._sender.sender_task  # noqa: SLF001
    if sending is not None:
        sending.cancel()
    await producer.client.close()
    if sending is not None and not sending.done():
        # Requests under way have lost their connections; one that still waits for something is cut off, too.
        await asyncio.wait({sending}, timeout=_CLOSE_S)
        sending.cancel()
        await asyncio.wait({sending}, timeout=_CLOSE_S)
    producer._closed = True  # noqa: SLF001


def _trouble(error: Exception) -> SinkTrouble:
    """The library's errors in our words, without its own."""
    denied = (AuthenticationFailedError, ClusterAuthorizationFailedError, TopicAuthorizationFailedError)
    if isinstance(error, denied):
        return SinkTrouble(Kind.DENIED, "it does not know us, or does not allow this")
    if isinstance(error, UnknownTopicOrPartitionError):
        return SinkTrouble(Kind.MISSING, "the topic is not there")
    if isinstance(error, (KafkaTimeoutError, RequestTimedOutError, TimeoutError)):
        return SinkTrouble(Kind.TIMEOUT, "no confirmation in time")
    if isinstance(error, (KafkaConnectionError, NodeNotReadyError, OSError)):
        return SinkTrouble(Kind.UNREACHABLE, "no connection")
    return SinkTrouble(Kind.REFUSED, f"Kafka answered with {type(error).__name__}")
