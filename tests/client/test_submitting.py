"""Submitting through faults: one key, one job, and errors that say what happened."""

import json
import math
import ssl
from typing import Any

import httpx
import pytest
import respx

from service.client import (
    Conflict,
    FieldError,
    Fluxgate,
    FluxgateError,
    Forbidden,
    IdempotencyMismatch,
    InvalidInput,
    NotSendable,
    ProblemAnswered,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
)
from tests.client.scene import BASE, JOB_ID, KEY, Machine, gate, job, problem

pytestmark = pytest.mark.anyio
JOBS = f"{BASE}/v1/jobs"
ASKED: dict[str, Any] = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}


def keys(route: respx.Route) -> list[str]:
    return [call.request.headers["idempotency-key"] for call in route.calls]


@respx.mock
async def test_a_job_is_sent_as_given_with_the_key_of_the_caller() -> None:
    route = respx.post(JOBS).respond(202, json=job())
    async with gate(Machine()) as client:
        seed = 15860307465884635512_000
        made = await client.submit(
            **{**ASKED, "input": {"prompt": "ein Füchslein", "seed": seed}},
            deadline_s=60,
            metadata={"order": "7"},
            archive=False,
            idempotency_key="order 7",
        )
    (call,) = route.calls
    assert call.request.headers["authorization"] == f"Bearer {KEY}"
    assert call.request.headers["content-type"] == "application/json"
    assert json.loads(call.request.content) == {
        "provider": "fal",
        "model": "fal-ai/flux-2",
        "input": {"prompt": "ein Füchslein", "seed": seed},
        "deadline_s": 60,
        "metadata": {"order": "7"},
        "archive": False,
    }
    assert keys(route) == ["order 7"]
    assert (made.id, made.state, made.idempotency_key, made.replayed) == (
        JOB_ID,
        "accepted",
        "order 7",
        False,
    )


LOST_ANSWERS = [
    httpx.ReadTimeout("no answer"),
    httpx.ConnectError("refused"),
    httpx.RemoteProtocolError("the peer closed the connection"),
    httpx.WriteError("broken pipe"),
    problem(503, "unavailable"),
    httpx.Response(502, text="<html>bad gateway</html>"),
    httpx.Response(504),
    problem(429, "rate_limited"),
]


@respx.mock
@pytest.mark.parametrize("lost", LOST_ANSWERS, ids=str)
async def test_a_lost_answer_is_asked_for_again_under_the_same_key(lost: Any) -> None:
    machine = Machine()
    replayed = httpx.Response(200, json=job("queued"), headers={"Idempotent-Replayed": "true"})
    route = respx.post(JOBS).mock(side_effect=[lost, lost, replayed])
    async with gate(machine) as client:
        made = await client.submit(**ASKED)
    assert keys(route) == ["made-key"] * 3
    assert len({call.request.content for call in route.calls}) == 1
    assert (made.replayed, made.idempotency_key, made.state) == (True, "made-key", "queued")
    assert machine.naps == [pytest.approx(0.15), pytest.approx(0.3)]


@respx.mock
async def test_retry_after_is_kept_to() -> None:
    machine = Machine()
    dated = {"Retry-After": "Fri, 20 Nov 2026 12:00:09 GMT", "Date": "Fri, 20 Nov 2026 12:00:00 GMT"}
    answers = [
        problem(503, "unavailable", headers={"Retry-After": "7"}),
        problem(429, "rate_limited", headers=dated),
        problem(503, "unavailable", headers={"Retry-After": "soon"}),
        httpx.Response(202, json=job()),
    ]
    respx.post(JOBS).mock(side_effect=answers)
    async with gate(machine) as client:
        await client.submit(**ASKED)
    assert machine.naps == [7, 9, pytest.approx(0.6)]


