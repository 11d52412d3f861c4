"""The feed: events in commit order, from behind a cursor."""

from starlette.responses import Response

from service.flows import read
from service.web import shown
from service.web.cursors import cursor
from service.web.replies import json_reply
from service.web.visit import Visit


async def feed(visit: Visit) -> Response:
    """This function will list events behind `after`; `next_cursor` is where to go on, also when there are none."""
    query = visit.query
    after, wait_s = int(query.get("after", 0)), query.get("wait", 0)
    async with visit.patience(wait_s) as patience:
        events = await read.feed(
            visit.service.runtime,
            tenant=visit.caller.tenant,
            after=after,
            types=query.get("types"),
            most=query.get("limit", 50),
            wait_s=wait_s,
            gone=patience.over,
        )
    following = cursor("events", events[-1].seq if events else after)
    return json_reply(shown.list_text([shown.event_text(event) for event in events], following))
