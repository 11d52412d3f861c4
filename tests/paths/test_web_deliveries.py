"""Deliveries over HTTP: what was sent, with every attempt, found by what they belong to, and sent again by hand."""

from typing import Any

import httpx
import pytest

from service.domain.endpoint import SCHEDULE_MS, Tried
from service.flows import deliveries
from service.flows.conclude import Conclude
from service.flows.fan_out import fan_out
from tests.paths.test_web_endpoints import all_pruned, made
from tests.paths.visitors import BFL_JOB, House, paths_of, problem, submit

Shown = dict[str, Any]


async def listed(visitor: httpx.AsyncClient, **filters: Any) -> list[Shown]:
    response = await visitor.get("/v1/deliveries", params=filters)
    assert response.status_code == 200, response.text
    found: list[Shown] = response.json()["data"]
    return found


async def handed_out(house: House, visitor: httpx.AsyncClient) -> list[Shown]:
    """Hand out what is in the stream, and list the deliveries, oldest first."""
    await fan_out(house.service.runtime)
    return (await listed(visitor))[::-1]


async def tried(house: House, delivery_id: str, *, times: int = 1, **told: Any) -> None:
    """Record attempts as if they had been made."""
    conclude = Conclude(house.service.runtime)
    for number in range(times):
        whole = await deliveries.one(house.service.runtime, tenant="default", delivery_id=delivery_id)
        outcome = Tried(at_ms=house.service.runtime.now_ms() + number, **{"took_ms": 12, **told})
        assert await conclude(whole.delivery, outcome) is not None


async def dead(house: House, delivery_id: str) -> None:
    """Let every attempt of a delivery fail; its endpoint is paused then."""
    await tried(house, delivery_id, times=len(SCHEDULE_MS), status=500)


async def test_a_delivery_names_its_event_its_job_and_its_endpoint(house: House) -> None:
    visitor = await house.visitor()
    endpoint = await made(visitor)
    job_id = await submit(visitor)
    (shown,) = await handed_out(house, visitor)
    (event,) = (await visitor.get("/v1/events")).json()["data"]
    assert shown == {
        "id": shown["id"],
        "object": "delivery",
        "endpoint_id": endpoint["id"],
        "event_id": event["id"],
        "event_type": "job.accepted",
        "job_id": job_id,
        "state": "pending",
        "error": None,
        "attempts": [],
        "next_attempt_at": shown["created_at"],
        "created_at": shown["created_at"],
        "completed_at": None,
    }
    assert (await visitor.get(f"/v1/deliveries/{shown['id']}")).json() == shown


async def test_each_attempt_is_there_with_its_status_time_duration_and_answer(house: House) -> None:
    visitor = await house.visitor()
    await made(visitor)
    await submit(visitor)
    (pending,) = await handed_out(house, visitor)
    await tried(house, pending["id"], error="timeout: It gave no answer.")
    await tried(house, pending["id"], status=503, took_ms=40, answer="not <now> ✓")
    await tried(house, pending["id"], status=204)
    shown = (await visitor.get(f"/v1/deliveries/{pending['id']}")).json()
    assert [attempt["number"] for attempt in shown["attempts"]] == [1, 2, 3]
    assert [attempt["status"] for attempt in shown["attempts"]] == [None, 503, 204]
    assert [attempt["duration_ms"] for attempt in shown["attempts"]] == [12, 40, 12]
    assert [attempt["answer"] for attempt in shown["attempts"]] == [None, "not <now> ✓", None]
    assert shown["attempts"][0]["error"] == "timeout: It gave no answer."
    assert (shown["state"], shown["error"], shown["next_attempt_at"]) == ("succeeded", None, None)
    assert shown["completed_at"] >= shown["created_at"]
    assert await listed(visitor) == [shown]


async def test_deliveries_are_found_by_endpoint_state_event_and_job(house: House) -> None:
    visitor = await house.visitor()
    endpoints = [(await made(visitor))["id"] for _ in range(2)]
    jobs = [await submit(visitor) for _ in range(2)]
    all_four = await handed_out(house, visitor)
    assert len(all_four) == 4
    await tried(house, all_four[0]["id"], status=200)
    for name, values in {
        "endpoint_id": endpoints,
        "job_id": jobs,
        "event_id": sorted({one["event_id"] for one in all_four}),
        "state": ["pending", "succeeded", "dead"],
    }.items():
        parts = {value: await listed(visitor, **{name: value}) for value in values}
        assert all(one[name] == value for value, part in parts.items() for one in part)
        assert sorted(one["id"] for part in parts.values() for one in part) == [one["id"] for one in all_four]
    both = await listed(visitor, endpoint_id=endpoints[0], job_id=jobs[1])
    assert [(one["endpoint_id"], one["job_id"]) for one in both] == [(endpoints[0], jobs[1])]
    assert await listed(visitor, endpoint_id="ep_0") == []


async def test_deliveries_are_listed_newest_first_and_page_by_page(house: House) -> None:
    visitor = await house.visitor()
    await made(visitor)
    for _ in range(5):
        await submit(visitor)
    ids = [one["id"] for one in await handed_out(house, visitor)]
    seen, after = [], None
    while True:
        params = {"limit": 2, **({"cursor": after} if after else {})}
        page = (await visitor.get("/v1/deliveries", params=params)).json()
        seen += [one["id"] for one in page["data"]]
        after = page["next_cursor"]
        if after is None:
            break
    assert seen == sorted(ids, reverse=True)
    assert len(seen) == 5


