"""Webhooks as Standard Webhooks 1.0.0 says: secrets, signatures, bodies, and the check that a receiver makes.

What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, the body exactly as it is sent. Symmetric signatures are
`v1` (HMAC-SHA256), asymmetric ones `v1a` (Ed25519). CloudEvents are sent in structured mode alone: in binary mode
their attributes would travel in headers that no signature covers.
Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, read 2026-11-20.

    WebhookRefused
    ├── MissingHeader      .name
    ├── InvalidTimestamp   .value
    ├── StaleTimestamp     .timestamp_s, .now_s, .tolerance_s
    └── InvalidSignature
    InvalidSecret          (ours to make right, not the sender's)
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import orjson
from cryptography.exceptions import InvalidSignature as _Mismatch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SECRET_PREFIX, PUBLIC_PREFIX = "whsec_", "whpk_"
ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
STANDARD_CONTENT_TYPE = "application/json"
CLOUDEVENT_CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
#: Before the type of an event when it is a CloudEvent: their types begin with a name turned round.
CLOUDEVENT_PREFIX = "dev.fluxgate."
TOLERANCE_S = 300
_SECRET_BYTES = range(24, 65)
_PUBLIC_BYTES = 32
_DIGITS = re.compile(r"[0-9]{1,12}")
#: More entries than any rotation makes; the rest is not looked at.
_MOST_SIGNATURES = 16


class InvalidSecret(ValueError):
    """A secret or a public key is not in the form of the specification; `reason` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WebhookRefused(Exception):
    """What came is not to be believed."""


