"""Redis Streams: one stream, whose entry ids are the numbers of the events (`<seq>-0`).

Redis takes an entry only behind the newest one the stream ever had, so it refuses a repeat by itself, also after
entries were trimmed. Each set is one transaction on a stream that nobody touched since we looked at its end.
"""

import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - the library's own
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the library's own
    WatchError,
)

from service.sinks.base import NO_TLS, Kind, Message, SinkTrouble, Tail, TooLarge

_CONNECT_S = 5.0
_CONFIRM_S = 10.0
#: Redis keeps an entry in memory; beyond this (its own limit is 512 MB a value) one is not for it.
_MOST_BYTES = 64 * 1024 * 1024


class RedisSink:
    """One stream of one Redis."""

    def __init__(self, *, url: str, stream: str, most_bytes: int = _MOST_BYTES) -> None:
        self.name = f"redis:{stream}"
        self._url = url
        self._stream = stream
        self._most_bytes = most_bytes
        self._client: Redis | None = None

    async def open(self) -> Tail | None:
        """This function will connect and read the newest entry of the stream.

        :raises SinkTrouble: if Redis cannot be used, or the stream has entries that are not ours.
        """
        self._client = client = Redis.from_url(
            self._url,
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=_CONFIRM_S,
            retry=Retry(NoBackoff(), 0),
            client_name="fluxgate",
        )
        try:
            seq = await self._newest(client)
            entries: Any = await client.xrange(self._stream, f"{seq}-0", f"{seq}-0") if seq else []
        except (RedisError, OSError) as error:
            raise _trouble(error) from None
        if not entries:
            return Tail(seq)
        event_id = entries[0][1].get(b"id")
        if event_id is None:
            raise SinkTrouble(Kind.FOREIGN, "the newest entry of the stream is not ours")
        return Tail(seq, event_id.decode(errors="replace"))

    async def _newest(self, client: "Redis | Pipeline") -> int:
        """The number of the newest entry that the stream ever had, trimmed or not; 0 without a stream."""
        try:
            told: Any = await client.xinfo_stream(self._stream)
        except ResponseError as error:
            if "no such key" in str(error):
                return 0
            raise
        first, _, second = _text(told["last-generated-id"]).partition("-")
        if second != "0":
            raise SinkTrouble(Kind.FOREIGN, "the stream has entries with ids that are not ours")
        return int(first)

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        """This function will write messages as one transaction and wait until Redis has them.

        :raises TooLarge: if the first message is larger than we put into Redis.
        :raises SinkTrouble: if they were not written, or the stream does not end with the event before them.
        """
        fitting = _fitting(messages, self._most_bytes)
        if not fitting:
            raise TooLarge(len(messages[0].body))
        if self._client is None:
            raise SinkTrouble(Kind.UNREACHABLE, "the connection is closed")
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                await pipe.watch(self._stream)
                newest = await self._newest(pipe)
                if newest != after:
                    raise SinkTrouble(Kind.MOVED, f"the stream ends with {newest} and not with {after}")
                pipe.multi()  # type: ignore[no-untyped-call]
                for message in fitting:
                    fields: dict[Any, Any] = {**message.labels(), "event": message.body}
                    pipe.xadd(self._stream, fields, id=f"{message.seq}-0")
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise _trouble(error) from None
        return len(fitting)

    async def close(self) -> None:
        """This function will end the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()


def _text(told: Any) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


def _fitting(messages: Sequence[Message], most_bytes: int) -> Sequence[Message]:
    for place, message in enumerate(messages):
        if len(message.body) > most_bytes:
            return messages[:place]
    return messages


def _trouble(error: Exception) -> SinkTrouble:
    """The library's errors in our words, without its own: those may quote a URL."""
    if isinstance(error, WatchError):
        return SinkTrouble(Kind.MOVED, "another process wrote at the same time")
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return SinkTrouble(Kind.DENIED, "it does not know the user or password, or does not allow this")
    if isinstance(error, TimeoutError):
        return SinkTrouble(Kind.TIMEOUT, "no confirmation in time")
    if isinstance(error.__cause__, ssl.SSLError) or isinstance(error.__context__, ssl.SSLError):
        return SinkTrouble(Kind.UNREACHABLE, NO_TLS)
    if isinstance(error, (ConnectionError, OSError)):
        return SinkTrouble(Kind.UNREACHABLE, "no connection")
    # The first word of an error of Redis is its code: WRONGTYPE, OOM, READONLY, MISCONF …
    code = str(error).partition(" ")[0]
    said = code if code.isalpha() and code.isupper() else type(error).__name__
    return SinkTrouble(Kind.REFUSED, f"Redis answered with {said}")
