"""Who may: every route against every kind of key, and tenants that never see each other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.flows import keys as key_flow
from service.web.app import create_app
from service.web.operations import Operation, Resource
from service.wiring import running
from tests.paths.visitors import ALL_SCOPES, BFL_JOB, House, problem, settings, submit

#: What is open to everybody (contract, section 3): a new route that is open must be named here.
OPEN = {
    ("POST", "/callbacks/{provider}/{token}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/.well-known/webhook-keys/{tenant}"),
}
READ_ENDPOINTS = {
    ("GET", "/v1/endpoints"),
    ("GET", "/v1/endpoints/{endpoint_id}"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/deliveries/{delivery_id}"),
}
READ_EVENTS = {
    ("GET", "/v1/events"),
    ("GET", "/v1/events/stream"),
    ("GET", "/v1/jobs/{job_id}/events/stream"),
}
#: What a key with one scope may call.
GRANTS = {
    "jobs:write": {
        ("POST", "/v1/jobs"),
        ("POST", "/v1/jobs/{job_id}/cancel"),
        ("POST", "/v1/jobs/{job_id}/retry"),
    },
    "jobs:read": {
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/history"),
        ("GET", "/v1/jobs/{job_id}/callbacks"),
        ("GET", "/v1/artifacts/{artifact_id}"),
        ("GET", "/v1/jobs/{job_id}/events/stream"),
    },
    "events:read": READ_ENDPOINTS | READ_EVENTS,
    "endpoints:write": READ_ENDPOINTS
    | {
        ("POST", "/v1/endpoints"),
        ("PATCH", "/v1/endpoints/{endpoint_id}"),
        ("DELETE", "/v1/endpoints/{endpoint_id}"),
        ("POST", "/v1/endpoints/{endpoint_id}/rotate-secret"),
        ("POST", "/v1/endpoints/{endpoint_id}/test"),
        ("POST", "/v1/endpoints/{endpoint_id}/replay"),
        ("POST", "/v1/deliveries/{delivery_id}/retry"),
        ("POST", "/v1/job-webhook-secret/rotate"),
    },
    "audit:read": READ_ENDPOINTS
    | READ_EVENTS
    | {
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/history"),
        ("GET", "/v1/jobs/{job_id}/callbacks"),
        ("GET", "/v1/jobs/{job_id}/callbacks/{callback_id}/body"),
        ("GET", "/v1/artifacts/{artifact_id}"),
    },
    "admin": {("GET", "/metrics")},
}


def served(house: House) -> Iterator[Operation]:
    """Give every call that the application's own routes answer to."""
    for route in house.app.routes:
        resource = route.endpoint
        assert isinstance(resource, Resource), "a route that knows nothing of keys"
        yield from (call for method, call in resource.operations.items() if method == call.method)


def url_of(call: Operation) -> str:
    ids = {
        "job_id": "job_0", "callback_id": "cb_0", "artifact_id": "art_0", "provider": "fal", "token": "t",
        "endpoint_id": "ep_0", "delivery_id": "dlv_0", "tenant": "t",
    }  # fmt: skip
    return call.path.format(**ids)


async def test_every_call_but_the_open_ones_needs_a_key(house: House) -> None:
    stranger = house.stranger()
    shut = set()
    for call in served(house):
        response = await stranger.request(call.method, url_of(call))
        if response.status_code == 401 and (call.method, call.path) not in OPEN:
            assert problem(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"] == 'Bearer realm="fluxgate"'
            shut.add((call.method, call.path))
    assert {(call.method, call.path) for call in served(house)} == shut | OPEN
    assert len(shut) >= 11


async def test_each_scope_opens_its_calls_and_no_others(house: House) -> None:
    seen: dict[str, set[tuple[str, str]]] = {}
    for scope in GRANTS:
        visitor = await house.visitor(scopes=[scope])
        seen[scope] = set()
        for call in served(house):
            if (call.method, call.path) in OPEN:
                continue
            # A stream that lets somebody in goes on without end.
            endless = call.path.endswith("/stream") and scope in call.scopes
            response = await visitor.request("HEAD" if endless else call.method, url_of(call))
            if response.status_code == 403:
                document = problem(response, 403, "forbidden")
                assert all(wanted in document["detail"] for wanted in call.scopes)
                assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
            else:
                assert response.status_code in (200, 404, 422)
                seen[scope].add((call.method, call.path))
    assert seen == GRANTS
    assert set(GRANTS) == ALL_SCOPES


WRONG_KEYS = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer two words",
    b"Basic dXNlcjpwYXNz",
    b"Bearer not-a-key",
    b"Bearer \xff\xfe",
    "Bearer ключ".encode(),
    b"Bearer " + b"k" * 60_000,
    b"bearer\tkey",
]


