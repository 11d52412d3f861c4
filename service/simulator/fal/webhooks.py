"""fal's callbacks: their bodies, their four signed headers, and false ones.

Scheme: https://docs.fal.ai/model-apis/model-endpoints/webhooks, read 2026-11-20. Not documented and therefore
drawn per request: whether a repeated delivery is signed anew, whether `gateway_request_id` differs from the
request id, and which of the two the signed header carries then.
"""

import base64
import json
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.simulator.fal.model import answer_of
from service.simulator.ledger import TakenRequest
from service.simulator.plan import Outcome
from service.simulator.provider import Message

FORGERIES = ("wrong_key", "changed_body", "stale_timestamp", "missing_header", "other_request")
#: receivers accept timestamps within 300 s of their clock
STALE_BY_S = 900
NOT_SERIALIZABLE = "Response payload is not JSON serializable."


class SigningKeys:
    """The account-wide signing key and the set that verifies it."""

    def __init__(self) -> None:
        self._keys = [Ed25519PrivateKey.generate()]

    def rotate(self, *, keep_old: bool) -> None:
        """Sign with a new key from now on; the old one may stay published."""
        self._keys = [Ed25519PrivateKey.generate(), *(self._keys if keep_old else [])]

    def sign(self, message: bytes) -> bytes:
        """Return the newest key's signature."""
        return self._keys[0].sign(message)

    def key_set(self) -> dict[str, Any]:
        """Return the JWKS document; `x` has no padding, as RFC 7517 wants and as trips careless clients."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": self._kid(key),
                    "x": self._x(key),
                }
                for key in self._keys
            ]
        }

    @staticmethod
    def _x(key: Ed25519PrivateKey) -> str:
        return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")

    @staticmethod
    def _kid(key: Ed25519PrivateKey) -> str:
        return sha256(key.public_key().public_bytes_raw()).hexdigest()[:16]


class Webhooks:
    """Renders callbacks of one account."""

    def __init__(self, keys: SigningKeys, user_id: str) -> None:
        self._keys = keys
        self._user_id = user_id

    def callback(self, request: TakenRequest, *, now_ms: int) -> Message:
        """Return the true callback; the body is the same at every delivery."""
        notes = request.notes
        if "callback" not in notes:
            notes["callback"] = _encode(_document(request))
            notes["signed_s"] = now_ms // 1_000
        signed_anew = request.plan.dice.choose("signed anew", (True, False))
        at_s = now_ms // 1_000 if signed_anew else notes["signed_s"]
        return self._signed(_header_id(request), notes["callback"], at_s)

    def forgery(self, request: TakenRequest, *, now_ms: int) -> tuple[str, Message]:
        """Return a false callback that claims another result."""
        kind = request.plan.dice.choose("forgery", FORGERIES)
        now_s = now_ms // 1_000
        lie = _encode(_lie(request, request.id))
        if kind == "wrong_key":
            return kind, self._signed(request.id, lie, now_s, key=Ed25519PrivateKey.generate())
        if kind == "changed_body":
            truth = self._signed(request.id, _encode(_envelope(request, "OK", payload={})), now_s)
            return kind, Message(truth.headers, lie)
        if kind == "stale_timestamp":
            return kind, self._signed(request.id, lie, now_s - STALE_BY_S)
        if kind == "missing_header":
            signed = self._signed(request.id, lie, now_s, key=Ed25519PrivateKey.generate())
            missing = request.plan.dice.choose("missing", ("Signature", "Timestamp", "User-Id", "Request-Id"))
            return kind, Message(_without(signed.headers, f"X-Fal-Webhook-{missing}"), lie)
        # Truly signed, but for a request that is not the one at this URL: any customer of fal can send this.
        other = str(UUID(int=uuid4().int))
        return kind, self._signed(other, _encode(_lie(request, other)), now_s)

    def _signed(
        self, request_id: str, body: bytes, at_s: int, *, key: Ed25519PrivateKey | None = None
    ) -> Message:
        text = "\n".join((request_id, self._user_id, str(at_s), sha256(body).hexdigest()))
        signature = key.sign(text.encode()) if key else self._keys.sign(text.encode())
        return Message(
            {
                "Content-Type": "application/json",
                "X-Fal-Webhook-Request-Id": request_id,
                "X-Fal-Webhook-User-Id": self._user_id,
                "X-Fal-Webhook-Timestamp": str(at_s),
                "X-Fal-Webhook-Signature": signature.hex(),
            },
            body,
        )


def gateway_id(request: TakenRequest) -> str:
    """Return the id of fal's last attempt: the request's own unless fal had to try again."""
    if request.plan.dice.choose("gateway id", ("same", "same", "same", "other")) == "same":
        return request.id
    return str(UUID(int=UUID(request.id).int ^ 1))


def _header_id(request: TakenRequest) -> str:
    return request.plan.dice.choose("header id", (request.id, request.id, gateway_id(request)))


def _document(request: TakenRequest) -> dict[str, Any]:
    answer = answer_of(request)
    if answer.status != 200:
        error = f"Invalid status code: {answer.status}"
        return _envelope(request, "ERROR", error=error, payload=answer.body)
    if request.plan.outcome is not Outcome.NULL_PAYLOAD:
        return _envelope(request, "OK", payload=answer.body)
    if request.plan.dice.choose("null payload", ("ok", "error")) == "ok":
        return _envelope(request, "OK", payload=None, payload_error=NOT_SERIALIZABLE)
    # Seen for a job that worked: https://github.com/fal-ai/fal-js/issues/153
    error = "Invalid status code: 404"
    return _envelope(request, "ERROR", error=error, payload=None, payload_error=NOT_SERIALIZABLE)


def _envelope(request: TakenRequest, status: str, **members: Any) -> dict[str, Any]:
    return {"request_id": request.id, "gateway_request_id": gateway_id(request), "status": status, **members}


def _lie(request: TakenRequest, request_id: str) -> dict[str, Any]:
    image = {"url": f"{request.base_url}/fal-files/forged/0.png", "content_type": "image/png"}
    payload = {"images": [image], "seed": 666}
    return {"request_id": request_id, "gateway_request_id": request_id, "status": "OK", "payload": payload}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _without(headers: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}
