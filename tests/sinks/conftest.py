"""Brokers for the tests: each test that asks for one gets its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sinks.brokers import BROKERS, Broker, KafkaBroker, NatsBroker, RedisBroker


async def _running(broker: Broker) -> AsyncIterator[Broker]:
    try:
        await broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """Give a running broker; the test runs once with each kind."""
    async for running in _running(BROKERS[request.param](tmp_path / "broker")):
        yield running


@pytest.fixture(params=["nats", "redis"])
async def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """Give a running broker that keeps what it has on disk and can tell its end."""
    async for running in _running(BROKERS[request.param](tmp_path / "broker")):
        yield running


@pytest.fixture
async def nats_broker(tmp_path: Path) -> AsyncIterator[NatsBroker]:
    made = NatsBroker(tmp_path / "broker")
    async for _ in _running(made):
        yield made


@pytest.fixture
async def redis_broker(tmp_path: Path) -> AsyncIterator[RedisBroker]:
    made = RedisBroker(tmp_path / "broker")
    async for _ in _running(made):
        yield made


@pytest.fixture
async def kafka_broker(tmp_path: Path) -> AsyncIterator[KafkaBroker]:
    made = KafkaBroker(tmp_path / "broker")
    async for _ in _running(made):
        yield made