async def test_a_wrong_key_however_spelled_is_refused(house: House) -> None:
    for value in WRONG_KEYS:
        response = await house.stranger().get("/v1/jobs", headers=[(b"Authorization", value)])
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_two_keys_at_once_are_refused(house: House) -> None:
    visitor = await house.visitor()
    key = visitor.headers["authorization"]
    response = await house.stranger().get(
        "/v1/jobs", headers=[("Authorization", key), ("Authorization", key)]
    )
    problem(response, 401, "unauthenticated")


async def test_the_word_bearer_may_be_spelled_in_any_case(house: House) -> None:
    visitor = await house.visitor()
    key = visitor.headers["authorization"].replace("Bearer", "bEARER ")
    assert (await house.stranger().get("/v1/jobs", headers={"Authorization": key})).status_code == 200


async def test_a_revoked_key_is_refused_within_seconds(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = await house.visitor(scopes=["jobs:read"])
    assert (await visitor.get("/v1/jobs")).status_code == 200
    made = await key_flow.listed(house.service.runtime)
    assert await key_flow.revoke(house.service.runtime, made[-1].id)
    later = house.service.runtime.now_ms() + 6_000
    object.__setattr__(house.service.runtime, "now_ms", lambda: later)
    problem(await visitor.get("/v1/jobs"), 401, "unauthenticated")


async def test_another_tenants_things_do_not_exist(house: House) -> None:
    ours, theirs = await house.visitor(), await house.visitor(tenant="other")
    job_id = await submit(ours)
    await house.failed(job_id)
    rows = await house.rows()
    for call in served(house):
        if "{job_id}" not in call.path:
            continue
        url = call.path.format(job_id=job_id, callback_id="cb_0")
        problem(await theirs.request(call.method, url), 404, "not_found")
    assert await house.rows() == rows
    assert (await theirs.get("/v1/jobs")).json() == {"data": [], "next_cursor": None}
    assert (await theirs.get("/v1/events")).json()["data"] == []
    assert (await ours.get(f"/v1/jobs/{job_id}")).status_code == 200


STRANGE_IDS = [
    "job_%00", "job_%ff", "job_", "cb_0", "job_" + "0" * 5_000, "job_0%27", "job_0%0a", "%20", "job_Ω",
]  # fmt: skip


async def test_what_can_be_no_id_is_not_found(house: House) -> None:
    visitor = await house.visitor()
    for strange in STRANGE_IDS:
        for suffix in ("", "/history", "/callbacks"):
            problem(await visitor.get(f"/v1/jobs/{strange}{suffix}"), 404, "not_found")
        problem(await visitor.post(f"/v1/jobs/{strange}/cancel"), 404, "not_found")
        problem(await visitor.get(f"/v1/artifacts/{strange}"), 404, "not_found")


async def test_the_operator_may_open_the_metrics_to_everybody(sqlite_url: str, tmp_path: Path) -> None:
    opened = settings(sqlite_url, tmp_path, FLUXGATE_METRICS_OPEN="1")
    async with running(opened, work=False) as service:
        house = House(service, create_app(service))
        async with house.stranger() as stranger:
            assert (await stranger.get("/metrics")).status_code == 200
            assert (await stranger.get("/v1/jobs")).status_code == 401


async def test_the_bootstrap_key_may_do_everything(sqlite_url: str, tmp_path: Path) -> None:
    secret = "bootstrap-key-of-24-characters"
    async with running(settings(sqlite_url, tmp_path, FLUXGATE_BOOTSTRAP_KEY=secret), work=False) as service:
        house = House(service, create_app(service))
        async with house.stranger(headers={"Authorization": f"Bearer {secret}"}) as client:
            assert (await client.post("/v1/jobs", json=BFL_JOB)).status_code == 202
            answers = await asyncio.gather(
                *(client.get(url) for url in ("/v1/jobs", "/v1/events", "/metrics"))
            )
            assert [answer.status_code for answer in answers] == [200, 200, 200]
