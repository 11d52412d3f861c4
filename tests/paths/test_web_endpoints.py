"""Endpoints over HTTP: what may be made and changed, what is refused with which path, tests and replays."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.event_types import EVENT_TYPES
from service.flows.fan_out import fan_out, replay
from service.storage import retention
from service.web.app import create_app
from service.wiring import running
from tests.paths.visitors import House, paths_of, problem, settings, submit

#: A public address: nothing is sent there, and no name has to be resolved.
URL = "https://93.184.215.14/hook"
PLAIN: dict[str, Any] = {"url": URL}


async def made(visitor: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Make an endpoint and give it as it was shown, with its secret."""
    response = await visitor.post("/v1/endpoints", json={**PLAIN, **body})
    assert response.status_code == 201, response.text
    shown: dict[str, Any] = response.json()
    return shown


def without_secret(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "secret"}


WRONG_VALUES: list[tuple[dict[str, Any], list[str]]] = [
    ({"url": 7}, ["url"]),
    ({"url": None}, ["url"]),
    ({"url": ""}, ["url"]),
    ({"url": "https://93.184.215.14/" + "x" * 2048}, ["url"]),
    ({"url": "https://93.184.215.14/\0"}, ["url"]),
    ({"types": "job.succeeded"}, ["types"]),
    ({"types": ["job.succeeded", "job.done"]}, ["types.1"]),
    ({"types": [7]}, ["types.0"]),
    ({"types": ["job.failed"] * 50}, ["types"]),
    ({"types": None}, ["types"]),
    ({"description": "d" * 501}, ["description"]),
    ({"description": 7}, ["description"]),
    ({"description": None}, ["description"]),
    ({"format": "xml"}, ["format"]),
    ({"signatures": ["v1a"]}, ["signatures"]),
    ({"signatures": []}, ["signatures"]),
    ({"signatures": ["v1", "v2"]}, ["signatures.1"]),
    ({"signatures": "v1"}, ["signatures"]),
    ({"concurrency": 0}, ["concurrency"]),
    ({"concurrency": 65}, ["concurrency"]),
    ({"concurrency": "4"}, ["concurrency"]),
    ({"concurrency": True}, ["concurrency"]),
    ({"concurrency": None}, ["concurrency"]),
    ({"concurrency": 10**30}, ["concurrency"]),
    ({"rate_per_s": 0}, ["rate_per_s"]),
    ({"rate_per_s": 1001}, ["rate_per_s"]),
    ({"rate_per_s": 1.5}, ["rate_per_s"]),
    ({"secret": "whsec_bXkgb3duIHNlY3JldA=="}, ["secret"]),
    ({"tenant": "other"}, ["tenant"]),
    ({"id": "ep_1", "concurrency": 0, "format": 1}, ["concurrency", "format", "id"]),
]


async def test_a_wrong_value_is_named_and_nothing_is_made(house: House) -> None:
    visitor = await house.visitor()
    rows = await house.rows()
    for body, paths in WRONG_VALUES:
        response = await visitor.post("/v1/endpoints", json={**PLAIN, **body})
        assert sorted(paths_of(problem(response, 422, "invalid_input"))) == paths, body
    for content, paths in (
        (b"{}", ["url"]),
        (b"[]", [""]),
        (b"{", [""]),
        (b'{"state":"active"}', ["state", "url"]),
    ):
        response = await visitor.post(
            "/v1/endpoints", content=content, headers={"Content-Type": "application/json"}
        )
        assert sorted(paths_of(problem(response, 422, "invalid_input"))) == paths
    assert await house.rows() == rows


async def test_a_wrong_change_is_named_and_changes_nothing(house: House) -> None:
    visitor = await house.visitor()
    before = without_secret(await made(visitor))
    url = f"/v1/endpoints/{before['id']}"
    for body, paths in [*WRONG_VALUES, ({"state": "paused"}, ["state"]), ({"state": None}, ["state"])]:
        response = await visitor.patch(url, json=body)
        assert sorted(paths_of(problem(response, 422, "invalid_input"))) == paths, body
    assert (await visitor.get(url)).json() == before


async def test_a_wrong_type_of_event_is_told_which_there_are(house: House) -> None:
    visitor = await house.visitor()
    document = problem(
        await visitor.post("/v1/endpoints", json={**PLAIN, "types": ["x"]}), 422, "invalid_input"
    )
    assert all(word in document["errors"][0]["message"] for word in EVENT_TYPES)


REFUSED_URLS = [
    "http://93.184.215.14/hook",
    "https://127.0.0.1/hook",
    "https://[::1]/hook",
    "https://10.1.2.3/",
    "https://169.254.169.254/latest/meta-data",
    "https://0x7f.1/",
    "https://user:password@93.184.215.14/",
    "ftp://93.184.215.14/",
    "//93.184.215.14/",
    "hook",
]