class MissingHeader(WebhookRefused):
    """One of the three headers is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the header {name} is missing")
        self.name = name


class InvalidTimestamp(WebhookRefused):
    """The timestamp is no whole number of seconds."""

    def __init__(self, value: str) -> None:
        super().__init__(f"the header {TIMESTAMP_HEADER} is no whole number of seconds")
        self.value = value


class StaleTimestamp(WebhookRefused):
    """The timestamp is too long ago, or too far ahead."""

    def __init__(self, *, timestamp_s: int, now_s: int, tolerance_s: int) -> None:
        super().__init__(f"the webhook was sent {abs(now_s - timestamp_s)} s away from now")
        self.timestamp_s, self.now_s, self.tolerance_s = timestamp_s, now_s, tolerance_s


class InvalidSignature(WebhookRefused):
    """No signature is one of a key that we know."""

    def __init__(self) -> None:
        super().__init__("no signature of the webhook was made with a known key")


def new_secret(random32: bytes) -> str:
    """This function will write 32 random bytes as a secret, `whsec_…`."""
    if len(random32) != 32:
        raise ValueError("a new secret is made of 32 random bytes")
    return SECRET_PREFIX + base64.b64encode(random32).decode()


def secret_bytes(secret: str) -> bytes:
    """This function will read the key out of a `whsec_…`.

    :raises InvalidSecret: if the prefix is missing, the rest is not standard base64 (a secret in the URL-safe
        alphabet would silently be another key), or the key has not 24 to 64 bytes.
    """
    key = _read(secret, SECRET_PREFIX)
    if len(key) not in _SECRET_BYTES:
        raise InvalidSecret(f"a secret has 24 to 64 bytes, this one {len(key)}")
    return key


def public_text(key: Ed25519PublicKey) -> str:
    """This function will write a public key, `whpk_…`."""
    return PUBLIC_PREFIX + base64.b64encode(key.public_bytes_raw()).decode()


def public_key(text: str) -> Ed25519PublicKey:
    """This function will read a `whpk_…`.

    :raises InvalidSecret: if it is none.
    """
    raw = _read(text, PUBLIC_PREFIX)
    if len(raw) != _PUBLIC_BYTES:
        raise InvalidSecret(f"a public key has {_PUBLIC_BYTES} bytes, this one {len(raw)}")
    return Ed25519PublicKey.from_public_bytes(raw)


def _read(text: str, prefix: str) -> bytes:
    if not text.startswith(prefix):
        raise InvalidSecret(f"it must begin with {prefix}")
    try:
        return base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidSecret(f"what follows {prefix} must be standard base64") from error


def _signed(message_id: str, timestamp_s: int, body: bytes) -> bytes:
    if "." in message_id:
        raise ValueError("the id of a webhook holds no full stop: it would move the border to the timestamp")
    return b"%s.%d.%s" % (message_id.encode(), timestamp_s, body)


def sign(*, message_id: str, timestamp_s: int, body: bytes, secrets: Sequence[str]) -> str:
    """This function will sign with each secret, newest first, as the header is sent: `v1,… v1,…`.

    :raises InvalidSecret: if a secret is none.
    """
    signed = _signed(message_id, timestamp_s, body)
    return " ".join(f"v1,{_mac(secret_bytes(secret), signed)}" for secret in secrets)


def sign_asymmetric(
    *, message_id: str, timestamp_s: int, body: bytes, keys: Sequence[Ed25519PrivateKey]
) -> str:
    """This function will sign with each Ed25519 key, newest first: `v1a,… v1a,…`."""
    signed = _signed(message_id, timestamp_s, body)
    return " ".join(f"v1a,{base64.b64encode(key.sign(signed)).decode()}" for key in keys)


def _mac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def verify(
    *,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str] = (),
    public_keys: Sequence[str | Ed25519PublicKey] = (),
    now_s: int,
    tolerance_s: int = TOLERANCE_S,
) -> None:
    """This function will check a webhook that came: any signature by any of the keys is enough.

    Names of headers are read in any case; unknown versions and malformed entries are passed over.

    :raises MissingHeader: if one of the three headers is not there.
    :raises InvalidTimestamp: if the timestamp is no whole number.
    :raises StaleTimestamp: if it is more than `tolerance_s` away from `now_s`.
    :raises InvalidSignature: if no signature fits.
    :raises InvalidSecret: if one of our own keys is malformed, or there is none.
    """
    if not secrets and not public_keys:
        raise InvalidSecret("there must be a secret or a public key to verify with")
    keys = [secret_bytes(secret) for secret in secrets]
    publics = [public_key(each) if isinstance(each, str) else each for each in public_keys]
    told = {name.lower(): value for name, value in headers.items()}
    message_id, written, signatures = (
        _header(told, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
    )
    if not _DIGITS.fullmatch(written):
        raise InvalidTimestamp(written)
    timestamp_s = int(written)
    if abs(now_s - timestamp_s) > tolerance_s:
        raise StaleTimestamp(timestamp_s=timestamp_s, now_s=now_s, tolerance_s=tolerance_s)
    # Over the text of the header, not the number: that is what was signed.
    signed = b".".join((message_id.encode("utf-8", "surrogatepass"), written.encode(), body))
    if not any(_fits(entry, signed, keys, publics) for entry in signatures.split()[:_MOST_SIGNATURES]):
        raise InvalidSignature


def _header(told: Mapping[str, str], name: str) -> str:
    value = told.get(name)
    if not value:
        raise MissingHeader(name)
    return value


def _fits(entry: str, signed: bytes, keys: Iterable[bytes], publics: Iterable[Ed25519PublicKey]) -> bool:
    version, _, given = entry.partition(",")
    if version == "v1":
        text = given.encode("utf-8", "surrogatepass")
        return any(hmac.compare_digest(_mac(key, signed).encode(), text) for key in keys)
    if version == "v1a":
        try:
            signature = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            return False
        return any(_made_by(key, signature, signed) for key in publics)
    return False


def _made_by(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except _Mismatch:
        return False
    return True


def standard_body(type: str, timestamp: str, event_text: bytes) -> bytes:
    """This function will write the body of a webhook: `{"type","timestamp","data"}`, data being the event."""
    return orjson.dumps({"type": type, "timestamp": timestamp, "data": orjson.Fragment(event_text)})


def cloudevent_body(
    type: str, timestamp: str, event_text: bytes, *, id: str, job_id: str | None, source: str
) -> bytes:
    """This function will write the body of a webhook as a CloudEvent 1.0 in structured mode.

    `id` is the event's, as in `webhook-id`; `source` is a URI of this service, and stays the same for good: equal
    `source` and `id` are how receivers know what they have already.
    """
    event = {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": CLOUDEVENT_PREFIX + type,
        "time": timestamp,
        "datacontenttype": "application/json",
        "data": orjson.Fragment(event_text),
    }
    return orjson.dumps(event if job_id is None else {**event, "subject": job_id})
