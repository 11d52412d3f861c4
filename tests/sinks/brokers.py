"""Real brokers for the tests: started on free ports with a folder of their own, killed, started again, read out."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from service.sinks.base import Sink
from service.sinks.kafka import KafkaSink
from service.sinks.nats import NatsSink
from service.sinks.redis import RedisSink

_START_S = 20.0


@dataclass(frozen=True)
class Received:
    """One message as a consumer gets it."""

    id: str
    key: str
    body: bytes
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        return int(self.labels["seq"])


class Broker(Protocol):
    """A broker that a test can take away and give back."""

    async def start(self) -> None: ...
    def sink(self) -> Sink: ...
    async def read(self) -> list[Received]: ...
    async def take_away(self) -> None: ...
    async def give_back(self) -> None: ...
    def close(self) -> None: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installed(program: str) -> str:
    """Find a server; without it the test fails, because nothing was shown."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(f"{program} is not installed: apt-get install {program} (these tests need the real one)")
    return found


async def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended by itself"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the server does not listen")


class Server:
    """A server process that keeps its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def _launched(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            self.command(), cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def start(self) -> None:
        self.process = self._launched()
        await listening(self.port, self.process)

    async def take_away(self) -> None:
        """Kill it; what it has not written to its files is gone."""
        self.close()

    async def give_back(self) -> None:
        await self.start()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class NatsBroker(Server):
    """nats-server with JetStream on disk."""

    stream = "FLUXGATE"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options = options
        self.user = ""

    def command(self) -> Sequence[str]:
        where = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js")]
        return [installed("nats-server"), *where, *self.options]

    @property
    def url(self) -> str:
        return f"nats://{self.user}127.0.0.1:{self.port}"

    def sink(self) -> NatsSink:
        return NatsSink(url=self.url, stream=self.stream)

    async def client(self) -> nats.NATS:
        return await nats.connect(self.url, allow_reconnect=False)

    async def read(self) -> list[Received]:
        client = await self.client()
        try:
            manager = client.jsm()
            try:
                info = await manager.stream_info(self.stream)
            except NotFoundError:
                return []
            found = []
            for seq in range(info.state.first_seq, info.state.last_seq + 1):
                message = await manager.get_msg(self.stream, seq)
                headers = message.headers or {}
                labels = {
                    name.removeprefix("Fluxgate-").lower().replace("-", "_"): text
                    for name, text in headers.items()
                    if name.startswith("Fluxgate-")
                }
                labels["subject"] = message.subject or ""
                key = labels.get("job_id") or labels["tenant"]
                found.append(Received(headers["Nats-Msg-Id"], key, message.data or b"", labels))
            return found
        finally:
            with contextlib.suppress(NatsError):
                await client.close()


class RedisBroker(Server):
    """redis-server that appends every write to its file before it answers."""

    stream = "fluxgate:events"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options = options
        self.user = ""

    def command(self) -> Sequence[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [installed("redis-server"), *where, "--appendonly", "yes", "--save", "", *self.options]

    @property
    def url(self) -> str:
        return f"redis://{self.user}127.0.0.1:{self.port}/0"

    def sink(self) -> RedisSink:
        return RedisSink(url=self.url, stream=self.stream)

    def client(self) -> Redis:
        return Redis.from_url(self.url)

    async def read(self) -> list[Received]:
        client = self.client()
        try:
            entries: Any = await client.xrange(self.stream)
        finally:
            await client.aclose()
        found = []
        for entry_id, fields in entries:
            labels = {name.decode(): text.decode() for name, text in fields.items() if name != b"event"}
            labels["entry"] = entry_id.decode()
            key = labels.get("job_id") or labels["tenant"]
            found.append(Received(labels["id"], key, fields[b"event"], labels))
        return found


def _stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


class KafkaBroker:
    """librdkafka's mock cluster, in a process of its own. It keeps nothing, so it is held and not killed."""

    topic = "fluxgate.events"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""

    def _launched(self) -> str:
        command = [sys.executable, str(Path(__file__).with_name("kafka_cluster.py"))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    async def start(self) -> None:
        self.bootstrap = await asyncio.get_running_loop().run_in_executor(None, self._launched)
        assert self.bootstrap, "the mock cluster did not start"

    def sink(self) -> KafkaSink:
        return KafkaSink(bootstrap=self.bootstrap, topic=self.topic, confirm_s=2.0)

    async def take_away(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # A thread that is on another core goes on for a moment, and would still answer.
        async with asyncio.timeout(10):
            while not _stands_still(self.process.pid):
                await asyncio.sleep(0.01)

    async def give_back(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    async def read(self) -> list[Received]:
        return await asyncio.get_running_loop().run_in_executor(None, self._read)

    def _read(self) -> list[Received]:
        """All partitions, one after the other."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "reader", "enable.partition.eof": True}
        )
        try:
            partitions = consumer.list_topics(self.topic, timeout=10).topics[self.topic].partitions
            consumer.assign([TopicPartition(self.topic, number, OFFSET_BEGINNING) for number in partitions])
            found, ended = [], set()
            while len(ended) < len(partitions):
                message = consumer.poll(10)
                assert message is not None, "the mock cluster does not answer"
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
                    continue
                labels = {name: text.decode() for name, text in message.headers() or []}
                labels["partition"] = str(message.partition())
                found.append(Received(labels["id"], message.key().decode(), message.value(), labels))
            return found
        finally:
            consumer.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


BROKERS: dict[str, Any] = {"nats": NatsBroker, "redis": RedisBroker, "kafka": KafkaBroker}
