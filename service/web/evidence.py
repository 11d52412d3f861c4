"""Calls of auditors: a job's history, and what providers sent for it."""

from starlette.responses import Response

from service.domain.cursors import cursor
from service.flows import read
from service.web import shown
from service.web.replies import id_in_path, json_reply
from service.web.visit import Visit

#: Bytes of strangers are never rendered, whatever they claim to be.
_FOREIGN_BYTES = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "attachment",
}


async def history(visit: Visit) -> Response:
    """This function will list every fact about a job, oldest first."""
    most = visit.query.get("limit", 50)
    lines = await read.history_of(
        visit.service.runtime,
        tenant=visit.caller.tenant,
        job_id=id_in_path(visit, "job_id", "job"),
        after=int(visit.query.get("cursor", 0)),
        most=most + 1,
    )
    following = cursor("history", lines[most - 1].seq) if len(lines) > most else None
    return json_reply(shown.list_text([shown.history_text(line) for line in lines[:most]], following))


async def callbacks(visit: Visit) -> Response:
    """This function will list what came to a job's callback URLs, oldest first."""
    most = visit.query.get("limit", 50)
    rows = await read.callbacks_of(
        visit.service.runtime,
        tenant=visit.caller.tenant,
        job_id=id_in_path(visit, "job_id", "job"),
        after=visit.query.get("cursor", ""),
        most=most + 1,
    )
    following = cursor("callbacks", rows[most - 1]["id"]) if len(rows) > most else None
    return json_reply(shown.list_text([shown.callback_text(row) for row in rows[:most]], following))


async def callback_body(visit: Visit) -> Response:
    """This function will give the raw bytes of one callback."""
    row = await read.callback_body(
        visit.service.runtime,
        tenant=visit.caller.tenant,
        job_id=id_in_path(visit, "job_id", "job"),
        callback_id=id_in_path(visit, "callback_id", "cb"),
    )
    return Response(bytes(row["body"]), headers=_FOREIGN_BYTES, media_type="application/octet-stream")
