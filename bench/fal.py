"""The bench's own fal: one signing key, its key set, and the four signed headers.

Scheme: https://docs.fal.ai/model-apis/model-endpoints/webhooks (read 2026-11-20).
"""

import base64
import json
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

USER_ID = "user_bench"


def private_key() -> Ed25519PrivateKey:
    """This function will give the key, the same in every process of the bench."""
    return Ed25519PrivateKey.from_private_bytes(sha256(b"the key of the bench's own fal").digest())


def key_set() -> bytes:
    """This function will give the JWKS document that verifies it."""
    public = private_key().public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(public).decode().rstrip("=")
    return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "bench", "x": x}]}).encode()


def message(request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """This function will give what is signed."""
    return "\n".join((request_id, user_id, timestamp, sha256(body).hexdigest())).encode()


def signed_headers(key: Ed25519PrivateKey, request_id: str, body: bytes, now_s: int) -> dict[str, str]:
    """This function will sign a callback."""
    signature = key.sign(message(request_id, USER_ID, str(now_s), body))
    return {
        "content-type": "application/json",
        "x-fal-webhook-request-id": request_id,
        "x-fal-webhook-user-id": USER_ID,
        "x-fal-webhook-timestamp": str(now_s),
        "x-fal-webhook-signature": signature.hex(),
    }
