"""The fake BFL: submit replies, polling, errors, and every form of its callbacks."""

import hmac
import io
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest
from PIL import Image

from tests.simulator.harness import BFL, Received, Scene, scene

pytestmark = pytest.mark.anyio
POLLED = {"id", "status", "result", "progress", "details", "preview"}


def proof(callback: Received, secret: str) -> str:
    """Say how a callback proves that its sender knows the secret."""
    plain = callback.headers.get("x-webhook-secret")
    signature = callback.headers.get("x-bfl-signature")
    if plain is None and signature is None:
        return "none"
    if plain == secret:
        return "secret"
    good = "sha256=" + hmac.new(secret.encode(), callback.raw, sha256).hexdigest()
    return "hmac" if signature == good else "false"


def form(callback: Received) -> tuple[str, str]:
    return proof(callback, f"secret-{callback.token}"), callback.body["status"]


async def test_a_submit_without_webhook_is_polled_to_its_result() -> None:
    async with scene("queue_ms=400") as at:
        submit = (await at.bfl(hook=None, width=512, height=256, seed=5)).json()
        assert {"id", "polling_url", "cost", "input_mp", "output_mp"} == set(submit)
        document = (await at.http.get(submit["polling_url"], headers=BFL)).json()
        assert (set(document), document["status"], document["result"]) == (POLLED, "Pending", None)
        await at.quiet()
        document = (await at.http.get(submit["polling_url"], headers=BFL)).json()
        assert (document["status"], document["cost"], document["result"]["seed"]) == ("Ready", 3.0, 5)
        file = await at.http.get(document["result"]["sample"])
        with Image.open(io.BytesIO(file.content)) as image:
            assert image.size == (512, 256)
        assert "se=" in document["result"]["sample"]


async def test_a_submit_with_webhook_is_answered_in_the_other_shape() -> None:
    async with scene() as at:
        replies = [(await at.bfl(hook=str(number))).json() for number in range(20)]
        assert all(reply["status"] and reply["webhook_url"] for reply in replies)
        assert {"polling_url" in reply for reply in replies} == {True, False}
        assert None in {reply["cost"] for reply in replies}


async def test_an_unknown_task_is_404_in_bfls_own_words() -> None:
    async with scene() as at:
        reply = await at.http.get("/bfl/v1/get_result", params={"id": "nobody"}, headers=BFL)
        assert (reply.status_code, reply.json()) == (
            404, {"id": "nobody", "status": "Task not found", "result": None}
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "where", "kind"),
    [
        ({"width": 63}, "width", "greater_than_equal"),
        ({"safety_tolerance": 7}, "safety_tolerance", "less_than_equal"),
        ({"seed": "x"}, "seed", "int_type"),
        ({"height": 64.5}, "height", "int_from_float"),
        ({"output_format": "bmp"}, "output_format", "enum"),
        ({"prompt": 1}, "prompt", "string_type"),
        ({"webhook_url": "ftp://x"}, "webhook_url", "url_parsing"),
        ({"webhook_url": "http://x/" + "a" * 2100}, "webhook_url", "url_too_long"),
    ],
)
async def test_bad_input_is_a_422_that_names_the_field(given: dict[str, Any], where: str, kind: str) -> None:
    async with scene() as at:
        reply = await at.bfl(hook=None, **given)
        assert reply.status_code == 422
        assert [(error["loc"], error["type"]) for error in reply.json()["detail"]] == [
            (["body", where], kind)
        ]
        assert (at.stat("bfl", "requests", "accepted"), at.stat("bfl", "requests", "refused")) == (0, 1)


async def test_closed_endpoints_refuse_a_webhook_and_unknown_ones_do_not_exist() -> None:
    async with scene() as at:
        refused = await at.bfl(model="flux-tools/outpainting-v1")
        assert refused.json()["detail"][0]["type"] == "extra_forbidden"
        assert (await at.bfl(model="flux-tools/erase-v1")).status_code == 200
        assert (await at.bfl(model="flux-2-klein-9b-kv-finetuned")).status_code == 200
        assert (await at.bfl(model="flux-2-dev")).status_code == 404
        for body in (b"{", b"[]", b'{"prompt":"a","seed":NaN}'):
            reply = await at.http.post("/bfl/v1/flux-2-pro", content=body, headers=BFL)
            assert reply.status_code == 422


async def test_a_missing_key_is_403_and_a_malformed_one_422() -> None:
    async with scene() as at:
        for path, method in (("get_result?id=x", "GET"), ("credits", "GET"), ("flux-2-pro", "POST")):
            url = f"/bfl/v1/{path}"
            assert (await at.http.request(method, url, json={})).status_code == 403
            reply = await at.http.request(method, url, json={}, headers={"x-key": "not a key"})
            assert (reply.status_code, reply.json()) == (422, {"detail": "Invalid API key format"})


