"""The calls about events and the ways they take to consumers: the feed, endpoints, deliveries."""

from collections.abc import Sequence

from service.web import deliveries, endpoints, events, schemas, schemas_endpoints, streams
from service.web.endpoint_bodies import EndpointChanges, EndpointRequest, ReplayRequest
from service.web.operations import Answer, Operation
from service.web.parameters import DELIVERY_FILTERS, LIMIT, TYPES, WAIT, position

_READ_EVENTS = ("events:read", "audit:read")
_LAST_EVENT_ID = (
    "Last-Event-ID",
    {"type": "string"},
    "The `id` of the last event that was seen: the stream goes on behind it. Stronger than `after`.",
)
_STREAM = Answer(
    description=(
        "A stream without end. Each event has `id` (its cursor, good for `Last-Event-ID` and for `after`), `event`"
        " (its type) and `data` (the same bytes as in the feed). Lines that begin with a colon are comments:"
        " `: connected` at once, and one every 15 seconds. A comment also says why the service ends a stream:"
        " `: stopping` and `: unauthenticated` (the key was revoked), or `: cursor_expired` (what comes next is no"
        " longer kept: coming again is answered 410). A reader that takes nothing for 20 seconds is cut off. Go on"
        " with the last `id`. Browsers read it by `fetch`, because `EventSource` cannot send a key, from a page of"
        " the same origin."
    ),
    media_type="text/event-stream",
    headers={"Cache-Control": "`no-store`.", "X-Accel-Buffering": "`no`: proxies must not hold events back."},
)

_WRITE = ("endpoints:write",)
#: No scope is named after reading endpoints: who may write them may see them, and so may who reads what they carry.
_READ_ENDPOINTS = ("endpoints:write", "events:read", "audit:read")
_ENDPOINT = Answer(description="The endpoint.", model=schemas_endpoints.Endpoint)
_DELIVERY = Answer(description="The delivery.", model=schemas_endpoints.Delivery)
#: What a call without fields answers when it gets some.
_NO_FIELDS = (413, 415, 422)

