"""The fake fal queue: what its callers read, in every state of a request."""

import asyncio
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.simulator.harness import FAL, Scene, scene

pytestmark = pytest.mark.anyio
SEED = 15860307465884635512


async def finished(at: Scene, **given: Any) -> dict[str, Any]:
    reply = await at.fal(hook=None, **given)
    await at.quiet()
    document: dict[str, Any] = reply.json()
    return document


async def result_of(at: Scene, **given: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    reply = await at.http.get((await finished(at, **given))["response_url"], headers=FAL)
    return reply.status_code, reply.json(), dict(reply.headers)


async def test_a_request_goes_from_the_queue_over_work_to_its_result() -> None:
    async with scene("queue_ms=300,run_ms=300") as at:
        submitted = await at.fal(hook=None, model="fal-ai/flux-2/klein/4b/edit", image_urls=["u"])
        reply = submitted.json()
        own = f"{at.simulator.url}/fal-queue/fal-ai/flux-2/requests/{reply['request_id']}"
        assert submitted.headers["x-fal-request-id"] == reply["request_id"]
        assert (reply["response_url"], reply["status_url"], reply["cancel_url"]) == (
            own, f"{own}/status", f"{own}/cancel"
        )  # fmt: skip
        seen = []
        while not seen or seen[-1][0] == 202:
            answer = await at.http.get(reply["status_url"], params={"logs": 1}, headers=FAL)
            document = answer.json()
            assert {"request_id", "status", "logs", "metrics", "queue_position", "response_url"} <= set(
                document
            )
            if not seen or seen[-1] != (answer.status_code, document["status"]):
                seen.append((answer.status_code, document["status"]))
            await asyncio.sleep(0.02)
        assert seen == [(202, "IN_QUEUE"), (202, "IN_PROGRESS"), (200, "COMPLETED")]
        assert document["metrics"] == {"inference_time": 0.3}
        assert [line["message"] for line in document["logs"]] == ["Starting inference", "Finished inference"]


async def test_the_result_is_the_models_bare_body_with_its_files() -> None:
    async with scene() as at:
        size = {"width": 640, "height": 320}
        status, body, headers = await result_of(at, seed=SEED, image_size=size, num_images=2)
        assert (status, body["seed"], len(body["images"])) == (200, SEED, 2)
        assert (headers["x-fal-billable-units"], "x-fal-request-id" in headers) == ("2", True)
        picture = body["images"][1]
        file = await at.http.get(picture["url"])
        with Image.open(io.BytesIO(file.content)) as image:
            assert image.size == (picture["width"], picture["height"]) == (640, 320)
        assert (file.headers["content-type"], len(file.content)) == ("image/png", picture["file_size"])
        assert at.stat("fal", "files", "served") == 1


async def test_invalid_input_is_taken_and_shows_as_422_on_the_result() -> None:
    async with scene() as at:
        done = await finished(at, num_images=9)
        status = await at.http.get(done["status_url"], headers=FAL)
        assert (status.status_code, status.json()["status"], "error" in status.json()) == (
            200,
            "COMPLETED",
            False,
        )
        result = await at.http.get(done["response_url"], headers=FAL)
        assert (result.status_code, result.headers["x-fal-billable-units"]) == (422, "0")
        assert result.json()["detail"][0]["loc"] == ["body", "num_images"]
        assert result.json()["detail"][0]["type"] == "less_than_equal"


async def test_an_unfinished_result_is_400_and_strangers_are_404_and_keyless_calls_401() -> None:
    async with scene("run_ms=60000") as at:
        reply = (await at.fal(hook=None)).json()
        assert (await at.http.get(reply["response_url"], headers=FAL)).status_code == 400
        assert (await at.http.get(reply["status_url"])).status_code == 401
        assert (await at.http.post("/fal-queue/fal-ai/flux-2", json={})).status_code == 401
        for path in (
            "fal-ai/flux-2/requests/nobody",
            f"fal-ai/flux-3/requests/{reply['request_id']}/status",
            "x",
        ):
            assert (await at.http.get(f"/fal-queue/{path}", headers=FAL)).status_code == 404
        assert (await at.http.delete(reply["status_url"], headers=FAL)).status_code == 405
        for body in (b"{", b"[1]", b'{"a":NaN}'):
            url = "/fal-queue/fal-ai/flux-2"
            assert (await at.http.post(url, content=body, headers=FAL)).status_code == 400
        assert at.stat("fal", "requests", "accepted") == 1


@pytest.mark.parametrize("tail", ["", "/response", "/"])
async def test_a_request_is_found_under_the_whole_endpoint_too(tail: str) -> None:
    async with scene() as at:
        done = await finished(at, model="fal-ai/flux-2/turbo")
        path = f"/fal-queue/fal-ai/flux-2/turbo/requests/{done['request_id']}{tail}"
        assert (await at.http.get(path, headers=FAL)).status_code == 200


async def test_a_queued_request_that_is_cancelled_never_runs_nor_calls_back() -> None:
    async with scene("queue_ms=500,run_ms=0") as at:
        reply = (await at.fal()).json()
        cancel = await at.http.put(reply["cancel_url"], headers=FAL)
        assert (cancel.status_code, cancel.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
        await asyncio.sleep(0.6)
        assert (at.receiver.callbacks, at.stat("fal", "requests", "ended")) == ([], 0)
        again = await at.http.put(reply["cancel_url"], headers=FAL)
        assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})
        unknown = await at.http.put("/fal-queue/fal-ai/flux-2/requests/x/cancel", headers=FAL)
        assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})
        status = (await at.http.get(reply["status_url"], headers=FAL)).json()
        assert (status["status"], status["error_type"]) == ("COMPLETED", "client_cancelled")


