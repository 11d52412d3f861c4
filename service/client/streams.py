"""Reading a stream of events: one connection after the other, each going on where the last one broke off.

Rule: a stream is convenience. Whatever is odd about it (a proxy that collects it, a path that is not there, bytes
that are no events, connections that end without a word) makes it `Unusable`, and the caller asks in another way.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from enum import Enum

import httpx

from service.client import answers
from service.client.calls import SILENCE_S, Calls, Query
from service.client.errors import FluxgateError, RateLimited, Unavailable, UnexpectedAnswer
from service.client.event import Event, event_of
from service.client.sse import Parser, TooLong

#: The service greets at once; where nothing has come through by then, something collects what should flow.
_GREETING_S = 10.0
#: Who lived as long as this has seen a heartbeat, though no event.
_FRUITFUL_S = 15.0
#: Connections in a row that brought nothing: one or two may be restarts.
_MOST_FRUITLESS = 3


class Sign(Enum):
    """What a stream shows beside events."""

    #: A new connection has said its first word: what happens from now on will be seen.
    OPENED = "opened"
    #: It is still there.
    ALIVE = "alive"


class Unusable(Exception):
    """This stream does not work here; `cursor` is behind the last event that it gave."""

    def __init__(self, reason: str, *, cursor: str | None = None) -> None:
        super().__init__(reason)
        self.cursor = cursor


class _Ended(FluxgateError):
    """One connection ended, as every connection does some day."""


async def streamed(
    calls: Calls, path: str, *, query: Query, cursor: str | None
) -> AsyncGenerator[Event | Sign]:
    """This function will give the events behind a cursor as they come, and signs of life between them.

    :raises Unusable: if it does not work as a stream.
    :raises ProblemAnswered: if the service refuses, for good or for longer than the client is patient.
    :raises Unreachable: if nothing answers for longer than that.
    """
    patience = calls.patience()
    fruitless = 0
    while True:
        began_s = calls.surroundings.elapsed_s()
        fruitful = False
        try:
            async with aclosing(_connection(calls, path, query, cursor)) as connection:
                async for seen in connection:
                    patience.renew()
                    if isinstance(seen, Event):
                        fruitful, cursor = True, seen.cursor
                    yield seen
        except (_Ended, httpx.TransportError, RateLimited, Unavailable) as error:
            lasted_s = calls.surroundings.elapsed_s() - began_s
            if fruitful or lasted_s >= _FRUITFUL_S:
                fruitless = 0
            elif not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | Unavailable):
                fruitless += 1
            if fruitless >= _MOST_FRUITLESS:
                raise Unusable("it ends before anything came", cursor=cursor) from error
            await patience.wait(error)
        except (Unusable, UnexpectedAnswer, TooLong) as error:
            raise Unusable(str(error), cursor=cursor) from error


async def _connection(
    calls: Calls, path: str, query: Query, cursor: str | None
) -> AsyncGenerator[Event | Sign]:
    """One connection, as long as it lasts.

    :raises Unusable: if nothing at all comes through.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_GREETING_S):
                answer = await stack.enter_async_context(calls.open(path, query, last_event_id=cursor))
                await _check(answer)
                chunks = aiter(answer.aiter_bytes())
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise Unusable("nothing comes through: is it collected on the way?") from None
        parser = Parser()
        if chunk:
            yield Sign.OPENED
        while chunk:
            frames = parser.feed(chunk)
            for frame in frames:
                yield event_of(frame.data.encode(), cursor=frame.id or cursor)
            if not frames:
                yield Sign.ALIVE
            chunk = await _next_chunk(chunks)
    raise _Ended("the stream ended")


async def _next_chunk(chunks: AsyncIterator[bytes]) -> bytes:
    """What comes next; nothing at the end, and nothing after a silence that no heartbeat broke."""
    try:
        async with asyncio.timeout(SILENCE_S):
            return await anext(chunks, b"")
    except TimeoutError:
        return b""


async def _check(answer: httpx.Response) -> None:
    """See that this is a stream of events.

    :raises Unusable: if there is no such stream here.
    :raises ProblemAnswered: if the service refuses.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status_code == 200 and kind == "text/event-stream":
        return
    if answer.is_error:
        await answer.aread()
        # 404 may mean the path, 405 and 406 a proxy: the other ways tell whether the job itself is missing.
        if answer.status_code not in (404, 405, 406):
            raise answers.problem(answer)
    raise Unusable(f"it is answered {answer.status_code} {kind}")
