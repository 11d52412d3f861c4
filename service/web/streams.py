"""Events as server-sent events: a stream that goes on until the reader has enough.

Rule 1: nothing is queued for a reader. What it has not taken stands in the stream; one that takes nothing for some
seconds is cut off, and goes on later from the last `id` that it has seen.
Rule 2: a comment is one line without an empty line behind it: some clients take an empty line for an event.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import lru_cache

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.domain.cursors import cursor
from service.flows import feed as flow
from service.flows.errors import CursorExpired
from service.flows.reader import Reader
from service.storage.database import DatabaseUnavailable
from service.storage.events import Event
from service.web import shown
from service.web.events import beginning, position_of
from service.web.problems import wrong
from service.web.replies import id_in_path
from service.web.visit import Visit

_CONNECTED = b": connected\n"
_BEAT = b": still here\n"
_STOPPING = b": stopping, come again with the last id\n"
_REVOKED = b": unauthenticated, the key is no longer valid\n"
_EXPIRED = b": cursor_expired, what comes next is no longer kept\n"
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Proxies of the nginx family would hold events back.
    "X-Accel-Buffering": "no",
}
_PIECE_BYTES = 64 * 1024
#: The last words to a reader get so long.
_FAREWELL_S = 0.5
#: A stream whose next events are only in the database, which is away, looks again so often.
_RETRY_S = 1.0

_log = structlog.get_logger("fluxgate.streams")


async def of_tenant(visit: Visit) -> Response:
    """This function will stream all events of the caller's tenant."""
    return await _opened(visit, job_id=None)


async def of_job(visit: Visit) -> Response:
    """This function will stream the events of one job, from its first one on.

    :raises NotFound: if the tenant has no such job.
    """
    job_id = id_in_path(visit, "job_id", "job")
    await flow.require_job(visit.service.runtime, tenant=visit.caller.tenant, job_id=job_id)
    return await _opened(visit, job_id=job_id)


async def _opened(visit: Visit, *, job_id: str | None) -> Response:
    """The first events are read before the answer begins: what is wrong can still be told by a status."""
    last_id = _last_event_id(visit)
    reader = visit.service.tail.reader(
        tenant=visit.caller.tenant,
        after=await beginning(visit) if last_id is None else last_id,
        types=visit.query.get("types"),
        job_id=job_id,
    )
    return EventStream(visit, reader, await reader.read(visit.service.pace.most))


def _last_event_id(visit: Visit) -> int | None:
    """An empty header is a client's way to say that it has seen nothing yet."""
    given = [text for text in visit.header("last-event-id") if text]
    if not given:
        return None
    if len(given) > 1:
        raise wrong("Last-Event-ID", "is given more than once")
    try:
        return position_of(given[0])
    except ValueError as error:
        raise wrong("Last-Event-ID", str(error)) from None


# Readers at the end of the stream want the same few events at the same time.
@lru_cache(maxsize=256)
def frame(event: Event) -> bytes:
    """This function will write one event: its cursor, its type, and the bytes that the feed shows."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        cursor("events", event.seq).encode(),
        event.type.encode(),
        shown.event_text(event),
    )


class _Slow(Exception):
    """The reader takes nothing."""


class EventStream(Response):
    """The answer that goes on."""

    def __init__(self, visit: Visit, reader: Reader, first: list[Event]) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._service = visit.service
        self._key_id = visit.caller.id
        self._reader = reader
        self._first = first
        self._sending: asyncio.Timeout | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """This function will write events until the reader goes away, is too slow, or the service stops."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self._send_on = send
        with (
            self._reader as reader,
            self._service.keys.using(self._key_id),
            self._service.runtime.measures.streams.track_inprogress(),
        ):
            reader.interrupted_by(self._interrupt)
            watch = asyncio.create_task(_until_gone(receive, reader))
            try:
                await self._write()
            except _Slow:
                if not watch.done():
                    await self._cut_off(scope, watch)
            finally:
                watch.cancel()
                await asyncio.wait([watch])

    async def _write(self) -> None:
        reader, beat_s = self._reader, self._service.pace.beat_s
        clock = asyncio.get_running_loop().time
        # The first comment comes sooner than the others, at another time for each of those who came together.
        beat_at = clock() + beat_s * (0.5 + 0.5 * self._service.runtime.chance())
        await self._send(_CONNECTED)
        await self._send_all(self._first)
        self._first = []
        while not reader.ended:
            try:
                found = await reader.read(self._service.pace.most)
            except CursorExpired:
                return await self._farewell(_EXPIRED)
            except DatabaseUnavailable:
                found = []
                await self._service.runtime.sleep(min(_RETRY_S, max(0.0, beat_at - clock())))
            await self._send_all(found)
            if clock() >= beat_at:
                if not await self._service.keys.still_valid(self._key_id):
                    return await self._farewell(_REVOKED)
                await self._send(_BEAT)
                beat_at = max(beat_at + beat_s, clock())
            elif not found:
                await reader.wait(beat_at - clock())
        return await self._farewell(_STOPPING)

    async def _send_all(self, found: Sequence[Event]) -> None:
        """Send events in pieces: what the server buffers for a slow reader is as small as the largest of them."""
        piece: list[bytes] = []
        size = 0
        for event in found:
            piece.append(frame(event))
            size += len(piece[-1])
            if size >= _PIECE_BYTES:
                await self._send(b"".join(piece))
                piece, size = [], 0
        if piece:
            await self._send(b"".join(piece))

    async def _send(self, body: bytes) -> None:
        """Send, or find that the reader takes nothing; the server's own buffer is small and bounded.

        :raises _Slow: if it could not be sent in time, or the reader was ended meanwhile.
        """
        try:
            async with asyncio.timeout(self._service.pace.stuck_s) as self._sending:
                await self._send_on({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            raise _Slow from None
        finally:
            self._sending = None

    async def _farewell(self, comment: bytes) -> None:
        """End in order, so that the client knows that nothing was cut off."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._send_on({"type": "http.response.body", "body": comment})
        except TimeoutError:
            raise _Slow from None

    def _interrupt(self) -> None:
        if self._sending is not None and not self._sending.expired():
            self._sending.reschedule(asyncio.get_running_loop().time())

    async def _cut_off(self, scope: Scope, watch: asyncio.Task[None]) -> None:
        """Take the connection away from who does not read: an orderly end would wait for him."""
        self._service.runtime.measures.streams_cut_off.inc()
        _log.info("stream_cut_off", reason="the reader takes nothing", request_id=scope.get("request_id"))
        abort = scope.get("fluxgate.abort")
        if abort is not None:
            abort()
            await asyncio.wait([watch], timeout=_FAREWELL_S)


async def _until_gone(receive: Receive, reader: Reader) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        reader.end()