@respx.mock
async def test_who_is_asked_to_wait_longer_than_he_is_patient_hears_it_at_once() -> None:
    machine = Machine()
    respx.post(JOBS).mock(return_value=problem(429, "rate_limited", headers={"Retry-After": "61"}))
    async with gate(machine) as client:
        with pytest.raises(RateLimited) as caught:
            await client.submit(**ASKED)
    assert machine.naps == []
    assert (caught.value.retry_after_s, caught.value.retryable) == (61, True)
    assert caught.value.idempotency_key == "made-key"


@respx.mock
async def test_patience_ends_and_the_error_carries_the_key_to_go_on_with() -> None:
    machine = Machine()
    route = respx.post(JOBS).mock(side_effect=httpx.ConnectError("refused"))
    async with gate(machine, retry_for_s=20) as client:
        with pytest.raises(Unreachable, match="refused") as caught:
            await client.submit(**ASKED, idempotency_key="mine")
    assert caught.value.idempotency_key == "mine"
    assert caught.value.retryable
    assert 15 < sum(machine.naps) <= 20
    assert set(keys(route)) == {"mine"}
    assert max(machine.naps) <= 5


@respx.mock
async def test_without_patience_a_call_is_sent_once() -> None:
    route = respx.post(JOBS).mock(return_value=problem(503, "unavailable"))
    async with gate(Machine(), retry_for_s=0) as client:
        with pytest.raises(Unavailable) as caught:
            await client.submit(**ASKED)
    assert (route.call_count, caught.value.status, caught.value.code) == (1, 503, "unavailable")


async def test_a_certificate_that_nobody_trusts_is_not_tried_again() -> None:
    machine = Machine()

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(
            "certificate verify failed", request=request
        ) from ssl.SSLCertVerificationError()

    http = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    async with http, gate(machine, http=http) as client:
        with pytest.raises(Unreachable, match="certificate"):
            await client.submit(**ASKED)
    assert machine.naps == []


REFUSALS = [
    (401, "unauthenticated", Unauthenticated),
    (403, "forbidden", Forbidden),
    (409, "conflict", Conflict),
    (409, "idempotency_mismatch", IdempotencyMismatch),
    (413, "too_large", InvalidInput),
    (422, "invalid_input", InvalidInput),
    (418, "a code of a later release", ProblemAnswered),
    (500, "internal", Unavailable),
]


@respx.mock
@pytest.mark.parametrize(("status", "code", "kind"), REFUSALS)
async def test_a_refusal_is_raised_at_once_as_its_own_kind(
    status: int, code: str, kind: type[ProblemAnswered]
) -> None:
    machine = Machine()
    wrong = [{"path": "input.num_images", "message": "must be at most 4"}]
    route = respx.post(JOBS).mock(return_value=problem(status, code, errors=wrong))
    async with gate(machine) as client:
        with pytest.raises(ProblemAnswered, match=r"input\.num_images must be at most 4") as caught:
            await client.submit(**ASKED)
    error = caught.value
    assert type(error) is kind
    assert (route.call_count, machine.naps) == (1, [])
    assert (error.status, error.code, error.title, error.detail) == (status, code, "No", "no")
    assert error.errors == (FieldError(path="input.num_images", message="must be at most 4"),)
    assert (error.request_id, error.idempotency_key) == ("req_1", "made-key")
    assert KEY not in f"{error!r} {error}"


@respx.mock
async def test_a_page_of_a_proxy_is_a_problem_without_a_code() -> None:
    answer = httpx.Response(403, html="<h1>Go\n away</h1>", headers={"X-Request-Id": "proxy-1"})
    respx.post(JOBS).mock(return_value=answer)
    async with gate(Machine()) as client:
        with pytest.raises(Forbidden, match="<h1>Go away</h1>") as caught:
            await client.submit(**ASKED)
    assert (caught.value.code, caught.value.errors, caught.value.request_id) == ("", (), "proxy-1")


