"""fal for the conformance suite."""

import base64
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.domain.callback import Received
from service.providers.base import Reply
from service.providers.fal import Fal
from tests.providers.harness import NOW_MS, REQUEST_ID, Ending, Harness, drive, reply

KEY = "fal-key-id:fal-key-secret-0123456789"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
JWKS = {
    "keys": [{"x": base64.urlsafe_b64encode(SIGNER.public_key().public_bytes_raw()).decode().rstrip("=")}]
}
IMAGE = {
    "url": "https://v3.fal.media/files/a/b.png",
    "content_type": "image/png",
    "width": 1024,
    "height": 768,
}
PAYLOAD = {"images": [IMAGE], "seed": 15860307465884635512, "prompt": "a fox"}
WRONG_FIELD = {
    "detail": [{"loc": ["body", "num_images"], "msg": "too many", "type": "less_than_equal", "input": 9}]
}
POLICY = {"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation", "input": {}}]}


def _make() -> Fal:
    fal = Fal(
        key=KEY,
        queue_url="https://queue.fal.run",
        run_url="https://fal.run",
        jwks_url="https://rest.fal.ai/.well-known/jwks.json",
        platform_url="https://api.fal.ai/v1",
        user_id="user-1",
    )
    _, fetched = drive(fal.fetch_keys(NOW_MS), [reply(200, JWKS)])
    assert fetched
    return fal


def _status(word: Any, **members: Any) -> dict[str, Any]:
    return {"status": word, "request_id": REQUEST_ID, **members}


def _called_back(status: str, payload: Any, **members: Any) -> dict[str, Any]:
    ids = {"request_id": REQUEST_ID, "gateway_request_id": REQUEST_ID}
    return {**ids, "status": status, "payload": payload, **members}


def _refused(document: Any) -> Ending:
    error = "Invalid status code: 422"
    polled = [reply(200, _status("COMPLETED", error=error)), reply(422, document)]
    return Ending(polled=polled, called_back=_called_back("ERROR", document, error=error))


def _taken(base: str) -> Reply:
    request = f"{base}/fal-ai/flux-2-pro/requests/{REQUEST_ID}"
    urls = {"response_url": request, "status_url": f"{request}/status", "cancel_url": f"{request}/cancel"}
    return reply(200, {"request_id": REQUEST_ID, "status": "IN_QUEUE", "queue_position": 1, **urls})


def _proved(body: bytes) -> Received:
    timestamp = str(NOW_MS // 1_000)
    message = "\n".join((REQUEST_ID, "user-1", timestamp, sha256(body).hexdigest()))
    headers = {
        "x-fal-webhook-request-id": REQUEST_ID,
        "x-fal-webhook-user-id": "user-1",
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": SIGNER.sign(message.encode()).hex(),
    }
    return Received(headers=headers, body=body, received_ms=NOW_MS)


FAL = Harness(
    name="fal",
    key="fal-key-secret-0123456789",
    make=_make,
    own_domains=("fal.run", "falrun.com", "fal.ai"),
    model="fal-ai/flux-2-pro",
    known_models=("fal-ai/flux-2-pro",),
    input={"prompt": "a fox", "seed": 7},
    taken=_taken,
    link_names=("status", "result", "cancel"),
    status=lambda word: reply(200, {**PAYLOAD, **_status(word)}),
    words_under_way=("IN_QUEUE", "IN_PROGRESS"),
    endings={
        "succeeded": Ending(
            polled=[reply(200, _status("COMPLETED")), reply(200, PAYLOAD)],
            called_back=_called_back("OK", PAYLOAD),
        ),
        "refused": _refused(WRONG_FIELD),
        "blocked": _refused(POLICY),
        "empty": Ending(
            polled=[reply(200, _status("COMPLETED")), reply(200, {"images": []})],
            called_back=_called_back("OK", {"images": []}),
        ),
    },
    proved=_proved,
    proof_headers=(
        "x-fal-webhook-request-id",
        "x-fal-webhook-user-id",
        "x-fal-webhook-timestamp",
        "x-fal-webhook-signature",
    ),
    documents=[
        PAYLOAD,
        _status("COMPLETED", error="Invalid status code: 422", error_type="bad_request"),
        _status("IN_QUEUE", queue_position=3),
        WRONG_FIELD,
        POLICY,
        _called_back("OK", PAYLOAD),
        {"items": [{"request_id": REQUEST_ID, "sent_at": "2026-11-18T10:26:40Z", "json_input": {}}]},
        JWKS,
    ],
)
