"""fal's callbacks, verified here by an independent reading of fal's own recipe."""

import base64
import time
from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.simulator.harness import Received, Scene, scene

pytestmark = pytest.mark.anyio
HEADERS = [f"x-fal-webhook-{name}" for name in ("request-id", "user-id", "timestamp", "signature")]


async def key_set(at: Scene) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = (await at.http.get("/fal-rest/.well-known/jwks.json")).json()["keys"]
    return keys


def verdict(keys: list[dict[str, Any]], callback: Received, stored: str | None = None) -> str:
    """Judge a callback as the documents of fal tell a receiver to, which stored this request id for its URL."""
    if any(not callback.headers.get(name) for name in HEADERS):
        return "incomplete"
    request_id, user_id, timestamp, signature = (callback.headers[name] for name in HEADERS)
    digest = sha256(callback.raw).hexdigest()
    message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()
    for key in keys:
        raw = base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4))
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signature), message)
        except InvalidSignature:
            continue
        if abs(time.time() - int(timestamp)) > 300:
            return "stale"
        same = request_id in (callback.body["request_id"], callback.body["gateway_request_id"])
        ours = stored in (None, callback.body["request_id"])
        return "good" if same and ours else "mismatched"
    return "bad signature"


async def test_a_callback_carries_a_signature_that_the_key_set_verifies() -> None:
    async with scene() as at:
        reply = (await at.fal(seed=196619188014358660)).json()
        await at.quiet()
        keys = await key_set(at)
        (callback,) = at.receiver.callbacks
        assert verdict(keys, callback) == "good"
        assert "=" not in keys[0]["x"]
        assert callback.headers["content-type"] == "application/json"
        assert (callback.body["request_id"], callback.body["status"]) == (reply["request_id"], "OK")
        assert callback.body["payload"]["seed"] == 196619188014358660


async def test_a_failed_request_calls_back_with_its_error_and_detail() -> None:
    async with scene() as at:
        await at.fal(num_images=9)
        await at.quiet()
        (callback,) = at.receiver.callbacks
        body = callback.body
        assert (body["status"], body["error"]) == ("ERROR", "Invalid status code: 422")
        assert body["payload"]["detail"][0]["loc"] == ["body", "num_images"]


async def test_a_null_payload_hides_a_result_that_can_be_fetched() -> None:
    async with scene("null_payload=1") as at:
        replies = [(await at.fal(hook=str(number))).json() for number in range(8)]
        await at.quiet()
        bodies = [callback.body for callback in at.receiver.callbacks]
        assert {body["status"] for body in bodies} == {"OK", "ERROR"}
        assert all(body["payload"] is None and body["payload_error"] for body in bodies)
        result = await at.http.get(replies[0]["response_url"], headers={"Authorization": "Key k"})
        assert (result.status_code, len(result.json()["images"])) == (200, 1)


async def test_forgeries_of_every_kind_fail_and_the_true_callbacks_still_come() -> None:
    async with scene("forge=1") as at:
        ids = {}
        for number in range(40):
            ids[str(number)] = (await at.fal(hook=str(number))).json()["request_id"]
        await at.quiet()
        keys = await key_set(at)
        verdicts = [verdict(keys, callback, ids[callback.token]) for callback in at.receiver.callbacks]
        assert (len(verdicts), verdicts.count("good")) == (80, 40)
        assert set(verdicts) == {"good", "bad signature", "stale", "incomplete", "mismatched"}
        by_kind = at.stat("fal", "callbacks", "forged_by")
        assert set(by_kind) == {
            "wrong_key",
            "changed_body",
            "stale_timestamp",
            "missing_header",
            "other_request",
        }
        assert sum(by_kind.values()) == at.stat("fal", "callbacks", "forged") == 40
        judged = list(zip(at.receiver.callbacks, verdicts, strict=True))
        assert all(callback.body["payload"]["seed"] == 666 for callback, found in judged if found != "good")
        firsts = {callback.token: found == "good" for callback, found in reversed(judged)}
        assert set(firsts.values()) == {True, False}


async def test_other_ids_of_the_gateway_and_headers_that_carry_them_occur() -> None:
    async with scene() as at:
        for number in range(40):
            await at.fal(hook=str(number))
        await at.quiet()
        keys = await key_set(at)
        assert {verdict(keys, callback) for callback in at.receiver.callbacks} == {"good"}
        other = [c for c in at.receiver.callbacks if c.body["request_id"] != c.body["gateway_request_id"]]
        carried = {c.headers[HEADERS[0]] == c.body["request_id"] for c in other}
        assert (0 < len(other) < 30, carried) == (True, {True, False})


async def test_keys_rotate_on_demand() -> None:
    async with scene() as at:
        old = await key_set(at)
        both = (await at.http.put("/_sim/fal/keys")).json()["keys"]
        assert (both[1:], len(both)) == (old, 2)
        await at.fal()
        await at.quiet()
        (callback,) = at.receiver.callbacks
        assert (verdict(old, callback), verdict(both, callback)) == ("bad signature", "good")
        alone = (await at.http.put("/_sim/fal/keys", json={"keep_old": False})).json()["keys"]
        assert (len(alone), alone[0] in both) == (1, False)
        at.simulator.set_faults(jwks_500=1)
        assert (await at.http.get("/fal-rest/.well-known/jwks.json")).status_code == 500


async def test_an_unwelcome_callback_comes_again_with_the_same_body() -> None:
    async with scene() as at:
        at.receiver.answer = lambda number: 503 if number < 3 else 200
        await at.fal()
        await at.quiet()
        keys = await key_set(at)
        assert [verdict(keys, callback) for callback in at.receiver.callbacks] == ["good"] * 3
        assert len({callback.raw for callback in at.receiver.callbacks}) == 1
        assert at.stat("fal", "callbacks", "answers") == {"200": 1, "503": 2}
        assert (at.stat("fal", "callbacks", "sent"), at.stat("fal", "callbacks", "delivered")) == (3, 1)


async def test_a_redirect_loses_a_fal_callback_for_good() -> None:
    async with scene() as at:
        at.receiver.answer = lambda number: 307
        await at.fal()
        await at.quiet()
        assert (len(at.receiver.callbacks), at.stat("fal", "callbacks", "given_up")) == (1, 1)
