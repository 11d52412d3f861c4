"""One request on its way to a flow: who asks, what for, and its body, read with a cap."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from starlette.types import Receive, Scope

from service.storage.keys import ApiKey
from service.web.edge import Disconnected
from service.web.problems import Problem
from service.wiring import Service


@dataclass(kw_only=True)
class Visit:
    """What a handler gets. `query` has the checked values of the parameters that were given."""

    service: Service
    scope: Scope
    receive: Receive
    key: ApiKey | None = None
    query: Mapping[str, Any] = field(default_factory=dict)

    @property
    def caller(self) -> ApiKey:
        """The key that the request came with, on paths that need one."""
        assert self.key is not None, "only paths that need a key ask for the caller"
        return self.key

    def path(self, name: str) -> str:
        """This function will give one part of the path."""
        part: str = self.scope["path_params"][name]
        return part

    @cached_property
    def headers(self) -> Mapping[str, list[str]]:
        """Every value of every header, by lower-case name; any byte is some character."""
        found: dict[str, list[str]] = {}
        for name, value in self.scope["headers"]:
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        return found

    def header(self, name: str) -> Sequence[str]:
        """This function will give every value of one header, by its lower-case name."""
        return self.headers.get(name, ())

    async def body(self, *, most: int) -> bytes:
        """This function will read the body; what the caller says of its length only ends the reading sooner.

        :raises Problem: if it is longer than `most` bytes.
        :raises Disconnected: if the caller went away before its end.
        """
        said = self.header("content-length")
        if said and said[0].isdecimal() and len(said[0]) < 20 and int(said[0]) > most:
            raise Problem("too_large", f"the body may have at most {most} bytes")
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Disconnected
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > most:
                raise Problem("too_large", f"the body may have at most {most} bytes")
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def patience(self, wait_s: float) -> "Patience":
        """This function will watch, inside its context, whether anybody still waits for a slow answer."""
        return Patience(self, wait_s)


class Patience:
    """Tells a long poll when to end early: the service stops, or the caller went away."""

    def __init__(self, visit: Visit, wait_s: float) -> None:
        self._visit = visit
        self._wait_s = wait_s
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Patience":
        if self._wait_s > 0:
            self._watch = asyncio.create_task(self._until_gone())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    async def _until_gone(self) -> None:
        while (await self._visit.receive())["type"] != "http.disconnect":
            pass

    def over(self) -> bool:
        """This function will tell whether it is useless to wait on."""
        gone = self._watch is not None and self._watch.done()
        return gone or self._visit.service.stopping()