async def test_a_url_that_egress_refuses_is_neither_made_nor_taken_over(house: House) -> None:
    visitor = await house.visitor()
    before = without_secret(await made(visitor))
    rows = await house.rows()
    for refused in REFUSED_URLS:
        asked = await visitor.post("/v1/endpoints", json={"url": refused})
        changed = await visitor.patch(
            f"/v1/endpoints/{before['id']}", json={"url": refused, "description": "x"}
        )
        for response in (asked, changed):
            document = problem(response, 422, "invalid_input")
            assert paths_of(document) == ["url"]
            assert document["errors"][0]["message"].startswith("must ")
    assert await house.rows() == rows
    assert (await visitor.get(f"/v1/endpoints/{before['id']}")).json() == before


@pytest.fixture
async def allowing(sqlite_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Give a house whose operator lets events go to this machine."""
    allowed = settings(sqlite_url, tmp_path, FLUXGATE_EGRESS_ALLOW="127.0.0.0/8")
    async with running(allowed, work=False) as service:
        house = House(service, create_app(service))
        yield house
        for client in house.clients:
            await client.aclose()


async def test_an_address_that_the_operator_named_may_be_called_even_by_http(allowing: House) -> None:
    visitor = await allowing.visitor()
    assert (await made(visitor, url="http://127.0.0.1:9/hook"))["url"] == "http://127.0.0.1:9/hook"
    problem(await visitor.post("/v1/endpoints", json={"url": "http://10.0.0.1/"}), 422, "invalid_input")


async def test_an_endpoint_has_what_was_asked_and_usual_values_for_the_rest(house: House) -> None:
    visitor = await house.visitor()
    response = await visitor.post("/v1/endpoints", json=PLAIN)
    shown = response.json()
    assert response.headers["location"] == f"/v1/endpoints/{shown['id']}"
    assert shown["id"].startswith("ep_")
    assert {name: shown[name] for name in ("object", "url", "types", "state", "description", "format")} == {
        "object": "endpoint", "url": URL, "types": [], "state": "active", "description": "", "format": "standard",
    }  # fmt: skip
    assert (shown["signatures"], shown["concurrency"], shown["rate_per_s"]) == (["v1"], 16, None)
    asked = {
        "url": URL + "?a=1",
        "types": ["job.failed", "job.succeeded"],
        "description": "Bücher ✓",
        "format": "cloudevents",
        "signatures": ["v1", "v1a"],
        "concurrency": 64,
        "rate_per_s": 1000,
    }
    shown = await made(visitor, **asked)
    assert {name: shown[name] for name in asked} == asked
    assert (await visitor.get(f"/v1/endpoints/{shown['id']}")).json() == without_secret(shown)


async def test_what_is_named_twice_counts_once(house: House) -> None:
    visitor = await house.visitor()
    shown = await made(visitor, types=["job.failed", "job.failed"], signatures=["v1", "v1"])
    assert (shown["types"], shown["signatures"]) == (["job.failed"], ["v1"])


CHANGES: list[dict[str, Any]] = [
    {"url": URL + "/other"},
    {"types": ["job.expired"]},
    {"types": []},
    {"description": "for billing"},
    {"description": ""},
    {"format": "cloudevents"},
    {"signatures": ["v1", "v1a"]},
    {"concurrency": 1, "rate_per_s": 5},
    {"rate_per_s": None},
    {"state": "disabled"},
    {"state": "active"},
    {},
]


async def test_a_change_changes_what_it_names_and_nothing_else(house: House) -> None:
    visitor = await house.visitor()
    now = without_secret(await made(visitor, types=["job.failed"]))
    for body in CHANGES:
        response = await visitor.patch(f"/v1/endpoints/{now['id']}", json=body)
        assert response.status_code == 200, response.text
        after = response.json()
        expected = {**now, **body, "updated_at": after["updated_at"]}
        if "state" in body:
            expected["disabled_reason"] = "operator" if body["state"] == "disabled" else None
        assert after == expected
        assert (await visitor.get(f"/v1/endpoints/{now['id']}")).json() == after
        now = after


async def test_a_deleted_endpoint_is_gone_for_every_call(house: House) -> None:
    visitor = await house.visitor()
    url = f"/v1/endpoints/{(await made(visitor))['id']}"
    response = await visitor.delete(url)
    assert (response.status_code, response.content) == (204, b"")
    await all_not_found(visitor, url)
    assert (await visitor.get("/v1/endpoints")).json() == {"data": [], "next_cursor": None}


async def test_another_tenants_endpoint_does_not_exist(house: House) -> None:
    ours, theirs = await house.visitor(), await house.visitor(tenant="other")
    before = without_secret(await made(ours))
    await all_not_found(theirs, f"/v1/endpoints/{before['id']}")
    assert (await theirs.get("/v1/endpoints")).json()["data"] == []
    assert (await ours.get("/v1/endpoints")).json()["data"] == [before]


async def all_not_found(visitor: httpx.AsyncClient, url: str) -> None:
    problem(await visitor.get(url), 404, "not_found")
    problem(await visitor.patch(url, json={"state": "disabled"}), 404, "not_found")
    problem(await visitor.delete(url), 404, "not_found")
    problem(await visitor.post(f"{url}/rotate-secret"), 404, "not_found")
    problem(await visitor.post(f"{url}/test"), 404, "not_found")
    problem(await visitor.post(f"{url}/replay", json={"after": None}), 404, "not_found")


async def test_endpoints_are_listed_newest_first_and_page_by_page(house: House) -> None:
    visitor = await house.visitor()
    ids = [(await made(visitor, description=str(number)))["id"] for number in range(5)]
    seen, after = [], None
    while True:
        params = {"limit": 2, **({"cursor": after} if after else {})}
        page = (await visitor.get("/v1/endpoints", params=params)).json()
        seen += [endpoint["id"] for endpoint in page["data"]]
        after = page["next_cursor"]
        if after is None:
            break
    assert seen == ids[::-1]
    assert paths_of(problem(await visitor.get("/v1/endpoints?cursor=x"), 422, "invalid_input")) == ["cursor"]


async def test_a_test_event_is_in_the_stream_with_the_endpoint_as_its_data(house: House) -> None:
    visitor = await house.visitor()
    endpoint = without_secret(await made(visitor, types=["job.failed"]))
    response = await visitor.post(f"/v1/endpoints/{endpoint['id']}/test")
    assert response.status_code == 202
    (event,) = (await visitor.get("/v1/events")).json()["data"]
    assert event["id"] == response.json()["event_id"]
    assert (event["type"], event["job_id"], event["job_seq"]) == ("endpoint.test", None, None)
    assert event["data"] == endpoint


async def test_a_disabled_endpoint_is_neither_tested_nor_replayed_to(house: House) -> None:
    visitor = await house.visitor()
    url = f"/v1/endpoints/{(await made(visitor))['id']}"
    await visitor.patch(url, json={"state": "disabled"})
    rows = await house.rows()
    problem(await visitor.post(f"{url}/test"), 409, "conflict")
    problem(await visitor.post(f"{url}/replay", json={"after": None}), 409, "conflict")
    assert await house.rows() == rows


async def test_a_replay_begins_behind_a_cursor_of_the_feed(house: House) -> None:
    visitor = await house.visitor()
    first, second = [f"/v1/endpoints/{(await made(visitor))['id']}" for _ in range(2)]
    await visitor.post(f"{first}/test")
    cursor = (await visitor.get("/v1/events")).json()["next_cursor"]
    for url, after in ((first, None), (second, cursor)):
        response = await visitor.post(f"{url}/replay", json={"after": after})
        assert response.status_code == 202, response.text
        assert f"/v1/endpoints/{response.json()['id']}" == url


async def all_pruned(house: House) -> None:
    """Let the time of everything be over that is in the stream and handed out."""
    await fan_out(house.service.runtime)
    later = house.service.runtime.now_ms() + 1
    await house.service.runtime.door.write(lambda tx: retention.prune_events(tx, before_ms=later, most=100))


async def test_a_replay_from_what_is_no_longer_kept_is_answered_with_the_oldest_cursor(house: House) -> None:
    visitor = await house.visitor()
    url = f"/v1/endpoints/{(await made(visitor, types=['job.failed']))['id']}"
    start = (await visitor.get("/v1/events")).json()["next_cursor"]
    await submit(visitor)
    await all_pruned(house)
    before = (await visitor.get(url)).json()
    response = await visitor.post(f"{url}/replay", json={"after": start})
    document = response.json()
    assert (response.status_code, document["code"]) == (410, "cursor_expired")
    assert (await visitor.get(url)).json() == before
    for after in (document["oldest_cursor"], None):
        assert (await visitor.post(f"{url}/replay", json={"after": after})).status_code == 202
        while (await replay(house.service.runtime)).events:
            pass
    assert (await visitor.get("/v1/deliveries")).json()["data"] == []


async def test_a_replay_without_a_cursor_of_the_feed_is_refused(house: House) -> None:
    visitor = await house.visitor()
    url = f"/v1/endpoints/{(await made(visitor))['id']}"
    before = (await visitor.get(url)).json()
    for body in ({}, {"after": 7}, {"after": ""}, {"after": "x"}, {"after": "am9iczpqb2JfMQ"}):
        response = await visitor.post(f"{url}/replay", json=body)
        assert paths_of(problem(response, 422, "invalid_input")) == ["after"], body
    both = await visitor.post(f"{url}/replay", json={"after": None, "until": None})
    assert paths_of(problem(both, 422, "invalid_input")) == ["until"]
    assert (await visitor.get(url)).json() == before


@pytest.mark.parametrize("call", ["{url}/rotate-secret", "{url}/test", "/v1/job-webhook-secret/rotate"])
async def test_a_call_without_fields_refuses_fields(house: House, call: str) -> None:
    visitor = await house.visitor()
    url = call.format(url=f"/v1/endpoints/{(await made(visitor))['id']}")
    rows = await house.rows()
    assert paths_of(problem(await visitor.post(url, json={"x": 1}), 422, "invalid_input")) == ["x"]
    problem(await visitor.post(url, content=b"x=1"), 415, "unsupported_media_type")
    problem(await visitor.post(url, content=b" " * 100_000), 413, "too_large")
    assert await house.rows() == rows
