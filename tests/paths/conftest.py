"""The running application on a fresh database of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.web.app import create_app
from service.wiring import running
from tests.paths.visitors import House, settings


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Give the service with its application; nothing is sent to any provider."""
    async with running(settings(database_url, tmp_path), work=False) as service:
        house = House(service, create_app(service))
        yield house
        for client in house.clients:
            await client.aclose()