GARBAGE = [
    httpx.Response(202, text="<html>welcome to the hotel</html>"),
    httpx.Response(202, content=b'{"id":"job_1"'),
    httpx.Response(202, json=["job_1"]),
    httpx.Response(202, json={"id": 7, "state": "accepted"}),
    httpx.Response(200, content=b"\xff\xfe"),
    httpx.Response(204),
    httpx.Response(301, headers={"Location": "https://elsewhere.example/v1/jobs"}),
    httpx.Response(202, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip")),
]


@respx.mock
@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
async def test_an_answer_that_is_not_of_this_api_is_named_so_and_carries_the_key(
    answer: httpx.Response,
) -> None:
    route = respx.post(JOBS).mock(return_value=answer)
    async with gate(Machine()) as client:
        with pytest.raises(UnexpectedAnswer) as caught:
            await client.submit(**ASKED)
    assert caught.value.idempotency_key == "made-key"
    assert route.call_count == 1


@respx.mock
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, object(), b"bytes", "\ud800"],
    ids=["nan", "inf", "object", "bytes", "surrogate"],
)
async def test_what_is_no_json_is_not_sent(value: object) -> None:
    route = respx.post(JOBS)
    async with gate(Machine()) as client:
        with pytest.raises(NotSendable) as caught:
            await client.submit(model="m", input={"x": value})
    assert (route.call_count, caught.value.idempotency_key) == (0, "made-key")


@pytest.mark.parametrize("key", ["", "x" * 256, "naïve", "a\nb"])
async def test_a_key_that_cannot_stand_in_a_header_is_not_sent(key: str) -> None:
    async with gate(Machine()) as client:
        with pytest.raises(NotSendable, match="idempotency_key"):
            await client.submit(**ASKED, idempotency_key=key)


@pytest.mark.parametrize(
    ("url", "key", "named"),
    [
        ("gate.example", KEY, "base_url"),
        ("ftp://gate.example", KEY, "base_url"),
        ("https://", KEY, "base_url"),
        ("https://gate.example?x=1", KEY, "base_url"),
        ("https://gate.example", "", "api_key"),
        ("https://gate.example", "two words", "api_key"),
        ("https://gate.example", "a\nb", "api_key"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(url: str, key: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Fluxgate(url, key)


async def test_a_client_does_not_show_its_key() -> None:
    async with gate(Machine()) as client:
        assert repr(client) == "Fluxgate('https://gate.example')"
        assert KEY not in repr(vars(client))


@respx.mock
async def test_a_client_that_was_brought_along_is_used_and_left_open() -> None:
    respx.post(JOBS).respond(202, json=job())
    async with httpx.AsyncClient(follow_redirects=True) as http:
        async with gate(Machine(), http=http) as client:
            await client.submit(**ASKED)
        assert not http.is_closed


@respx.mock
async def test_a_cancellation_whose_answer_was_lost_is_still_ours() -> None:
    cancel = respx.post(f"{JOBS}/{JOB_ID}/cancel").mock(
        side_effect=[httpx.ReadTimeout("no answer"), problem(409, "conflict")]
    )
    respx.get(f"{JOBS}/{JOB_ID}").respond(200, json=job("canceled"))
    async with gate(Machine()) as client:
        assert (await client.cancel(JOB_ID)).state == "canceled"
        cancel.mock(side_effect=None, return_value=problem(409, "conflict"))
        with pytest.raises(Conflict):
            await client.cancel(JOB_ID)
    assert issubclass(Conflict, FluxgateError)


@respx.mock
async def test_an_id_cannot_lead_to_another_path() -> None:
    route = respx.get(url__regex=rf"{JOBS}/.*").mock(return_value=problem(404, "not_found"))
    async with gate(Machine()) as client:
        with pytest.raises(ProblemAnswered):
            await client.get("../keys?x=1")
    assert route.calls.last.request.url.raw_path == b"/v1/jobs/..%2Fkeys%3Fx%3D1"
