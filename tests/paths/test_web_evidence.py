"""Callbacks in over HTTP, and what auditors read of them afterwards."""

import hashlib
import json
from typing import Any

import httpx
import pytest

from tests.paths.test_web_reads import walked
from tests.paths.visitors import House, problem, submit

READY = {
    "id": "task-1",
    "status": "Ready",
    "result": {"sample": "https://delivery-eu1.bfl.ai/a.png", "seed": 15860307465884635512},
}


class Sender:
    """BFL, calling back for one job that it took."""

    def __init__(self, house: House, job_id: str, url: str, secret: str) -> None:
        self.job_id = job_id
        self.url = url
        self._client = house.stranger()
        self._secret = secret

    async def call(
        self, body: bytes | None = None, *, headers: dict[Any, Any] | None = None, secret: str | None = None
    ) -> httpx.Response:
        content = json.dumps(READY).encode() if body is None else body
        proof = {"X-Webhook-Secret": self._secret if secret is None else secret}
        return await self._client.post(
            self.url, content=content, headers=[*proof.items(), *(headers or {}).items()]
        )


@pytest.fixture
async def sender(house: House) -> Sender:
    job_id = await submit(await house.visitor())
    attempt = await house.sent(job_id, "task-1")
    keys = house.service.runtime.keys
    token = keys.token(attempt.secret_key_id, attempt.id)
    secret = keys.webhook_secret(attempt.secret_key_id, attempt.id)
    assert token is not None
    assert secret is not None
    return Sender(house, job_id, f"/callbacks/bfl/{token}", secret)


async def test_a_genuine_callback_is_kept_believed_and_answered(house: House, sender: Sender) -> None:
    response = await sender.call()
    assert (response.status_code, response.json()) == (200, {"received": True})
    assert response.headers["x-request-id"]
    visitor = await house.visitor()
    job = (await visitor.get(f"/v1/jobs/{sender.job_id}")).json()
    assert (job["state"], job["learned_by"], job["output"]["seed"]) == (
        "succeeded",
        "callback",
        "15860307465884635512",
    )


async def test_a_forged_callback_is_refused_kept_and_moves_nothing(house: House, sender: Sender) -> None:
    document = problem(await sender.call(secret="guessed"), 401, "unauthenticated")
    assert document["errors"] == []
    visitor = await house.visitor()
    assert (await visitor.get(f"/v1/jobs/{sender.job_id}")).json()["state"] == "queued"
    kept = (await visitor.get(f"/v1/jobs/{sender.job_id}/callbacks")).json()["data"]
    assert [(one["verdict"], one["status"]) for one in kept] == [("forged", 401)]
    last = (await visitor.get(f"/v1/jobs/{sender.job_id}/history")).json()["data"][-1]
    assert (last["type"], last["moved"], last["cause"]) == (
        "callback.not_used",
        False,
        f"callback:{kept[0]['id']}",
    )


async def test_what_came_can_be_read_again_byte_for_byte(house: House, sender: Sender) -> None:
    body = b'{"id": "task-1",\n "status":"Ready" , "result":{"sample":"https://delivery-eu1.bfl.ai/a.png"}}'
    await sender.call(body, headers={"X-Strange": b"caf\xe9", "Content-Type": "text/html"})
    auditor = await house.visitor(scopes=["audit:read"])
    kept = (await auditor.get(f"/v1/jobs/{sender.job_id}/callbacks")).json()["data"][0]
    assert set(kept) == {
        "id",
        "attempt_id",
        "received_at",
        "verdict",
        "status",
        "key_id",
        "body_sha256",
        "headers",
    }
    assert kept["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert kept["headers"]["x-strange"] == "café"
    assert kept["headers"]["x-webhook-secret"].startswith("sha256:")
    raw = await auditor.get(f"/v1/jobs/{sender.job_id}/callbacks/{kept['id']}/body")
    assert raw.content == body
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["content-disposition"] == "attachment"
    assert "sandbox" in raw.headers["content-security-policy"]
    problem(await auditor.get(f"/v1/jobs/{sender.job_id}/callbacks/cb_0/body"), 404, "not_found")


async def test_malformed_bytes_are_refused_and_kept(house: House, sender: Sender) -> None:
    problem(await sender.call(b"\xff{"), 400, "malformed_callback")
    assert (await house.rows())["callback"] == 1


async def test_two_proofs_at_once_prove_nothing(house: House, sender: Sender) -> None:
    response = await sender.call(headers={"x-webhook-secret": "other"})
    assert response.status_code == 401
    assert (await house.job(sender.job_id)).state == "queued"


async def test_an_unknown_token_is_not_found(house: House) -> None:
    rows = await house.rows()
    for url in ("/callbacks/bfl/unknown", "/callbacks/nobody/t", "/callbacks/bfl/%00%ff", "/callbacks/x"):
        problem(await house.stranger().post(url, content=b"{}"), 404, "not_found")
    assert await house.rows() == rows


async def test_a_token_of_one_provider_is_none_of_another(house: House, sender: Sender) -> None:
    response = await house.stranger().post(sender.url.replace("/bfl/", "/fal/"), content=b"{}")
    problem(response, 404, "not_found")


async def test_a_callback_is_never_redirected_and_takes_only_post(house: House, sender: Sender) -> None:
    stranger = house.stranger()
    problem(await stranger.post(sender.url + "/", content=b"{}"), 404, "not_found")
    for method in ("GET", "PUT", "OPTIONS"):
        response = await stranger.request(method, sender.url)
        problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"


async def test_a_callback_above_eight_mebibytes_is_refused_unread(house: House, sender: Sender) -> None:
    problem(await sender.call(b" " * (8 * 1024 * 1024 + 1)), 413, "too_large")
    assert (await house.rows())["callback"] == 0


async def test_a_history_is_walked_line_by_line(house: House, sender: Sender) -> None:
    for _ in range(3):
        await sender.call(secret="guessed")
    visitor = await house.visitor()
    url = f"/v1/jobs/{sender.job_id}/history"
    for limit in (1, 2, 200):
        lines = await walked(visitor, url, limit=limit)
        assert [line["seq"] for line in lines] == list(range(1, 7))
    assert set(lines[0]) == {"seq", "at", "type", "cause", "moved", "from", "to", "detail", "hash"}
    kept = await walked(visitor, f"/v1/jobs/{sender.job_id}/callbacks", limit=2)
    assert len({one["id"] for one in kept}) == 3
