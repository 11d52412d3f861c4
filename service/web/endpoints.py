"""Calls about consumers' endpoints, and about what their webhooks are verified with."""

import base64
from typing import Any

import orjson
from starlette.responses import Response

from service.domain.cursors import cursor
from service.domain.endpoint_object import endpoint_object
from service.domain.ids import TENANT
from service.domain.timestamps import maybe_rfc3339
from service.flows import endpoints as flow
from service.flows import signing
from service.flows.endpoints import Shown
from service.flows.errors import NotFound
from service.web import endpoint_bodies as bodies
from service.web import shown
from service.web.json_body import json_object, nothing_said
from service.web.replies import id_in_path, json_reply
from service.web.visit import Visit

_MOST_BODY = 64 * 1024
#: Anybody may keep public keys for a while; a new one is announced by nothing but this list.
_PUBLIC = {"Cache-Control": "public, max-age=300"}


async def create(visit: Visit) -> Response:
    """This function will make an endpoint and show its secret, this once."""
    wanted = bodies.wanted(await json_object(visit, most=_MOST_BODY))
    made = await flow.create(visit.service.runtime, tenant=visit.caller.tenant, wanted=wanted)
    return _with_secret(made, status=201, headers={"Location": f"/v1/endpoints/{made.endpoint.id}"})


async def listed(visit: Visit) -> Response:
    """This function will list the tenant's endpoints, newest first."""
    most = visit.query.get("limit", 50)
    found = await flow.listed(
        visit.service.runtime,
        tenant=visit.caller.tenant,
        before_id=visit.query.get("cursor"),
        most=most + 1,
    )
    following = cursor("endpoints", found[most - 1].id) if len(found) > most else None
    rows = [orjson.dumps(endpoint_object(endpoint)) for endpoint in found[:most]]
    return json_reply(shown.list_text(rows, following))


async def one(visit: Visit) -> Response:
    """This function will show one endpoint."""
    return _json(endpoint_object(await flow.one(visit.service.runtime, **_named(visit))))


async def change(visit: Visit) -> Response:
    """This function will change what the body names, and nothing else."""
    named = _named(visit)
    changes = bodies.changes(await json_object(visit, most=_MOST_BODY))
    return _json(endpoint_object(await flow.change(visit.service.runtime, **named, changes=changes)))


async def remove(visit: Visit) -> Response:
    """This function will end an endpoint for good."""
    await flow.remove(visit.service.runtime, **_named(visit))
    return Response(status_code=204)


async def rotate(visit: Visit) -> Response:
    """This function will give an endpoint a new secret and show it, this once."""
    named = _named(visit)
    await nothing_said(visit)
    return _with_secret(await flow.rotate(visit.service.runtime, **named))


async def test(visit: Visit) -> Response:
    """This function will send a test event to an endpoint alone."""
    named = _named(visit)
    await nothing_said(visit)
    event_id = await flow.test(visit.service.runtime, **named)
    return _json({"event_id": event_id}, status=202)


async def replay(visit: Visit) -> Response:
    """This function will send again to an endpoint what came after a cursor."""
    named = _named(visit)
    after = bodies.replay_after(await json_object(visit, most=_MOST_BODY))
    endpoint = await flow.replay(visit.service.runtime, **named, after=after)
    return _json(endpoint_object(endpoint), status=202)


async def rotate_job_secret(visit: Visit) -> Response:
    """This function will make the secret that the tenant's jobs' own URLs are signed with, and show it."""
    await nothing_said(visit)
    made = await signing.rotate_job_secret(visit.service.runtime, tenant=visit.caller.tenant)
    return _json(
        {
            "object": "job_webhook_secret",
            "secret": made.secret,
            "previous_secret_until": maybe_rfc3339(made.previous_until_ms),
        }
    )


async def public_keys(visit: Visit) -> Response:
    """This function will list the keys that a tenant's `v1a` signatures are verified with.

    Every name that a tenant may have has keys, so that nobody learns from them who is a tenant.
    """
    tenant = visit.path("tenant")
    if not TENANT.fullmatch(tenant):
        raise NotFound("there is nothing at this path")
    keys = signing.public_keys(visit.service.runtime, tenant=tenant)
    return _json({"keys": [_jwk(key) for key in keys]}, headers=_PUBLIC)


def _jwk(key: signing.PublicKey) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": key.key_id,
        "x": base64.urlsafe_b64encode(key.raw).rstrip(b"=").decode(),
        "whpk": f"whpk_{base64.b64encode(key.raw).decode()}",
    }


def _named(visit: Visit) -> dict[str, str]:
    return {
        "tenant": visit.caller.tenant,
        "endpoint_id": id_in_path(visit, "endpoint_id", "ep"),
    }


def _with_secret(made: Shown, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return _json({**endpoint_object(made.endpoint), "secret": made.secret}, status=status, headers=headers)


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return json_reply(orjson.dumps(value), status=status, headers=headers)