async def test_a_running_request_may_ignore_its_cancellation() -> None:
    async with scene("run_ms=1000") as at:
        codes = set()
        replies = [(await at.fal(hook=None)).json() for _ in range(8)]
        for reply in replies:
            assert (await at.http.put(reply["cancel_url"], headers=FAL)).status_code == 202
        await at.quiet()
        for reply in replies:
            codes.add((await at.http.get(reply["response_url"], headers=FAL)).status_code)
        assert codes == {200, 499}


async def test_a_start_deadline_that_passes_is_504_and_says_that_it_was_the_users() -> None:
    async with scene("queue_ms=60000") as at:
        status, body, headers = await result_of(at, headers={"X-Fal-Request-Start-Timeout": "0.15"})
        assert (status, body["error_type"], headers["x-fal-request-timeout-type"]) == (
            504,
            "request_timeout",
            "user",
        )


async def test_a_longer_queue_than_allowed_is_429() -> None:
    async with scene("queue_ms=60000") as at:
        url, query = "/fal-queue/fal-ai/flux-2", {"fal_max_queue_length": 1}
        codes = [(await at.http.post(url, params=query, json={}, headers=FAL)).status_code for _ in range(3)]
        assert codes == [200, 200, 429]


async def test_the_status_stream_ends_with_completed() -> None:
    async with scene("queue_ms=300,run_ms=200") as at:
        reply = (await at.fal(hook=None)).json()
        stream = await at.http.get(reply["status_url"] + "/stream", headers=FAL)
        events = [
            json.loads(line[6:])["status"] for line in stream.text.splitlines() if line.startswith("data: ")
        ]
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert [*dict.fromkeys(events)] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


async def test_a_synchronous_run_answers_with_the_result() -> None:
    async with scene("run_ms=50") as at:
        reply = await at.http.post("/fal-run/fal-ai/flux-2", json={"prompt": "x"}, headers=FAL)
        assert (reply.status_code, len(reply.json()["images"])) == (200, 1)
        assert "x-fal-request-id" in reply.headers
        bad = await at.http.post("/fal-run/fal-ai/flux-2", json={}, headers=FAL)
        assert bad.status_code == 422


async def test_every_failure_of_a_model_is_an_error_or_an_empty_result() -> None:
    async with scene("fail=1") as at:
        seen = set()
        for _ in range(30):
            status, body, _ = await result_of(at)
            kind = body.get("error_type") or (body["detail"][0]["type"] if "detail" in body else "no images")
            seen.add((status, kind))
            assert body.get("images", []) == []
        assert {(500, "internal_server_error"), (422, "no_media_generated"), (200, "no images")} <= seen
        assert any(status >= 500 and kind.startswith("runner_") for status, kind in seen)


async def test_moderation_is_a_content_policy_violation() -> None:
    async with scene("moderate=1") as at:
        status, body, _ = await result_of(at)
        assert (status, body["detail"][0]["type"]) == (422, "content_policy_violation")


async def test_an_expired_file_is_gone() -> None:
    async with scene("expire_url=1") as at:
        _, body, _ = await result_of(at)
        assert (await at.http.get(body["images"][0]["url"])).status_code == 404
        assert at.stat("fal", "files", "refused") == 1


async def test_the_listing_shows_ended_requests_only_newest_first_in_pages() -> None:
    async with scene() as at:
        ids = [(await finished(at, seed=number))["request_id"] for number in range(3)]
        at.simulator.set_faults(run_ms=60_000)
        await at.fal(hook=None)
        url = "/fal-api/v1/models/requests/by-endpoint"
        query: dict[str, Any] = {"endpoint_id": "fal-ai/flux-2", "limit": 2, "expand": "payloads"}
        page = (await at.http.get(url, params=query, headers=FAL)).json()
        rest = (await at.http.get(url, params={**query, "cursor": page["next_cursor"]}, headers=FAL)).json()
        assert {item["request_id"] for item in page["items"] + rest["items"]} == set(ids)
        assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
        item = rest["items"][0]
        assert (item["status_code"], item["json_input"]["prompt"], len(item["json_output"]["images"])) == (
            200, "a fox", 1
        )  # fmt: skip
        plain = (await at.http.get(url, params={"endpoint_id": "fal-ai/flux-2"}, headers=FAL)).json()
        assert not any("json_input" in item for item in plain["items"])
        other = await at.http.get(
            url, params={"endpoint_id": "fal-ai/flux-2", "status": "error"}, headers=FAL
        )
        assert other.json()["items"] == []
        for bad in ({}, {"endpoint_id": "a", "limit": 0}, {"endpoint_id": "a", "start": "soon"}):
            assert (await at.http.get(url, params=bad, headers=FAL)).status_code == 400
        assert (await at.http.get(url, params=query)).status_code == 401


async def test_prices_are_listed_for_known_endpoints() -> None:
    async with scene() as at:
        query = {"endpoint_id": "fal-ai/flux-2,fal-ai/nothing"}
        reply = (await at.http.get("/fal-api/v1/models/pricing", params=query, headers=FAL)).json()
        assert reply["prices"] == [
            {"endpoint_id": "fal-ai/flux-2", "unit_price": 0.012, "unit": "megapixels", "currency": "USD"}
        ]
