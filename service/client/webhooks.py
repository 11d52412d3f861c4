"""Incoming webhooks: bytes and headers in, an event out, or an error."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.client.errors import InvalidWebhook, UnexpectedAnswer
from service.client.event import Event, event_from
from service.client.surroundings import Surroundings
from service.domain import exact_json


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    secret: str | Sequence[str] = (),
    *,
    public_keys: Sequence[str] = (),
    tolerance_s: int = 300,
    now_s: float | None = None,
) -> Event:
    """This function will check that a webhook was sent by the service just now, and give the event in it.

    `body` must be the bytes as they came: JSON that was read and written again has another signature. `secret` is the
    endpoint's `whsec_…`, or several during a rotation; `public_keys` are `whpk_…` of a service that signs with `v1a`;
    one fitting signature is enough. Both formats are read, standard and CloudEvents. `now_s` is in seconds since the
    epoch, the clock's when absent; the webhook may be `tolerance_s` older or newer.

    A genuine webhook can be sent again within that time, and is whenever our answer was lost: know it by `event.id`.

    :raises InvalidWebhook: if it must not be believed: answer 400.
    :raises ValueError: if a secret or public key of ours is none.
    """
    # Loaded here, because most programs only submit: cryptography takes a while.
    from service.domain import webhook

    try:
        webhook.verify(
            headers=headers,
            body=body,
            secrets=[secret] if isinstance(secret, str) else secret,
            public_keys=public_keys,
            now_s=int(Surroundings().clock_s() if now_s is None else now_s),
            tolerance_s=tolerance_s,
        )
    except webhook.WebhookRefused as error:
        raise InvalidWebhook(str(error)) from error
    said = {name.lower(): value for name, value in headers.items()}
    return _event(body, message_id=said[webhook.ID_HEADER], cloud_prefix=webhook.CLOUDEVENT_PREFIX)


def _event(body: bytes, *, message_id: str, cloud_prefix: str) -> Event:
    try:
        wrapped = exact_json.loads(body)
    except exact_json.NotJson as error:
        raise InvalidWebhook("the body is no JSON") from error
    if not isinstance(wrapped, dict):
        raise InvalidWebhook("the body is no JSON object")
    try:
        event = event_from(wrapped.get("data"))
    except UnexpectedAnswer as error:
        raise InvalidWebhook("the body holds no event") from error
    if event.id != message_id or wrapped.get("type") != _type(wrapped, event, cloud_prefix):
        raise InvalidWebhook("what stands around the event does not fit it")
    return event


def _type(wrapped: Mapping[str, Any], event: Event, cloud_prefix: str) -> str:
    return f"{cloud_prefix}{event.type}" if "specversion" in wrapped else event.type
