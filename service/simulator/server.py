"""uvicorn as a guest: a socket bound beforehand (so port 0 works), no signal handlers, a quick clean stop."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvicorn
import uvloop
from starlette.types import ASGIApp

BACKLOG = 2048
#: where a server that listens everywhere can be reached
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
#: open connections get this long to end when the server stops
GRACE_S = 2


class Listener:
    """A bound socket and the URL that leads to it."""

    def __init__(
        self, host: str, port: int, *, tls_cert: Path | str | None = None, tls_key: Path | str | None = None
    ) -> None:
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("a certificate and its key go together")
        self.tls_cert, self.tls_key = tls_cert, tls_key
        if tls_cert is not None:
            # A bad pair is found here, before anything is bound or served.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls_cert, tls_key)
        self.socket = _bound(host, port)
        self.port: int = self.socket.getsockname()[1]
        shown = _ANY.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"{'https' if tls_cert else 'http'}://{shown}:{self.port}"


def _bound(host: str, port: int) -> socket.socket:
    # The protocol is named, unlike in socket.create_server: without it asyncio leaves Nagle's algorithm on for
    # accepted connections, and every answer in two writes takes 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _Guest(uvicorn.Server):
    """A server that tells its application when it stops, before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the main loop."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Wait for the stop without looking ten times a second; there is no date header to keep."""
        await self.on_tick(0)
        await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave the signals to the program that we run in."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let hanging answers and streams end, then stop."""
        self._closing.set()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, listener: Listener, *, closing: asyncio.Event) -> AsyncIterator[None]:
    """Serve an application in this event loop while the block runs."""
    server = _Guest(_config(app, listener), closing)
    task = asyncio.create_task(server.serve(sockets=[listener.socket]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        if task.done():
            await task
        yield
    finally:
        server.stop()
        await asyncio.wait({task})
        listener.socket.close()


def run_until_signal(
    app: ASGIApp, listener: Listener, *, closing: asyncio.Event, ready: Callable[[str], None]
) -> None:
    """Serve an application in an event loop of its own until SIGTERM or SIGINT."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(app, listener, closing=closing):
            ready(listener.url)
            await stop.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _config(app: ASGIApp, listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=30,
        ssl_certfile=listener.tls_cert,
        ssl_keyfile=listener.tls_key,
    )
