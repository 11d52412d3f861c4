"""The stage: a simulator and a real service on free loopback ports, in this process, with a database in a folder."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from service import wiring
from service.cli.demo.script import POLL_AFTER_S
from service.cli.listening import Listener
from service.cli.serve import serving
from service.settings import Settings
from service.simulator.app import running as simulating
from service.storage import migrate


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where everything can be reached."""

    simulator_url: str
    service_url: str
    api_key: str


@asynccontextmanager
async def staged(folder: Path, *, seed: int) -> AsyncIterator[Stage]:
    """This function will run simulator and service while the block runs, with all that they keep in `folder`."""
    listener = Listener("127.0.0.1", 0)
    api_key = f"demo_{secrets.token_urlsafe(24)}"
    async with simulating(seed=seed) as simulator:
        settings = _settings(folder, simulator.url, listener.url, api_key)
        await asyncio.to_thread(migrate.upgrade, settings.database_url)
        async with (
            wiring.running(settings, work=True) as service,
            serving(service, listener),
        ):
            yield Stage(simulator_url=simulator.url, service_url=listener.url, api_key=api_key)


def _settings(folder: Path, simulator: str, service: str, api_key: str) -> Settings:
    """Nothing of the caller's own environment is read: the demo reaches nobody but its simulator."""
    return Settings.load(
        {
            "FLUXGATE_DATABASE_URL": f"sqlite:///{quote(str(folder / 'demo.db'))}",
            "FLUXGATE_STORAGE_URL": f"file:{folder / 'artifacts'}",
            "FLUXGATE_PUBLIC_URL": service,
            "FLUXGATE_BOOTSTRAP_KEY": api_key,
            "FLUXGATE_POLL_AFTER_S": str(POLL_AFTER_S),
            "FAL_KEY": "demo",
            "FLUXGATE_FAL_QUEUE_URL": f"{simulator}/fal-queue",
            "FLUXGATE_FAL_RUN_URL": f"{simulator}/fal-run",
            "FLUXGATE_FAL_JWKS_URL": f"{simulator}/fal-rest/.well-known/jwks.json",
            "FLUXGATE_FAL_PLATFORM_URL": f"{simulator}/fal-api/v1",
            "BFL_API_KEY": "demo",
            "FLUXGATE_BFL_URL": f"{simulator}/bfl",
        },
        env_file=None,
    )
