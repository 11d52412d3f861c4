"""Deliver: make one webhook and send it once; only what came of it is told, and nothing is recorded here.

Rule 1: the body is made from the event's own bytes, signed and sent as the same bytes, never written anew.
Rule 2: nothing leaves unsigned: when a secret cannot be opened, nothing is sent at all.
"""

from collections.abc import Mapping
from typing import Any

import structlog

from service.domain.endpoint import Delivery, Endpoint, Format, Tried
from service.domain.event_object import event_text
from service.domain.timestamps import rfc3339
from service.domain.webhook import (
    CLOUDEVENT_CONTENT_TYPE,
    ID_HEADER,
    SIGNATURE_HEADER,
    STANDARD_CONTENT_TYPE,
    TIMESTAMP_HEADER,
    cloudevent_body,
    sign,
    sign_asymmetric,
    standard_body,
)
from service.egress import Unreachable, UrlRefused
from service.flows.runtime import Runtime
from service.flows.signing import Secrets
from service.providers.reading import retry_after_ms
from service.storage.events import Event

#: The shortest that the standard recommends (15 to 30 s).
TIMEOUT_S = 15.0
#: So much of an answer is kept with the attempt.
ANSWER_BYTES = 4096
#: So much is read: an answer that is longer costs the connection.
_READ_BYTES = 64 * 1024
_CONTENT_TYPES = {
    Format.STANDARD: STANDARD_CONTENT_TYPE,
    Format.CLOUDEVENTS: CLOUDEVENT_CONTENT_TYPE,
}
#: For CloudEvents of a service that does not know its own address.
_NAMELESS_SOURCE = "urn:fluxgate"

_log = structlog.get_logger("fluxgate.deliver")


def message(
    runtime: Runtime, endpoint: Endpoint, event: Event, secrets: Secrets
) -> tuple[Mapping[str, str], bytes]:
    """This function will make headers and body of one webhook, signed for this moment."""
    now_ms = runtime.now_ms()
    body = body_of(runtime, endpoint.format, event)
    told: dict[str, Any] = {"message_id": event.id, "timestamp_s": now_ms // 1000, "body": body}
    signatures = sign(**told, secrets=secrets.at(now_ms))
    if secrets.keys:
        signatures = f"{signatures} {sign_asymmetric(**told, keys=secrets.keys)}"
    headers = {
        "content-type": _CONTENT_TYPES[endpoint.format],
        ID_HEADER: event.id,
        TIMESTAMP_HEADER: str(now_ms // 1000),
        SIGNATURE_HEADER: signatures,
    }
    return headers, body


def body_of(runtime: Runtime, format_: Format, event: Event) -> bytes:
    """This function will write an event in an endpoint's format."""
    text = event_text(
        id=event.id,
        seq=event.seq,
        type=event.type,
        at_ms=event.at_ms,
        job_id=event.job_id,
        job_seq=event.job_seq,
        data=event.data,
    )
    if format_ is Format.CLOUDEVENTS:
        return cloudevent_body(
            event.type,
            rfc3339(event.at_ms),
            text,
            id=event.id,
            job_id=event.job_id,
            source=runtime.public_url or _NAMELESS_SOURCE,
        )
    return standard_body(event.type, rfc3339(event.at_ms), text)


async def post(
    runtime: Runtime, endpoint: Endpoint, delivery: Delivery, event: Event, secrets: Secrets
) -> Tried:
    """This function will send one webhook once and tell what came of it, whatever that is."""
    began_ms = runtime.now_ms()
    told: dict[str, Any]
    try:
        headers, body = message(runtime, endpoint, event, secrets)
        answered = await runtime.egress.post(
            endpoint.url, headers=headers, body=body, timeout_s=TIMEOUT_S, max_answer_bytes=_READ_BYTES
        )
    except UrlRefused as error:
        told = {"error": f"The URL {error.reason}.", "refused": True}
    except Unreachable as error:
        told = {"error": f"{error.kind.value}: {error.message}"}
    except Exception as error:  # noqa: BLE001 - a failure of ours is a failed try, and stops no other
        _log.exception("delivery_failed", delivery_id=delivery.id)
        told = {"error": f"internal: {type(error).__name__}"}
    else:
        told = {
            "status": answered.status,
            "answer": _readable(answered.body),
            "retry_after_ms": retry_after_ms(answered.headers, runtime.now_ms()),
        }
    return Tried(at_ms=began_ms, took_ms=runtime.now_ms() - began_ms, url=endpoint.url, **told)


def _readable(answer: bytes) -> str:
    """PostgreSQL keeps no NUL in a text."""
    return answer[:ANSWER_BYTES].decode("utf-8", "replace").replace("\0", "")
