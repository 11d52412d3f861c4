"""What every answer has, and what is said when things go wrong inside."""

import logging
from typing import Any

import pytest

from service.flows import read
from service.storage.database import DatabaseUnavailable
from tests.paths.visitors import BFL_JOB, House, problem, submit


async def test_every_answer_has_a_request_id_and_the_security_headers(house: House) -> None:
    visitor = await house.visitor()
    for url in ("/healthz", "/v1/jobs", "/nowhere", "/docs", "/v1/jobs/job_0", "/openapi.json"):
        response = await visitor.get(url)
        assert response.headers["x-request-id"].startswith("req_")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert len(response.headers.get_list("content-security-policy")) == 1


async def test_a_callers_own_request_id_is_taken_over_when_it_is_safe(house: House) -> None:
    stranger = house.stranger()
    for given in ("a", "order-7/3:x_1.2~@+=", "x" * 128):
        response = await stranger.get("/nowhere", headers={"X-Request-Id": given})
        assert response.headers.get_list("x-request-id") == [given]
        assert response.json()["request_id"] == given


async def test_an_unsafe_request_id_is_replaced(house: House) -> None:
    stranger = house.stranger()
    for given in (b"", b"x" * 129, b"a b", b'"', b"<script>", b"\xff", b"a\x0bb", "é".encode()):
        response = await stranger.get("/healthz", headers=[(b"X-Request-Id", given)])
        assert response.headers["x-request-id"].startswith("req_")


async def test_unknown_paths_and_methods_are_problems(house: House) -> None:
    stranger = house.stranger()
    for url in ("/", "/v1", "/v1/", "/v1/jobs/", "/healthz/", "/v1/jobs/a/b/c", "//v1/jobs", "/favicon.ico"):
        problem(await stranger.get(url), 404, "not_found")
    for method, url, allowed in (
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
        ("PUT", "/v1/jobs/job_0", "GET, HEAD"),
        ("GET", "/v1/jobs/job_0/cancel", "POST"),
        ("BREW", "/healthz", "GET, HEAD"),
    ):
        response = await stranger.request(method, url)
        problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == allowed


async def test_head_is_answered_like_get_without_a_body(house: House) -> None:
    visitor = await house.visitor()
    for url in ("/healthz", "/v1/jobs", "/docs"):
        got, head = await visitor.get(url), await visitor.head(url)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    assert (await visitor.head("/nowhere")).status_code == 404


async def test_an_error_of_our_own_is_logged_and_not_explained(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret is 12345")

    visitor = await house.visitor()
    monkeypatch.setattr(read, "wait_for_job", broken)
    with caplog.at_level(logging.DEBUG):
        response = await visitor.get("/v1/jobs/job_0")
    problem(response, 500, "internal")
    assert "12345" not in response.text
    logged = caplog.text + "".join(capfd.readouterr())
    assert response.headers["x-request-id"] in logged


async def test_without_the_database_callers_and_providers_are_asked_to_come_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    driver = house.service.runtime.door._driver

    def gone(*_: Any) -> Any:
        raise DatabaseUnavailable("the disk said: secret path")

    with monkeypatch.context() as broken:
        broken.setattr(driver, "read", gone)
        broken.setattr(driver, "write", gone)
        answers = [
            await visitor.post("/v1/jobs", json=BFL_JOB),
            await visitor.get(f"/v1/jobs/{job_id}"),
            await visitor.get("/v1/jobs"),
            await visitor.get("/v1/events"),
            await visitor.post(f"/v1/jobs/{job_id}/cancel"),
            await house.stranger().post("/callbacks/fal/token", content=b"{}"),
            await house.stranger(headers={"Authorization": "Bearer never-seen"}).get("/v1/jobs"),
        ]
        for answer in answers:
            problem(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert "secret path" not in answer.text
        ready = await visitor.get("/readyz")
        assert [error["path"] for error in problem(ready, 503, "unavailable")["errors"]] == ["database"]
        assert (await visitor.get("/healthz")).json() == {"status": "ok"}
        metrics = await visitor.get("/metrics")
        assert "fluxgate_database_up 0.0" in metrics.text
    assert (await visitor.get("/readyz")).json() == {"status": "ready"}
    assert (await visitor.post("/v1/jobs", json=BFL_JOB)).status_code == 202


async def test_the_metrics_count_what_is_there(house: House) -> None:
    visitor = await house.visitor()
    await submit(visitor)
    await house.failed(await submit(visitor))
    response = await visitor.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert "fluxgate_database_up 1.0" in lines
    assert 'fluxgate_jobs_accepted_total{provider="bfl"} 2.0' in lines
    assert 'fluxgate_jobs_open{provider="bfl",state="accepted"} 1.0' in lines
    assert 'fluxgate_work_due{kind="submit"} 1.0' in lines


async def test_a_stopping_service_is_not_ready(house: House) -> None:
    house.service.stop()
    document = problem(await house.stranger().get("/readyz"), 503, "unavailable")
    assert [error["path"] for error in document["errors"]] == ["process"]


async def test_a_websocket_is_turned_away(house: House) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/events", "query_string": b"", "headers": []}
    await house.app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
