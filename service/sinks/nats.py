"""NATS JetStream: one stream, one subject for each tenant and type, each message behind the one before or not at all.

Each message says which number of the stream it must follow (`Nats-Expected-Last-Sequence`), so that a set can be
sent without waiting in between and still nothing gets in front of something that failed. `Nats-Msg-Id` is the
event's id: within its window the server itself refuses a repeat; beyond it the newest message tells where we were.
"""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    AuthorizationError,
    ConnectionClosedError,
    Error,
    MaxPayloadError,
    NoServersError,
    OutboundBufferLimitError,
    StaleConnectionError,
)
from nats.js.errors import APIError, NotFoundError
from nats.js.manager import JetStreamManager

from service.sinks.base import NO_TLS, Kind, Message, SinkTrouble, Tail, TooLarge

SUBJECTS = "fluxgate.events.>"
_CONNECT_S = 5
_CONFIRM_S = 10.0
_CLOSE_S = 0.5
#: What a header needs beside its name and text, and the block of them; it counts for the server's limit, too.
_HEADER_BYTES = 4
_HEADERS_BYTES = 64
# Error codes of the server: https://github.com/nats-io/nats-server/blob/main/server/errors.json (read 2026-11-20)
_NO_MESSAGE = 10037
_MESSAGE_TOO_LARGE = 10054
_NO_STREAM = 10059
_WRONG_LAST_SEQUENCE = 10071
#: The server's status of an answer when nobody listens to a subject.
_NOBODY = "503"

Answer = dict[str, Any]


def subject_of(message: Message) -> str:
    """This function will make the subject of a message: a tenant is one token, a type the tokens it consists of."""
    return f"fluxgate.events.{_token(message.tenant)}.{message.type}"


def _token(text: str) -> str:
    """Percent-encoded where it is not a letter, digit, `-` or `_`; two tenants never share a token."""
    return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


class NatsSink:
    """One stream of one NATS server or cluster."""

    def __init__(self, *, url: str, stream: str) -> None:
        self.name = f"nats:{stream}"
        self._servers = [part.strip() for part in url.split(",")]
        self._stream = stream
        self._client: Client | None = None
        self._gone = asyncio.Event()
        self._inbox = ""
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        #: The number of the stream's newest message.
        self._last = 0

    async def open(self) -> Tail | None:
        """This function will connect, make the stream where there is none, and read its newest event.

        :raises SinkTrouble: if the server or the stream cannot be used.
        """
        client, self._gone = Client(), asyncio.Event()
        self._client = client
        try:
            await client.connect(
                servers=self._servers,
                name="fluxgate",
                allow_reconnect=False,
                connect_timeout=_CONNECT_S,
                max_reconnect_attempts=1,
                error_cb=_unheard,
                closed_cb=self._closed,
                disconnected_cb=self._closed,
            )
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._heard)
            return await self._tail(JetStreamManager(client, timeout=_CONFIRM_S))
        except (Error, APIError, OSError, TimeoutError) as error:
            raise _trouble(error) from None

    async def _closed(self) -> None:
        self._gone.set()

    async def _tail(self, manager: JetStreamManager) -> Tail | None:
        try:
            info = await manager.stream_info(self._stream)
        except NotFoundError as error:
            if error.err_code != _NO_STREAM:
                raise
            info = await manager.add_stream(name=self._stream, subjects=[SUBJECTS])
        self._last = info.state.last_seq
        if self._last == 0:
            return Tail(0)
        try:
            newest = await manager.get_last_msg(self._stream, SUBJECTS)
        except NotFoundError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            return None  # what it had has expired or was taken out
        headers = newest.headers or {}
        if not str(headers.get("Fluxgate-Seq", "")).isdecimal():
            raise SinkTrouble(Kind.FOREIGN, "the newest message of its subjects is not ours")
        return Tail(int(headers["Fluxgate-Seq"]), headers.get("Nats-Msg-Id"))

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        """This function will write messages behind the newest one and wait until the stream has them.

        :raises TooLarge: if the first message is larger than the server or the stream takes.
        :raises SinkTrouble: if not even the first was confirmed.
        """
        client = self._client
        if client is None or self._gone.is_set():
            raise SinkTrouble(Kind.UNREACHABLE, "the connection is closed")
        try:
            answers = await self._answers(await self._send(client, messages))
        except (Error, OSError) as error:
            raise _trouble(error) from None
        finally:
            self._waiting.clear()
        return self._confirmed(messages, answers)

    async def _send(self, client: Client, messages: Sequence[Message]) -> list[asyncio.Future[Answer]]:
        """Send what the server takes, from the first on, up to one that is too large."""
        futures: list[asyncio.Future[Answer]] = []
        for place, message in enumerate(messages):
            headers = _headers(message, stream=self._stream, behind=self._last + place)
            if len(message.body) + _size(headers) > client.max_payload:
                break
            token = str(next(self._tokens))
            self._waiting[token] = future = asyncio.get_running_loop().create_future()
            futures.append(future)
            reply = f"{self._inbox}.{token}"
            await client.publish(subject_of(message), message.body, reply=reply, headers=headers)
        if not futures:
            raise TooLarge(len(messages[0].body))
        return futures

    async def _heard(self, told: Msg) -> None:
        """An answer to one message. (The library's own asynchronous publish loses those that are errors.)"""
        future = self._waiting.pop(told.subject.rpartition(".")[2], None)
        if future is None or future.done():
            return
        if (told.headers or {}).get("Status") == _NOBODY:
            future.set_result({"error": {"err_code": _NO_STREAM}})
        else:
            future.set_result(orjson.loads(told.data))

    async def _answers(self, futures: Sequence[asyncio.Future[Answer]]) -> list[Answer | None]:
        """What came for each message; None where nothing came in time, or before the connection broke."""
        gone: asyncio.Future[Any] = asyncio.create_task(self._gone.wait())
        all_of_them: asyncio.Future[Any] = asyncio.gather(*futures)
        try:
            await asyncio.wait({gone, all_of_them}, timeout=_CONFIRM_S, return_when=asyncio.FIRST_COMPLETED)
            return [future.result() if future.done() else None for future in futures]
        finally:
            gone.cancel()
            all_of_them.cancel()
            await asyncio.gather(gone, all_of_them, return_exceptions=True)

    def _confirmed(self, messages: Sequence[Message], answers: Sequence[Answer | None]) -> int:
        """How many are confirmed, from the first on. A repeat that the server knew is, and took no number."""
        for place, answer in enumerate(answers):
            if answer is None or "error" in answer:
                if place:
                    return place
                raise self._refusal(messages[0], answer)
            self._last = max(self._last, answer["seq"])
        return len(answers)

    def _refusal(self, message: Message, answer: Answer | None) -> SinkTrouble:
        if answer is None:
            broken = self._gone.is_set()
            return _trouble(ConnectionClosedError() if broken else TimeoutError())
        code = answer["error"].get("err_code")
        return TooLarge(len(message.body)) if code == _MESSAGE_TOO_LARGE else _refused(code)

    async def close(self) -> None:
        """This function will end the connection."""
        client, self._client = self._client, None
        if client is not None:
            # After a TLS handshake that failed it would wait for ever.
            with contextlib.suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await client.close()


