"""Assembles the simulator and runs it: `create_app`, `running` (inside a program), `run` (until a signal)."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from service.simulator.bfl.provider import Bfl
from service.simulator.control import control_routes
from service.simulator.fal.provider import Fal
from service.simulator.faults import Faults, update
from service.simulator.provider import Provider
from service.simulator.server import Listener, run_until_signal, serving
from service.simulator.submission import RAW_SEND
from service.simulator.world import World

#: the one list of providers
PROVIDERS: tuple[Callable[[World], Provider], ...] = (Fal, Bfl)
#: ended requests are known for an hour, as fal keeps results; never more than this many, 7 KB each
KEEP_S = 3_600
KEEP_ENDED = 20_000


class _Application(Starlette):
    """Keeps the server's own `send` in the scope, past Starlette's wrappers, so that a connection can be cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[RAW_SEND] = send
        await super().__call__(scope, receive, send)


def create_app(
    *,
    faults: Faults | None = None,
    seed: int | None = None,
    public_url: str | None = None,
    keep_s: int = KEEP_S,
    keep_ended: int = KEEP_ENDED,
) -> Starlette:
    """Return the ASGI application; its `state.world` is the simulation.

    :param public_url: base of the URLs in replies; by default the address under which the caller reached us.
    """
    world = World(
        faults=faults or Faults(), seed=seed, public_url=public_url, keep_s=keep_s, keep_ended=keep_ended
    )
    for make in PROVIDERS:
        provider = make(world)
        world.providers[provider.name] = provider

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await world.close()

    routes = [route for provider in world.providers.values() for route in provider.routes()]
    app = _Application(routes=[*control_routes(world), *routes], lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.world = world
    return app


class Simulator:
    """A running simulator in this process."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url

    def stats(self) -> dict[str, object]:
        """Return what `GET /_sim/stats` answers."""
        return self.world.stats()

    def requests(self, provider: str | None = None) -> list[dict[str, object]]:
        """Return the rows of `GET /_sim/requests`."""
        return self.world.rows(provider)

    def set_faults(self, **dials: object) -> None:
        """Turn some dials.

        :raises FaultError: if a dial is unknown or its value out of range.
        """
        self.world.faults = update(self.world.faults, dials)


@contextlib.asynccontextmanager
async def running(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Faults | None = None,
    seed: int | None = None,
    public_url: str | None = None,
    tls_cert: Path | str | None = None,
    tls_key: Path | str | None = None,
    keep_s: int = KEEP_S,
    keep_ended: int = KEEP_ENDED,
) -> AsyncIterator[Simulator]:
    """Serve the simulator in this event loop while the block runs; port 0 takes a free one.

    :raises OSError: if the address cannot be bound.
    """
    listener = Listener(host, port, tls_cert=tls_cert, tls_key=tls_key)
    app = create_app(faults=faults, seed=seed, public_url=public_url, keep_s=keep_s, keep_ended=keep_ended)
    world: World = app.state.world
    async with serving(app, listener, closing=world.closing):
        yield Simulator(world, listener.url)


def run(
    host: str = "127.0.0.1",
    port: int = 9090,
    *,
    faults: Faults | None = None,
    seed: int | None = None,
    tls_cert: Path | str | None = None,
    tls_key: Path | str | None = None,
    public_url: str | None = None,
    ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve the simulator until SIGTERM or SIGINT, then return.

    :param ready: called with the URL and the seed once connections are accepted.
    :raises OSError: if the address cannot be bound, or a certificate file cannot be read.
    """
    listener = Listener(host, port, tls_cert=tls_cert, tls_key=tls_key)
    app = create_app(faults=faults, seed=seed, public_url=public_url)
    world: World = app.state.world
    run_until_signal(
        app, listener, closing=world.closing, ready=lambda url: ready(url, world.seed) if ready else None
    )