async def test_more_active_tasks_than_allowed_are_429_until_one_ends() -> None:
    async with scene("run_ms=1500") as at:
        codes = [(await at.bfl(hook=None, model="flux-kontext-max")).status_code for _ in range(7)]
        assert codes == [200] * 6 + [429]
        codes = [(await at.bfl(hook=None)).status_code for _ in range(19)]
        assert codes == [200] * 18 + [429]
        await at.quiet()
        assert (await at.bfl(hook=None)).status_code == 200


async def test_credits_go_down_by_what_was_settled() -> None:
    async with scene() as at:
        before = (await at.http.get("/bfl/v1/credits", headers=BFL)).json()["credits"]
        await at.bfl(model="flux-2-max", input_image="u")
        after = (await at.http.get("/bfl/v1/credits", headers=BFL)).json()["credits"]
        assert round(before - after, 4) == 10.0


async def all_forms(at: Scene, number: int = 40) -> Counter[tuple[str, str]]:
    for token in range(number):
        assert (await at.bfl(hook=str(token))).status_code == 200
    await at.quiet()
    return Counter(form(callback) for callback in at.receiver.callbacks)


async def test_callbacks_come_in_every_form_that_was_documented_or_seen() -> None:
    async with scene("bfl_active_limit=1000") as at:
        seen = await all_forms(at)
        assert set(seen) == {
            ("secret", "Ready"), ("secret", "SUCCESS"), ("hmac", "Ready"), ("none", "Ready"), ("secret", "processing"),
        }  # fmt: skip
        assert sum(seen.values()) - seen["secret", "processing"] == 40
        for callback in at.receiver.callbacks:
            assert ("task_id" in callback.body) == (callback.body["status"] in ("SUCCESS", "processing"))


@pytest.mark.parametrize(
    ("dial", "expected"),
    [("secret", ("secret", "Ready")), ("hmac", ("hmac", "Ready")), ("none", ("none", "Ready"))],
)
async def test_the_form_can_be_fixed_by_a_dial(dial: str, expected: tuple[str, str]) -> None:
    async with scene(f"bfl_auth={dial}") as at:
        assert await all_forms(at, 5) == {expected: 5}


async def test_moderated_and_failed_tasks_say_so_in_polls_and_callbacks() -> None:
    async with scene("moderate=1,bfl_active_limit=1000") as at:
        words = {status for _, status in await all_forms(at)} - {"processing"}
        assert words == {"Request Moderated", "Content Moderated", "GENERATED CONTENT MODERATED"}
        polled = await at.poll_bfl(at.simulator.requests("bfl")[0]["id"])
        assert ("Moderated" in polled["status"], "Moderation Reasons" in polled["details"], polled["cost"]) == (
            True, True, 0.0
        )  # fmt: skip
    async with scene("fail=1,bfl_active_limit=1000") as at:
        assert {status for _, status in await all_forms(at)} - {"processing"} == {"Error", "Failed"}


async def test_a_null_payload_is_ready_without_a_result_until_it_is_polled() -> None:
    async with scene("null_payload=1,bfl_auth=secret") as at:
        task = (await at.bfl()).json()["id"]
        await at.quiet()
        assert [(c.body["status"], c.body["result"]) for c in at.receiver.callbacks] == [("Ready", None)]
        assert (await at.poll_bfl(task))["result"]["sample"]


async def test_forgeries_prove_nothing_and_the_true_callbacks_still_come() -> None:
    async with scene("forge=1,bfl_auth=secret,bfl_active_limit=1000") as at:
        seen = await all_forms(at, 20)
        assert set(seen) == {("secret", "Ready"), ("false", "Ready"), ("none", "Ready")}
        assert (seen["secret", "Ready"], sum(seen.values())) == (20, 40)
        assert set(at.stat("bfl", "callbacks", "forged_by")) == {
            "wrong_secret",
            "wrong_signature",
            "no_header",
        }


async def test_an_expired_url_is_dead_and_some_come_back_when_asked_again() -> None:
    async with scene("expire_url=1") as at:
        codes = []
        for _ in range(8):
            task = (await at.bfl(hook=None)).json()["id"]
            await at.quiet()
            urls = [(await at.poll_bfl(task))["result"]["sample"] for _ in range(2)]
            codes.append(tuple([(await at.http.get(url)).status_code for url in urls]))
        assert set(codes) == {(403, 200), (403, 403)}


async def test_a_result_url_cannot_be_changed() -> None:
    async with scene() as at:
        task = (await at.bfl(hook=None, width=512, height=512)).json()["id"]
        await at.quiet()
        url = (await at.poll_bfl(task))["result"]["sample"]
        assert (await at.http.get(url)).status_code == 200
        for bad in (url.replace("512x512", "64x64"), url.replace("se=2", "se=3"), url.split("?")[0]):
            assert (await at.http.get(bad)).status_code == 403


async def test_a_callback_is_given_up_after_four_refusals() -> None:
    async with scene("bfl_auth=hmac,retry_scale=0.001") as at:
        at.receiver.answer = lambda number: 500
        await at.bfl()
        await at.quiet()
        assert (len(at.receiver.callbacks), at.stat("bfl", "callbacks", "given_up")) == (4, 1)
