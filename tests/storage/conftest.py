"""One driver and one process of the service on a fresh database of each kind."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.storage.database import Driver
from service.storage.drivers import open_driver
from tests.storage.world import Clock, Process, process


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(database_url: str, clock: Clock) -> Iterator[Driver]:
    driver = open_driver(database_url, clock)
    yield driver
    driver.close()


@pytest.fixture
async def one(database_url: str, clock: Clock, tmp_path: Path) -> AsyncIterator[Process]:
    """Give one process of the service."""
    async with process(database_url, tmp_path, clock=clock) as made:
        yield made