WRONG_QUESTIONS = [
    ("state=failed", "state"),
    ("state=pending,dead", "state"),
    ("endpoint_id=evt_1", "endpoint_id"),
    ("event_id=", "event_id"),
    ("job_id=job_%00", "job_id"),
    ("endpoint=ep_1", "endpoint"),
    ("cursor=ZXZlbnRzOjA", "cursor"),
    ("limit=0", "limit"),
]


async def test_a_wrong_question_is_refused_by_its_name(house: House) -> None:
    visitor = await house.visitor()
    for query, path in WRONG_QUESTIONS:
        assert paths_of(problem(await visitor.get(f"/v1/deliveries?{query}"), 422, "invalid_input")) == [path]


@pytest.mark.parametrize("ended", ["succeeded", "dead", "pending"])
async def test_a_delivery_is_made_due_again_by_hand_and_keeps_its_attempts(house: House, ended: str) -> None:
    visitor = await house.visitor()
    await made(visitor)
    await submit(visitor)
    (delivery,) = await handed_out(house, visitor)
    if ended == "dead":
        await dead(house, delivery["id"])
    else:
        await tried(house, delivery["id"], status=200 if ended == "succeeded" else 500)
    before = (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert before["state"] == ended
    response = await visitor.post(f"/v1/deliveries/{delivery['id']}/retry")
    assert response.status_code == 202
    after = response.json()
    assert (after["state"], after["completed_at"]) == ("pending", None)
    assert after["attempts"] == before["attempts"] != []
    assert before["next_attempt_at"] is None or after["next_attempt_at"] < before["next_attempt_at"]
    assert (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json() == after


async def test_nothing_is_sent_again_to_a_disabled_endpoint(house: House) -> None:
    visitor = await house.visitor()
    endpoint = await made(visitor)
    await submit(visitor)
    (delivery,) = await handed_out(house, visitor)
    await visitor.patch(f"/v1/endpoints/{endpoint['id']}", json={"state": "disabled"})
    buried = (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert (buried["state"], buried["attempts"]) == ("dead", [])
    assert "disabled" in buried["error"]
    url = f"/v1/deliveries/{delivery['id']}/retry"
    problem(await visitor.post(url), 409, "conflict")
    assert (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json() == buried
    await visitor.patch(f"/v1/endpoints/{endpoint['id']}", json={"state": "active"})
    assert (await visitor.post(url)).status_code == 202


async def test_a_delivery_whose_event_is_no_longer_kept_is_not_retried(house: House) -> None:
    visitor = await house.visitor()
    await made(visitor)
    await submit(visitor)
    (delivery,) = await handed_out(house, visitor)
    await tried(house, delivery["id"], status=200)
    before = (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json()
    await all_pruned(house)
    problem(await visitor.post(f"/v1/deliveries/{delivery['id']}/retry"), 409, "conflict")
    assert (await visitor.get(f"/v1/deliveries/{delivery['id']}")).json() == before


async def test_a_retry_refuses_fields(house: House) -> None:
    visitor = await house.visitor()
    await made(visitor)
    await submit(visitor)
    (delivery,) = await handed_out(house, visitor)
    url = f"/v1/deliveries/{delivery['id']}/retry"
    assert paths_of(problem(await visitor.post(url, json={"now": 1}), 422, "invalid_input")) == ["now"]
    problem(await visitor.post(url, content=b"x=1"), 415, "unsupported_media_type")
    assert await listed(visitor) == [delivery]


async def test_another_tenants_delivery_does_not_exist(house: House) -> None:
    ours, theirs = await house.visitor(), await house.visitor(tenant="other")
    endpoint = await made(ours)
    await submit(ours)
    (delivery,) = await handed_out(house, ours)
    problem(await theirs.get(f"/v1/deliveries/{delivery['id']}"), 404, "not_found")
    problem(await theirs.post(f"/v1/deliveries/{delivery['id']}/retry"), 404, "not_found")
    assert await listed(theirs) == []
    assert await listed(theirs, endpoint_id=endpoint["id"]) == []
    assert await listed(ours) == [delivery]


async def test_what_can_be_no_id_is_not_found(house: House) -> None:
    visitor = await house.visitor()
    for strange in ("dlv_%00", "dlv_", "ep_0", "dlv_" + "0" * 5_000, "dlv_0%27", "%20", "dlv_Ω"):
        problem(await visitor.get(f"/v1/deliveries/{strange}"), 404, "not_found")
        problem(await visitor.post(f"/v1/deliveries/{strange}/retry"), 404, "not_found")
        problem(await visitor.get(f"/v1/endpoints/{strange.replace('dlv', 'ep')[:5]}"), 404, "not_found")


async def test_a_jobs_own_url_is_no_endpoint_of_the_list_but_its_deliveries_are_listed(house: House) -> None:
    visitor = await house.visitor()
    url = "https://93.184.215.14/mine"
    named = await submit(visitor, BFL_JOB, webhook_url=url)
    await submit(visitor)
    (delivery,) = await handed_out(house, visitor)
    assert delivery["job_id"] == named
    assert (await visitor.get("/v1/endpoints")).json()["data"] == []
    problem(await visitor.get(f"/v1/endpoints/{delivery['endpoint_id']}"), 404, "not_found")
    await tried(house, delivery["id"], status=200)
    assert (await visitor.post(f"/v1/deliveries/{delivery['id']}/retry")).status_code == 202