EVENT_CALLS: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/v1/events",
        name="listEvents",
        summary="Follow the events, in commit order and without gaps.",
        handle=events.feed,
        scopes=_READ_EVENTS,
        parameters=(events.AFTER, TYPES, LIMIT, WAIT),
        answers={200: Answer(description="A page of events.", model=schemas.EventPage)},
        problems=(410,),
    ),
    Operation(
        method="GET",
        path="/v1/events/stream",
        name="streamEvents",
        summary="Follow the events as server-sent events.",
        handle=streams.of_tenant,
        scopes=_READ_EVENTS,
        parameters=(events.AFTER, TYPES),
        headers=(_LAST_EVENT_ID,),
        answers={200: _STREAM},
        problems=(410,),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/events/stream",
        name="streamJobEvents",
        summary="Follow the events of one job as server-sent events, from its first one on.",
        handle=streams.of_job,
        scopes=("jobs:read", *_READ_EVENTS),
        parameters=(events.AFTER, TYPES),
        headers=(_LAST_EVENT_ID,),
        answers={200: _STREAM},
        problems=(410,),
    ),
    Operation(
        method="POST",
        path="/v1/endpoints",
        name="createEndpoint",
        summary="Make an endpoint, one of at most 100. Its secret is in this answer and never shown again.",
        handle=endpoints.create,
        scopes=_WRITE,
        body=EndpointRequest,
        answers={
            201: Answer(
                description="The endpoint with its secret.",
                model=schemas_endpoints.EndpointWithSecret,
                headers={"Location": "The path of the endpoint."},
            )
        },
        problems=(409,),
    ),
    Operation(
        method="GET",
        path="/v1/endpoints",
        name="listEndpoints",
        summary="List endpoints, newest first.",
        handle=endpoints.listed,
        scopes=_READ_ENDPOINTS,
        parameters=(LIMIT, position("endpoints")),
        answers={200: Answer(description="A page of endpoints.", model=schemas_endpoints.EndpointPage)},
    ),
    Operation(
        method="GET",
        path="/v1/endpoints/{endpoint_id}",
        name="getEndpoint",
        summary="Read an endpoint.",
        handle=endpoints.one,
        scopes=_READ_ENDPOINTS,
        answers={200: _ENDPOINT},
    ),
    Operation(
        method="PATCH",
        path="/v1/endpoints/{endpoint_id}",
        name="changeEndpoint",
        summary="Change an endpoint: only the fields that are given. `state` switches it off and on again.",
        handle=endpoints.change,
        scopes=_WRITE,
        body=EndpointChanges,
        answers={200: _ENDPOINT},
        problems=(409,),
    ),
    Operation(
        method="DELETE",
        path="/v1/endpoints/{endpoint_id}",
        name="deleteEndpoint",
        summary="End an endpoint for good. What waits for it is not sent any more.",
        handle=endpoints.remove,
        scopes=_WRITE,
        answers={204: Answer(description="It is gone.")},
    ),
    Operation(
        method="POST",
        path="/v1/endpoints/{endpoint_id}/rotate-secret",
        name="rotateEndpointSecret",
        summary="Make a new secret. For 24 hours the one before signs, too: webhooks carry both signatures.",
        handle=endpoints.rotate,
        scopes=_WRITE,
        answers={
            200: Answer(
                description="The endpoint with its new secret.", model=schemas_endpoints.EndpointWithSecret
            )
        },
        problems=_NO_FIELDS,
    ),
    Operation(
        method="POST",
        path="/v1/endpoints/{endpoint_id}/test",
        name="testEndpoint",
        summary="Send an event `endpoint.test` to this endpoint alone, whatever types it chose.",
        handle=endpoints.test,
        scopes=_WRITE,
        answers={202: Answer(description="It is on its way.", model=schemas_endpoints.TestSent)},
        problems=(409, *_NO_FIELDS),
    ),
    Operation(
        method="POST",
        path="/v1/endpoints/{endpoint_id}/replay",
        name="replayEndpoint",
        summary="Send again what came after a cursor, under the same ids, also what had been delivered.",
        handle=endpoints.replay,
        scopes=_WRITE,
        body=ReplayRequest,
        answers={202: _ENDPOINT},
        problems=(409, 410),
    ),
    Operation(
        method="GET",
        path="/v1/deliveries",
        name="listDeliveries",
        summary="List deliveries with their attempts, newest first.",
        handle=deliveries.listed,
        scopes=_READ_ENDPOINTS,
        parameters=(*DELIVERY_FILTERS, LIMIT, position("deliveries")),
        answers={200: Answer(description="A page of deliveries.", model=schemas_endpoints.DeliveryPage)},
    ),
    Operation(
        method="GET",
        path="/v1/deliveries/{delivery_id}",
        name="getDelivery",
        summary="Read a delivery with its attempts.",
        handle=deliveries.one,
        scopes=_READ_ENDPOINTS,
        answers={200: _DELIVERY},
    ),
    Operation(
        method="POST",
        path="/v1/deliveries/{delivery_id}/retry",
        name="retryDelivery",
        summary="Make a delivery due now, under the same id, also one that succeeded or is dead.",
        handle=deliveries.retry,
        scopes=_WRITE,
        answers={202: _DELIVERY},
        problems=(409, *_NO_FIELDS),
    ),
    Operation(
        method="POST",
        path="/v1/job-webhook-secret/rotate",
        name="rotateJobWebhookSecret",
        summary="Make the secret that a job's own `webhook_url` is signed with. The one before signs on for 24 hours.",
        handle=endpoints.rotate_job_secret,
        scopes=_WRITE,
        answers={
            200: Answer(description="The secret, shown this once.", model=schemas_endpoints.JobWebhookSecret)
        },
        problems=_NO_FIELDS,
    ),
    Operation(
        method="GET",
        path="/.well-known/webhook-keys/{tenant}",
        name="listWebhookKeys",
        summary="Read the public keys that a tenant's `v1a` signatures are verified with.",
        handle=endpoints.public_keys,
        strict=False,
        answers={
            200: Answer(
                description="A JSON Web Key Set.",
                model=schemas_endpoints.WebhookKeys,
                headers={"Cache-Control": "How long it may be kept."},
            )
        },
    ),
)
