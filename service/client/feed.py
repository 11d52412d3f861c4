"""All events, in commit order: by the stream, and by the feed's pages where streams do not work."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from service.client.calls import Calls, Query
from service.client.errors import FluxgateError, UnexpectedAnswer
from service.client.event import Event, event_from
from service.client.streams import Unusable, streamed
from service.domain.cursors import cursor, reader

#: Instead of a cursor: what happens from now on.
NOW = "now"
#: Below the 30 s after which many proxies give up.
WAIT_S = 20.0
#: An empty answer that came sooner than this did not wait for us: asking on at once would be a storm.
_TOO_SOON_S = 1.0
_PAGE = 100


async def events(calls: Calls, *, after: str | None, types: Sequence[str]) -> AsyncGenerator[Event]:
    """This function will give every event behind a cursor, at least once each, in order, and never end.

    :raises CursorExpired: if what stood behind the cursor is no longer kept.
    :raises Unreachable: if the service is away for longer than the client is patient. Whatever is raised, its
        `cursor` is where to go on.
    """
    query: Query = {"types": ",".join(types)} if types else {}
    position = after
    try:
        if after == NOW:
            position = await newest(calls)
        if calls.streams_work():
            try:
                async with aclosing(
                    streamed(calls, "/v1/events/stream", query=query, cursor=position)
                ) as stream:
                    async for seen in stream:
                        if isinstance(seen, Event):
                            position = seen.cursor
                            yield seen
            except Unusable:
                calls.do_without_streams()
        async with aclosing(paged(calls, query=query, position=position)) as pages:
            async for event in pages:
                position = event.cursor
                yield event
    except FluxgateError as error:
        error.cursor = position
        raise


async def newest(calls: Calls) -> str:
    """This function will give the cursor behind the newest event; unlike "now" it stays where it is."""
    return _page(await calls.get("/v1/events", {"after": NOW, "limit": 1}))[1]


async def paged(calls: Calls, *, query: Query, position: str | None) -> AsyncGenerator[Event]:
    """This function will give every event behind a cursor by asking for page after page, waiting for news.

    :raises UnexpectedAnswer: if a page is none.
    """
    while True:
        asked_s = calls.surroundings.elapsed_s()
        after: Query = {"after": position} if position else {}
        page = await calls.get("/v1/events", {"limit": _PAGE, **query, **after}, wait_s=WAIT_S)
        found, following = _page(page)
        for event in _with_cursors(found, before=position, behind=following):
            yield event
        position = following
        if not found and calls.surroundings.elapsed_s() - asked_s < _TOO_SOON_S:
            await calls.surroundings.sleep(_TOO_SOON_S)


def _page(page: Mapping[str, Any]) -> tuple[list[Event], str]:
    found, following = page.get("data"), page.get("next_cursor")
    if not isinstance(found, list) or not isinstance(following, str):
        raise UnexpectedAnswer("a page of events was expected, and this is something else", status=200)
    return [event_from(item) for item in found], following


def _with_cursors(found: Sequence[Event], *, before: str | None, behind: str) -> list[Event]:
    """Give each event of a page the cursor behind it; a page itself only tells where to go on after all of them.

    Should a later release write cursors otherwise, the inner events get the one before the page: going on there
    shows some events twice, and none is missed.
    """
    if _is_as_we_know_it(behind) and all(event.seq is not None for event in found):
        return [replace(event, cursor=cursor("events", event.seq or 0)) for event in found]
    following = [before] * (len(found) - 1) + [behind]
    return [replace(event, cursor=place) for event, place in zip(found, following, strict=False)]


def _is_as_we_know_it(text: str) -> bool:
    try:
        reader("events")(text)
    except ValueError:
        return False
    return True
