"""The page about brokers: its consumers run as they are printed, and its words are those of the code."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from service.sinks.base import Kind
from service.sinks.registry import SinkSettings
from tests.project.repository import ROOT
from tests.sinks.brokers import BROKERS, Broker
from tests.sinks.messages import several
from tests.sinks.test_sinks_contract import published

PAGE = ROOT / "docs" / "brokers.md"


def example(kind: str) -> str:
    [found] = re.findall(rf"```python {kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(found)


def address(broker: Broker, kind: str) -> dict[str, str]:
    variable, attribute = {
        "nats": ("NATS_URL", "url"),
        "redis": ("REDIS_URL", "url"),
        "kafka": ("KAFKA_BOOTSTRAP", "bootstrap"),
    }[kind]
    return {variable: getattr(broker, attribute)}


@pytest.mark.slow
async def test_the_printed_consumer_handles_every_event_once_also_after_it_was_killed(
    broker: Broker, tmp_path: Path
) -> None:
    kind = broker.sink().name.partition(":")[0]
    program = tmp_path / "consumer.py"
    program.write_text(example(kind))
    sink = broker.sink()
    await sink.open()
    await published(sink, 1, 40)
    first = await consumed(program, address(broker, kind), ids(1, 40))
    await sink.close()
    sink = broker.sink()
    tail = await sink.open()
    if tail is None:
        # A publisher that died before it stored its cursor writes these again.
        await published(sink, 31, 60)
    else:
        await published(sink, 41, 60)
    await sink.close()
    more = await consumed(program, address(broker, kind), ids(41, 60))
    assert set(first) == ids(1, 40)
    assert len(first) == len(set(first))
    assert len(more) == len(set(more))


def ids(first: int, last: int) -> set[str]:
    return {message.id for message in several(first, last)}


async def consumed(program: Path, environ: dict[str, str], wanted: set[str]) -> list[str]:
    """Run a consumer until it has handled what is wanted, and kill it; gives all ids in its order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        told: list[str] = []
        async with asyncio.timeout(40):
            while wanted - set(told):
                line = (await process.stdout.readline()).decode()
                assert line, "the consumer ended by itself"
                told.append(line.split()[2])
        return told
    finally:
        process.kill()
        await process.communicate()


def test_the_page_names_every_setting_kind_and_default() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for word in (
        "FLUXGATE_NATS_URL", "FLUXGATE_NATS_STREAM", "FLUXGATE_REDIS_URL", "FLUXGATE_REDIS_STREAM",
        "FLUXGATE_KAFKA_BOOTSTRAP", "FLUXGATE_KAFKA_TOPIC",
    ):  # fmt: skip
        assert f"`{word}" in page
    for kind in Kind:
        assert f"`{kind.value}`" in page
    defaults = SinkSettings()
    for name in (defaults.nats_stream, defaults.redis_stream, defaults.kafka_topic):
        assert f"`{name}`" in page
    assert "mock cluster only, until a real one was tried" in page
    assert set(re.findall(r"```python (\w+)", page)) == set(BROKERS)