async def _unheard(_: Exception) -> None:
    """The library would log every error; what matters comes back to whoever waits."""


def _headers(message: Message, *, stream: str, behind: int) -> dict[str, str]:
    headers = {
        "Nats-Msg-Id": message.id,
        "Nats-Expected-Stream": stream,
        "Nats-Expected-Last-Sequence": str(behind),
    }
    for name, text in message.labels().items():
        headers["-".join(["Fluxgate", *(word.capitalize() for word in name.split("_"))])] = quote(text)
    return headers


def _size(headers: dict[str, str]) -> int:
    return _HEADERS_BYTES + sum(len(name) + len(text) + _HEADER_BYTES for name, text in headers.items())


def _refused(code: int | None) -> SinkTrouble:
    if code == _NO_STREAM:
        return SinkTrouble(Kind.MISSING, "no stream takes the subject")
    kind = Kind.MOVED if code == _WRONG_LAST_SEQUENCE else Kind.REFUSED
    return SinkTrouble(kind, f"JetStream answered with error {code}")


def _trouble(error: BaseException) -> SinkTrouble:
    """The library's errors in our words, without its own: those may quote a URL."""
    if isinstance(error, APIError):
        return _refused(error.err_code or error.code)
    if isinstance(error, MaxPayloadError):
        return SinkTrouble(Kind.REFUSED, "a message is larger than the server takes")
    # While it connects, the library tells what the server said in an error of no class of its own.
    if isinstance(error, AuthorizationError) or "authorization violation" in str(error).lower():
        return SinkTrouble(Kind.DENIED, "it does not know the user or password")
    if isinstance(error, ssl.SSLError):
        return SinkTrouble(Kind.UNREACHABLE, NO_TLS)
    unreachable = (OSError, NoServersError, ConnectionClosedError, StaleConnectionError)
    if isinstance(error, unreachable) and not isinstance(error, TimeoutError):
        return SinkTrouble(Kind.UNREACHABLE, "no connection")
    if isinstance(error, (TimeoutError, OutboundBufferLimitError)):
        return SinkTrouble(Kind.TIMEOUT, "no confirmation in time")
    return SinkTrouble(Kind.REFUSED, f"{type(error).__name__} from the client library")
