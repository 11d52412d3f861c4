"""Whether a webhook was signed by fal, and when.

https://docs.fal.ai/model-apis/model-endpoints/webhooks (read 2026-11-20): Ed25519 over request id, user id,
timestamp and the hex SHA-256 of the raw body, joined by line feeds; valid for 300 s either way.

Rule: whoever judges asks in this order: well formed, verified by a key, recent. Form is decided before any
cryptography, and a bad signature outranks age, so that only a genuine old delivery is called stale.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature

from service.providers.fal.jwks import VerifyKey

TOLERANCE_MS = 300_000

_PREFIX = "x-fal-webhook-"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SIGNATURE = re.compile(r"[0-9A-Fa-f]{128}")
_SECONDS = re.compile(r"[0-9]+")
#: More digits than any time in seconds has; kept from int(), which refuses thousands of them.
_LONGEST_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Signed:
    """The four signed values, well formed: text as received."""

    request_id: str
    user_id: str
    timestamp: str
    signature: bytes

    def message(self, body: bytes) -> bytes:
        """This function will rebuild the message that was signed."""
        parts = (self.request_id, self.user_id, self.timestamp, sha256(body).hexdigest())
        return "\n".join(parts).encode("utf-8", "surrogatepass")


def read(headers: Mapping[str, str]) -> Signed | str:
    """This function will read the signature headers (lower-case names), or say what is malformed about them."""
    values = {}
    for name in ("request-id", "user-id", "timestamp", "signature"):
        value = headers.get(_PREFIX + name, "")
        if not value.strip():
            return f"the header {_PREFIX}{name} is missing"
        if _CONTROL.search(value):
            return f"the header {_PREFIX}{name} holds a control character"
        values[name] = value
    if not _SECONDS.fullmatch(values["timestamp"]):
        return "the timestamp is not made of digits"
    if not _SIGNATURE.fullmatch(values["signature"]):
        return "the signature is not 128 hex digits"
    return Signed(
        request_id=values["request-id"],
        user_id=values["user-id"],
        timestamp=values["timestamp"],
        signature=bytes.fromhex(values["signature"]),
    )


def fitting_key(signed: Signed, body: bytes, keys: Sequence[VerifyKey]) -> VerifyKey | None:
    """This function will return the first key that verifies the signature."""
    message = signed.message(body)
    for key in keys:
        try:
            key.public.verify(signed.signature, message)
        except InvalidSignature:
            continue
        return key
    return None


def is_stale(signed: Signed, now_ms: int) -> bool:
    """This function will tell whether the signed time is more than 300 s from now."""
    if len(signed.timestamp) > _LONGEST_SECONDS:
        return True
    return abs(now_ms - int(signed.timestamp) * 1_000) > TOLERANCE_MS
