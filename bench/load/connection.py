"""One keep-alive HTTP/1.1 connection that sends ready-made requests; as little Python as a request can cost."""

import asyncio
from collections.abc import Callable
from typing import cast

_LENGTH = b"content-length:"


class BadAnswer(Exception):
    """The server said something that this client cannot read."""


class Connection(asyncio.Protocol):
    """Sends one request at a time; `answered(connection, status)` is called after each answer."""

    def __init__(self, answered: Callable[["Connection", int], None], lost: Callable[[], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._got = b""
        #: When the request under way was due, by the loop's clock.
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the type.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        """This function will send a request that was due at a time."""
        self.due = due
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got = self._got + data if self._got else data
        status = self._whole()
        if status is not None:
            self._got = b""
            self._answered(self, status)

    def _whole(self) -> int | None:
        """The status once the whole answer is here."""
        got = self._got
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = got[:end].lower()
        at = head.find(_LENGTH)
        if at < 0:
            raise BadAnswer("an answer without a content-length")
        stop = head.find(b"\r", at)
        length = int(head[at + len(_LENGTH) : stop if stop > 0 else end])
        return int(got[9:12]) if len(got) >= end + 4 + length else None

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def close(self) -> None:
        """This function will end the connection."""
        if self._transport is not None:
            self._transport.close()
