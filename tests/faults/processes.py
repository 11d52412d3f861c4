"""Real `fluxgate` processes that can be killed at any moment, and the simulator that they talk to.

Rule: a port is kept by its number for the whole test, so that a process that comes back comes back to the same URL.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from service.simulator import app as simulator_app
from service.simulator.app import Simulator
from service.simulator.faults import parse
from tests.cli.process import COMMAND, STOPS_WITHIN_S, environment

API_KEY = "a-key-for-the-tests-of-faults"
SECRET_KEYS = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
LEASE_S = 2.0


class Port:
    """A port of this machine that nobody else is given, whether or not anybody listens on it at the moment."""

    def __init__(self) -> None:
        # Bound and never listening: whoever sets SO_REUSEADDR, as our servers do, may listen beside it.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeper.bind(("127.0.0.1", 0))
        self.number: int = self._keeper.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    def close(self) -> None:
        self._keeper.close()


@dataclass
class Process:
    """One process under way."""

    process: asyncio.subprocess.Process
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    async def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Ask it to end; give the exit code and the seconds that the end took."""
        began = time.monotonic()
        self.process.send_signal(number)
        async with asyncio.timeout(STOPS_WITHIN_S + 10):
            code = await self.process.wait()
        return code, time.monotonic() - began


@dataclass
class Site:
    """One installation of the service: a database, a provider, and processes that come and go."""

    folder: Path
    settings: dict[str, str]
    port: Port
    http: httpx.AsyncClient
    _started: list[Process] = field(default_factory=list)
    _ports: list[Port] = field(default_factory=list)

    async def serve(self, *options: str, port: Port | None = None) -> Process:
        """Start `fluxgate serve` and return once it listens."""
        number = str((port or self.port).number)
        return await self._start("listening on", "serve", "--port", number, *options)

    async def work(self) -> Process:
        """Start `fluxgate work` and return once it works."""
        return await self._start("working", "work")

    async def _start(self, ready: str, *arguments: str) -> Process:
        log_path = self.folder / f"{len(self._started)}-{arguments[0]}.log"
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                *arguments,
                env=environment(self.settings),
                cwd=self.folder,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        started = Process(process, log_path)
        self._started.append(started)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        assert ready in line, started.log
        return started

    async def kill_all(self) -> None:
        """End every process as a power cut would, also those that are not ready yet."""
        for process in self._started:
            await process.kill()

    def another_port(self) -> Port:
        """Keep one more port, for a second web process."""
        self._ports.append(Port())
        return self._ports[-1]

    def caller(self, port: Port) -> httpx.AsyncClient:
        """Make a client of one web process; whoever makes it closes it."""
        return _client(port)

    async def __aenter__(self) -> "Site":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill_all()
        await self.http.aclose()
        for port in (self.port, *self._ports):
            port.close()
        if kind is not None:
            for process in self._started:
                print(f"--- {process.log_path.name}\n{process.log[-6000:]}")


def _client(port: Port) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=port.url,
        headers={"Authorization": f"Bearer {API_KEY}"},
        # No connection is kept: one that a killed process held would look like a fault of the next one.
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=0),
        timeout=30,
        trust_env=False,
    )


def site(database_url: str, folder: Path, *, provider_url: str, **settings: str) -> Site:
    """Prepare an installation whose providers are all behind `provider_url`; nothing runs yet."""
    port = Port()
    home = folder / "site"
    home.mkdir(exist_ok=True)
    defaults = {
        "FLUXGATE_DATABASE_URL": database_url,
        "FLUXGATE_PUBLIC_URL": port.url,
        "FLUXGATE_STORAGE_URL": f"file:{home / 'artifacts'}",
        "FLUXGATE_SECRET_KEYS": SECRET_KEYS,
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FLUXGATE_LEASE_S": f"{LEASE_S:g}",
        "FLUXGATE_POLL_AFTER_S": "0.5",
        "FLUXGATE_METRICS_OPEN": "1",
        "FAL_KEY": "fal-key-of-the-tests",
        "BFL_API_KEY": "bfl-key-of-the-tests",
        "FLUXGATE_FAL_QUEUE_URL": f"{provider_url}/fal-queue",
        "FLUXGATE_FAL_RUN_URL": f"{provider_url}/fal-run",
        "FLUXGATE_FAL_JWKS_URL": f"{provider_url}/fal-rest/.well-known/jwks.json",
        "FLUXGATE_FAL_PLATFORM_URL": f"{provider_url}/fal-api/v1",
        "FLUXGATE_BFL_URL": f"{provider_url}/bfl",
    }
    return Site(folder=home, settings={**defaults, **settings}, port=port, http=_client(port))


@contextlib.asynccontextmanager
async def simulated(faults: str = "", *, seed: int = 1) -> AsyncIterator[Simulator]:
    """Run the fake providers beside the test: they survive whatever happens to the service."""
    async with simulator_app.running(faults=parse(faults), seed=seed) as simulator:
        yield simulator
