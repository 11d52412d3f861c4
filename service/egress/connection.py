"""One HTTP/1.1 connection to a checked address: it sends a ready request and reads one answer within limits.

Rule: only a connection whose last answer was complete, with nothing behind it, may carry another request.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools

from service.egress.trouble import Kind, Unreachable

#: Status line, headers, interim answers, trailers and the framing of chunks; nginx takes 32 KiB of headers too.
MOST_HEAD_BYTES = 32 * 1024
_SWITCHING_PROTOCOLS = 101


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `cut` when there was more of its body than was asked for."""

    status: int
    #: By lower-case name; what came twice is joined by commas.
    headers: Mapping[str, str]
    body: bytes
    cut: bool


class Connection(asyncio.Protocol):
    """Fed by the event loop; carries one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.made_s = self.used_s = self._loop.time()
        #: Done when the connection is gone.
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.reusable = False
        #: Something came back to the request under way, or to the last one.
        self.heard = False
        self._waiting: asyncio.Future[Reply | Unreachable] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._most_body_bytes = 0
        self._came_bytes = 0
        self._begin_answer()

    async def exchange(self, request: bytes, *, most_body_bytes: int) -> Reply:
        """This function will send a request and give the answer, of its body no more than so many bytes.

        :raises Unreachable: if no complete answer comes.
        """
        waiting: asyncio.Future[Reply | Unreachable] = self._loop.create_future()
        self._waiting = waiting
        self._parser = httptools.HttpResponseParser(self)
        self._most_body_bytes = most_body_bytes
        self._came_bytes = 0
        self.heard = self.reusable = False
        self._begin_answer()
        if self._transport is None or self._transport.is_closing():
            self._fail(Kind.RESET, "The connection was closed before the request.")
        else:
            self._transport.write(request)
        outcome = await waiting
        if isinstance(outcome, Unreachable):
            raise outcome
        return outcome

    def abort(self) -> None:
        """This function will end the connection at once."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the type.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            # An answer to nothing, or more than one to a request: whatever it is, it must not meet the next request.
            self.abort()
            return
        self.heard = True
        self._came_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False  # 101 was told as the answer that it is
        except httptools.HttpParserError:
            self.reusable = False
            self._fail(Kind.NOT_HTTP, "What it answers is not HTTP.")
        if self._waiting is None:
            self._parser = None
        elif len(self._body) > self._most_body_bytes:
            self._finish(reusable=False, cut=True)
        elif self._came_bytes > MOST_HEAD_BYTES + (self._most_body_bytes if self._head_done else 0):
            self._too_much()

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._waiting is not None:
            if error is None and self._head_done and self._ends_with_connection():
                self._finish(reusable=False)
            elif self.heard:
                self._fail(Kind.RESET, "The connection ended before the answer did.")
            else:
                self._fail(Kind.RESET, "It hung up without an answer.")
        self._parser = None
        if not self.lost.done():
            self.lost.set_result(None)

    def on_message_begin(self) -> None:
        if self._waiting is None:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        if len(self._body) <= self._most_body_bytes:
            self._body += body

    def on_message_complete(self) -> None:
        if self._waiting is None or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200 and status != _SWITCHING_PROTOCOLS:
            self._begin_answer()  # an interim answer: the real one follows
        elif len(self._body) > self._most_body_bytes:
            self._finish(reusable=False, cut=True)
        else:
            keep = status != _SWITCHING_PROTOCOLS and self._parser.should_keep_alive()
            self._finish(reusable=keep)

    def _begin_answer(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_done = False
        self._body = bytearray()

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _too_much(self) -> None:
        """Of an answer that has begun, the beginning suffices; without a whole head there is none."""
        if self._head_done:
            self._finish(reusable=False, cut=True)
        else:
            self._fail(
                Kind.TOO_LARGE, f"The head of its answer is larger than {MOST_HEAD_BYTES // 1024} KiB."
            )

    def _finish(self, *, reusable: bool, cut: bool = False) -> None:
        if self._waiting is None or self._parser is None:
            return
        headers: dict[str, str] = {}
        for name, value in self._headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        body = bytes(self._body[: self._most_body_bytes])
        self.reusable = reusable
        self._tell(Reply(self._parser.get_status_code(), headers, body, cut))

    def _fail(self, kind: Kind, message: str) -> None:
        self._tell(Unreachable(kind, message))

    def _tell(self, outcome: Reply | Unreachable) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)
