"""A fal adapter, answers to its calls, and callbacks signed with the vectors' keys."""

import base64
import hashlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.domain.callback import Addressee, Received
from service.providers.base import Answer, Call, Order, Provider, Reply, Subject
from service.providers.fal import Fal

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "fal_webhooks.json").read_text())
SIGNERS = [Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["seed_hex"])) for key in VECTORS["keys"]]

KEY = "1234-key-id:0123456789abcdef"
NOW_MS = 1_760_000_010_000
REQUEST_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
CALLBACK_URL = "https://hooks.example.com/callbacks/fal/tok-en_1?x=1&y"
MODEL = "fal-ai/flux-2/klein/4b/edit"
SEED = 15860307465884635512
RESULT = {
    "images": [
        {"url": "https://v3.fal.media/files/a.png", "content_type": "image/png", "width": 1024, "height": 768}
    ],
    "seed": SEED,
}
POLICY = {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}

Concluded = TypeVar("Concluded")


def fal(**changes: Any) -> Fal:
    settings: dict[str, Any] = {
        "key": KEY,
        "queue_url": "https://queue.fal.run",
        "run_url": "https://fal.run",
        "jwks_url": "https://rest.fal.ai/.well-known/jwks.json",
        "platform_url": "https://api.fal.ai/v1",
    }
    return Fal(**{**settings, **changes})


def as_provider(adapter: Fal) -> Provider:
    """Let a type checker compare the adapter with the protocol."""
    return adapter


def drive(talk: Generator[Call, Answer, Concluded] | None, *answers: Answer) -> tuple[Concluded, list[Call]]:
    """Answer the calls of a talk one after the other; return what it concluded, and the calls.

    A talk that asks for more than there is to answer, or for less, is at fault.
    """
    assert talk is not None
    calls = []
    left = list(answers)
    try:
        calls.append(next(talk))
        while True:
            calls.append(talk.send(left.pop(0)))
    except StopIteration as end:
        assert left == []
        return end.value, calls


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    """Make a reply; a body of bytes is sent as it is, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(
        status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}, body=raw
    )


def order(**changes: Any) -> Order:
    values: dict[str, Any] = {
        "attempt_id": "att_1",
        "model": MODEL,
        "input": {"prompt": "a cat", "seed": SEED},
        "callback_url": CALLBACK_URL,
        "secret": "unused-by-fal",
        "priority": "low",
        "now_ms": NOW_MS,
        "deadline_ms": NOW_MS + 90_500,
    }
    return Order(**{**values, **changes})


def subject(**changes: Any) -> Subject:
    values: dict[str, Any] = {
        "attempt_id": "att_1",
        "model": MODEL,
        "provider_request_id": REQUEST_ID,
        "links": {},
        "open": True,
        "now_ms": NOW_MS,
    }
    return Subject(**{**values, **changes})


def completed(**members: Any) -> Reply:
    return reply(200, {"status": "COMPLETED", "request_id": REQUEST_ID, **members})


def addressee(**changes: Any) -> Addressee:
    values: dict[str, Any] = {
        "attempt_id": "att_1",
        "model": MODEL,
        "provider_request_id": REQUEST_ID,
        "secret": None,
    }
    return Addressee(**{**values, **changes})


def webhook(status: str = "OK", **members: Any) -> dict[str, Any]:
    return {"request_id": REQUEST_ID, "gateway_request_id": REQUEST_ID, "status": status, **members}


def signed(
    document: Any,
    *,
    signer: Ed25519PrivateKey = SIGNERS[0],
    header_id: str = REQUEST_ID,
    user_id: str = "user_1",
    at_ms: int = NOW_MS,
    received_ms: int = NOW_MS,
) -> Received:
    """Make a callback as fal signs it; a document of bytes is sent as it is."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    values = (header_id, user_id, str(at_ms // 1_000))
    message = "\n".join((*values, hashlib.sha256(body).hexdigest())).encode()
    names = ("request-id", "user-id", "timestamp", "signature")
    texts = (*values, signer.sign(message).hex())
    headers = {f"x-fal-webhook-{name}": text for name, text in zip(names, texts, strict=True)}
    return Received(headers=headers, body=body, received_ms=received_ms)


def learn_keys(adapter: Fal, jwks: Any, *, now_ms: int = NOW_MS - 120_000) -> bool:
    learned, _ = drive(adapter.fetch_keys(now_ms), reply(200, jwks))
    return learned


def fal_with_keys(**changes: Any) -> Fal:
    adapter = fal(**changes)
    assert learn_keys(adapter, VECTORS["jwks_documents"]["main"])
    return adapter


def jwk(signer: Ed25519PrivateKey, **members: Any) -> dict[str, Any]:
    x = base64.urlsafe_b64encode(signer.public_key().public_bytes_raw()).decode()
    return {"x": x, **members}


def only(facts: Sequence[Any]) -> Any:
    assert len(facts) == 1
    return facts[0]
