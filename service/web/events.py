"""The feed: events in commit order, from behind a cursor."""

from starlette.responses import Response

from service.domain import cursors
from service.flows import feed as flow
from service.web import shown
from service.web.parameters import Parameter
from service.web.replies import json_reply
from service.web.visit import Visit

#: Instead of a cursor: only what happens from now on.
NOW = "now"
_read_cursor = cursors.reader("events")


def position_of(text: str) -> int:
    """This function will read a cursor of the stream.

    :raises ValueError: if it is none.
    """
    return int(_read_cursor(text))


AFTER = Parameter(
    name="after",
    read=lambda text: NOW if text == NOW else position_of(text),
    schema={"type": "string"},
    description=(
        "Where to go on: `next_cursor` of the feed or `id` of the stream, which are the same; `now` for what happens"
        " from now on. Without it from the oldest event that is kept."
    ),
)


async def beginning(visit: Visit) -> int | None:
    """This function will tell the position behind which a caller wants to begin; None: with the oldest event."""
    after = visit.query.get("after")
    return await flow.newest(visit.service.runtime) if after == NOW else after


async def feed(visit: Visit) -> Response:
    """This function will list events behind `after`; `next_cursor` is where to go on, also when there are none."""
    query = visit.query
    after, wait_s = await beginning(visit), query.get("wait", 0)
    async with visit.patience(wait_s) as patience:
        page = await flow.feed(
            visit.service.tail,
            tenant=visit.caller.tenant,
            after=after,
            types=query.get("types"),
            most=query.get("limit", 50),
            wait_s=wait_s,
            gone=patience.over,
        )
    following = cursors.cursor("events", page.following)
    return json_reply(shown.list_text([shown.event_text(event) for event in page.events], following))
