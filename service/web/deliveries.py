"""Calls about deliveries: what was sent to endpoints, with every attempt, and sending it again by hand."""

import orjson
from starlette.responses import Response

from service.domain.cursors import cursor
from service.domain.endpoint_object import delivery_object
from service.flows import deliveries as flow
from service.flows.deliveries import Whole
from service.storage.deliveries import Filters
from service.web import shown
from service.web.json_body import nothing_said
from service.web.replies import id_in_path, json_reply
from service.web.visit import Visit


async def listed(visit: Visit) -> Response:
    """This function will list the tenant's deliveries that fit the filters, newest first."""
    query = visit.query
    most = query.get("limit", 50)
    filters = Filters(
        endpoint_id=query.get("endpoint_id"),
        state=query.get("state"),
        event_id=query.get("event_id"),
        job_id=query.get("job_id"),
    )
    found = await flow.listed(
        visit.service.runtime,
        tenant=visit.caller.tenant,
        filters=filters,
        before_id=query.get("cursor"),
        most=most + 1,
    )
    following = cursor("deliveries", found[most - 1].delivery.id) if len(found) > most else None
    return json_reply(shown.list_text([_text(whole) for whole in found[:most]], following))


async def one(visit: Visit) -> Response:
    """This function will show one delivery."""
    delivery_id = id_in_path(visit, "delivery_id", "dlv")
    whole = await flow.one(visit.service.runtime, tenant=visit.caller.tenant, delivery_id=delivery_id)
    return json_reply(_text(whole))


async def retry(visit: Visit) -> Response:
    """This function will make a delivery due now, also one that had ended."""
    delivery_id = id_in_path(visit, "delivery_id", "dlv")
    await nothing_said(visit)
    whole = await flow.retry(visit.service.runtime, tenant=visit.caller.tenant, delivery_id=delivery_id)
    return json_reply(_text(whole), status=202)


def _text(whole: Whole) -> bytes:
    return orjson.dumps(delivery_object(whole.delivery, whole.tries))
