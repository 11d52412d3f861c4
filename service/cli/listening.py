"""uvicorn as a guest of our own program: a socket bound beforehand, our signals, a quick and clean stop."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from service.cli.connection import Connection
from service.cli.failing import Failed
from service.wiring import Service

_BACKLOG = 2048
#: Where a server that listens everywhere can be reached.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
#: Open connections get this long to end when we stop: below the 10 s in which the process must be gone.
_GRACE_S = 5
#: After a signal the process is gone by then, whatever hangs: the promise is 10 s.
_LAST_S = 9.5

_log = structlog.get_logger("fluxgate.stop")


class Listener:
    """A bound socket and the URL that leads to it; port 0 takes a free one."""

    def __init__(
        self, host: str, port: int, *, tls_cert: Path | None = None, tls_key: Path | None = None
    ) -> None:
        self.tls_cert, self.tls_key = tls_cert, tls_key
        if tls_cert is not None and tls_key is not None:
            _check_tls(tls_cert, tls_key)
        self.socket = _bound(host, port)
        reached = _EVERYWHERE.get(host, host)
        shown = f"[{reached}]" if ":" in reached else reached
        self.url = f"{'https' if tls_cert else 'http'}://{shown}:{self.socket.getsockname()[1]}"


def _check_tls(cert: Path, key: Path) -> None:
    """A bad pair is found before anything is opened."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:
        what = f"{cert} and {key} are not a certificate and its key ({error.strerror or error})"
        raise Failed(what, "give two PEM files that belong together") from None


def _bound(host: str, port: int) -> socket.socket:
    # The protocol is named: without it asyncio leaves Nagle's algorithm on for accepted connections.
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as error:
        raise Failed(
            f"{host} is no address of this machine ({error.strerror})", "choose another --host"
        ) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        what = f"cannot listen on {host} port {port} ({error.strerror})"
        raise Failed(what, "choose another --port or --host") from None
    return listening


class _Guest(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program that we run in."""
        yield


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, listener: Listener, service: Service) -> AsyncIterator[asyncio.Task[None]]:
    """This function will serve an application while the block runs; it yields the serving task, to be watched.

    At the end waiting callers are answered, open connections get some seconds, and at the same time the background
    work stops, so that both together stay below 10 s.
    """
    server = _Guest(_config(app, listener))
    task = asyncio.create_task(server.serve(sockets=[listener.socket]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if task.done():
            await task
            raise Failed("the web server did not start", "see its log above")
        yield task
    finally:
        service.stop()
        server.should_exit = True
        await asyncio.wait([task, asyncio.create_task(service.stop_working())])
        listener.socket.close()


def _config(app: ASGIApp, listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        loop="uvloop",
        ws="none",
        log_config=None,
        # Its lines hold the paths, and those of callbacks hold tokens.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=75,
        backlog=_BACKLOG,
        ssl_certfile=listener.tls_cert,
        ssl_keyfile=listener.tls_key,
    )


def stop_on_signals() -> asyncio.Event:
    """This function will give an event that SIGTERM and SIGINT set, in the running loop.

    Whoever hears it ends the process by himself; should that take too long (a database that holds its connections
    and does not answer), the process ends without him: what it held becomes due again as after a crash.
    """
    stop = asyncio.Event()

    def begin_to_end() -> None:
        if not stop.is_set():
            last = threading.Timer(_LAST_S, _end_at_once)
            last.daemon = True
            last.start()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, begin_to_end)
    return stop


def _end_at_once() -> None:
    _log.warning(
        "ended_without_waiting", reason="something did not end in time; its work is left to the leases"
    )
    os._exit(0)


async def until_stopped(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """This function will wait for the stop, or for one of the tasks to end before it.

    :raises Failed: if a task ended by itself.
    """
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not stop.is_set():
        for task in tasks:
            if task.done():
                await task
        raise Failed("the web server ended by itself", "see its log above")
