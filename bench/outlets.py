"""The ends of the stream as processes: a consumer of webhooks, readers of streams and of the feed."""

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gate import API_KEY, Gate
from bench.processes import Broken, Process, free_port, python, started
from bench.receipts import Receipt

#: What a program that waits for the end of its jobs wants to hear.
ENDS = ("job.succeeded", "job.failed", "job.blocked", "job.canceled", "job.expired")
#: The service posts to no address of its own machine unless the operator says so.
ALLOWED = {"FLUXGATE_EGRESS_ALLOW": "127.0.0.0/8"}
_LOOK_S = 0.1


@dataclass
class Outlet:
    """A running process that notes what reaches it."""

    process: Process
    port_to_ask: int
    url: str = ""

    def ask(self, name: str) -> Any:
        """This function will ask it for something."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port_to_ask}/{name}", timeout=60) as answer:
            return json.load(answer)

    def receipts(self) -> list[Receipt]:
        """This function will tell what arrived."""
        return [Receipt(*row) for row in self.ask("receipts")]

    def until_got(self, count: int, *, wait_s: float) -> None:
        """This function will wait until so many events have arrived.

        :raises Broken: if that takes longer than `wait_s`.
        """
        until(lambda: self.ask("count") >= count, wait_s=wait_s, what=f"{count} events at the consumer")


def until(so: Callable[[], bool], *, wait_s: float, what: str) -> None:
    """This function will wait until something is so.

    :raises Broken: if that takes longer than `wait_s`.
    """
    end = time.monotonic() + wait_s
    while not so():
        if time.monotonic() > end:
            raise Broken(f"waited {wait_s:g} s for {what}")
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def consuming(folder: Path, *, cores: set[int] | None = None) -> Iterator[Outlet]:
    """This function will run a consumer of webhooks while the block runs."""
    port, port_to_ask = free_port(), free_port()
    command = python("bench.consumer", str(port), str(port_to_ask))
    ready = f"http://127.0.0.1:{port_to_ask}/count"
    with started(command, ready_url=ready, folder=folder, cores=cores) as process:
        yield Outlet(process, port_to_ask, f"http://127.0.0.1:{port}/hooks")


@contextlib.contextmanager
def reading(
    kind: str, gate: Gate, folder: Path, *, how_many: int = 1, types: Sequence[str]
) -> Iterator[Outlet]:
    """This function will run readers of the stream (`sse` or `feed`) while the block runs, all of them connected."""
    port_to_ask = free_port()
    numbers = [str(number) for number in (how_many, gate.port, port_to_ask)]
    command = python("bench.readers", kind, *numbers, ",".join(types))
    ready = f"http://127.0.0.1:{port_to_ask}/ready"
    with started(command, ready_url=ready, folder=folder) as process:
        yield Outlet(process, port_to_ask)


def call(gate: Gate, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """This function will make one call of the API and return its document, if there is any."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{gate.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def endpoint(gate: Gate, url: str, **wanted: Any) -> Iterator[dict[str, Any]]:
    """This function will have events posted to a URL while the block runs."""
    made: dict[str, Any] = call(gate, "POST", "/v1/endpoints", {"url": url, **wanted})
    yield made
    call(gate, "DELETE", f"/v1/endpoints/{made['id']}")
