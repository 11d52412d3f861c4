"""A submit to fal: the request that leaves, and what every answer to it means."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from service.domain.facts import ProviderBlocked, ProviderFailed, SubmitAccepted
from service.domain.failures import ErrorCode
from service.providers.base import MaybeTaken, NotTaken, Refusal, Stage, Trouble
from tests.providers.fal_scene import (
    CALLBACK_URL,
    KEY,
    NOW_MS,
    POLICY,
    REQUEST_ID,
    SEED,
    as_provider,
    drive,
    fal,
    only,
    order,
    reply,
)

TAKEN = reply(200, {"request_id": REQUEST_ID})
OWN_LINK = f"https://queue.fal.run/fal-ai/flux-2/requests/{REQUEST_ID}"
LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up."}


def submitted(answer: Any, **changes: Any) -> Any:
    outcome, calls = drive(as_provider(fal()).submit(order(**changes)), answer)
    assert len(calls) == 1
    return outcome


def test_the_request_that_leaves_carries_the_webhook_as_a_query_parameter_and_the_input_exactly() -> None:
    _, calls = drive(fal().submit(order()), TAKEN)
    call = only(calls)
    url = urlsplit(call.url)
    assert (call.method, call.timeout_s) == ("POST", 30.0)
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://queue.fal.run/fal-ai/flux-2/klein/4b/edit"
    assert parse_qs(url.query) == {"fal_webhook": [CALLBACK_URL]}
    assert json.loads(call.body) == {"prompt": "a cat", "seed": SEED}
    assert call.headers == {
        "Authorization": f"Key {KEY}",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "X-Fal-Queue-Priority": "low",
        "X-Fal-Request-Start-Timeout": "90",
        "X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds":2592000}',
    }


def test_without_a_public_url_no_webhook_is_asked_for() -> None:
    _, calls = drive(fal().submit(order(callback_url=None)), TAKEN)
    assert calls[0].url == "https://queue.fal.run/fal-ai/flux-2/klein/4b/edit"


def test_integers_beyond_64_bits_leave_as_they_came() -> None:
    _, calls = drive(fal().submit(order(input={"seed": 2**80})), TAKEN)
    assert calls[0].body == b'{"seed":1208925819614629174706176}'


def test_the_start_timeout_is_positive_even_when_nothing_is_left() -> None:
    _, calls = drive(fal().submit(order(deadline_ms=NOW_MS - 5_000)), TAKEN)
    assert calls[0].headers["X-Fal-Request-Start-Timeout"] == "1"


@pytest.mark.parametrize("model", ["fal-ai/../flux-2", "flux-2", "a/b?c", "a/b/requests/id/cancel", ""])
def test_a_model_that_is_no_path_is_sent_nowhere(model: str) -> None:
    outcome, calls = drive(fal().submit(order(model=model)))
    assert calls == []
    assert only(outcome).error.code is ErrorCode.PROVIDER_REJECTED


def test_an_accepted_submit_keeps_the_links_that_fal_named() -> None:
    body = {
        "request_id": REQUEST_ID,
        "queue_position": 3,
        "status_url": f"{OWN_LINK}/status",
        "response_url": "https://queue.falrun.com/fal-ai/flux-2/klein/4b/edit/requests/x/response",
        "cancel_url": f"{OWN_LINK}/cancel",
    }
    assert submitted(reply(200, body)) == (
        SubmitAccepted(
            cause="submit",
            attempt_id="att_1",
            provider_request_id=REQUEST_ID,
            links={
                "status": body["status_url"],
                "result": body["response_url"],
                "cancel": body["cancel_url"],
            },
            queue_position=3,
        ),
    )


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    "named",
    [
        None,
        7,
        "",
        "http://queue.fal.run/x",
        "https://queue.fal.run.evil.example/x",
        "https://user@queue.fal.run/x",
        "https://evil.example/x",
    ],
)
def test_links_that_lead_elsewhere_are_built_from_owner_and_app(status: int, named: Any) -> None:
    body = {"request_id": REQUEST_ID, "status_url": named, "response_url": named, "cancel_url": named}
    accepted = only(submitted(reply(status, body)))
    assert accepted.links == {
        "status": f"{OWN_LINK}/status",
        "result": OWN_LINK,
        "cancel": f"{OWN_LINK}/cancel",
    }


def test_namespaces_keep_three_parts_in_built_links() -> None:
    accepted = only(submitted(TAKEN, model="workflows/me/mine/more"))
    assert accepted.links["result"] == f"https://queue.fal.run/workflows/me/mine/requests/{REQUEST_ID}"


@pytest.mark.parametrize("position", [-1, True, "3", 2**40, None])
def test_a_queue_position_that_is_none_is_left_out(position: Any) -> None:
    body = {"request_id": REQUEST_ID, "queue_position": position}
    assert only(submitted(reply(200, body))).queue_position is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        {},
        {"request_id": None},
        {"request_id": 5},
        {"request_id": ""},
        {"request_id": ".."},
    ],
)
def test_a_2xx_without_a_readable_request_id_may_have_been_taken(body: Any) -> None:
    assert submitted(reply(200, body)) == MaybeTaken(
        reason="fal took the submit, but its answer names no request id.", status=200
    )


@pytest.mark.parametrize("status", [100, 301, 302, 307, 308, 408, 499, 500, 501, 502, 503, 504, 529])
def test_what_may_have_been_passed_on_is_uncertain(status: int) -> None:
    outcome = submitted(reply(status, {"detail": "?", "request_id": REQUEST_ID}))
    assert outcome == MaybeTaken(reason=f"fal answered the submit with {status}.", status=status)


def test_only_a_request_that_provably_did_not_leave_may_be_sent_again() -> None:
    unsent = submitted(Trouble(stage=Stage.NOT_SENT, reason="refused"))
    assert unsent == NotTaken(refusal=Refusal.UNREACHABLE, message="refused")
    assert submitted(Trouble(stage=Stage.MAYBE_SENT, reason="reset")) == MaybeTaken(reason="reset")


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (401, {"detail": "bad key"}, Refusal.AUTHENTICATION),
        (401, b"<html>", Refusal.AUTHENTICATION),
        (402, b"", Refusal.INSUFFICIENT_CREDIT),
        (403, LOCKED, Refusal.INSUFFICIENT_CREDIT),
        (403, {"detail": "no balance"}, Refusal.INSUFFICIENT_CREDIT),
        (403, {"detail": "not for you"}, Refusal.AUTHENTICATION),
        (403, b"\xff", Refusal.AUTHENTICATION),
        (429, {"detail": "queue too long"}, Refusal.RATE_LIMITED),
    ],
)
def test_trouble_that_is_no_fault_of_the_request_parks_it(status: int, body: Any, refusal: Refusal) -> None:
    outcome = submitted(reply(status, body))
    assert isinstance(outcome, NotTaken)
    assert (outcome.refusal, outcome.retry_after_ms) == (refusal, None)
    assert str(status) in outcome.message


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("7", 7_000),
        ("0", 0),
        ("9" * 5000, 86_400_000),
        ("Thu, 09 Oct 2025 08:53:40 GMT", 10_000),
        ("Thu, 09 Oct 2025 08:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("١", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, wait_ms: int | None) -> None:
    assert submitted(reply(429, {}, retry_after=header)).retry_after_ms == wait_ms


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 415, 422])
def test_other_4xx_refuse_the_request_for_good(status: int) -> None:
    fact = only(submitted(reply(status, {"detail": "no"})))
    assert isinstance(fact, ProviderFailed)
    assert (fact.cause, fact.attempt_id) == ("submit", "att_1")
    assert fact.error.code is ErrorCode.PROVIDER_REJECTED
    assert (fact.error.retryable, fact.error.provider_status) == (False, status)
    assert fact.error.provider_error == {"detail": "no"}


@pytest.mark.parametrize("body", [POLICY, {"detail": "content_policy_violation: x"}])
def test_a_submit_stopped_by_content_policy_is_blocked(body: Any) -> None:
    fact = only(submitted(reply(422, body)))
    assert isinstance(fact, ProviderBlocked)
    assert fact.error.code is ErrorCode.CONTENT_BLOCKED
    assert fact.error.provider_error == body


def test_no_secret_is_in_what_fal_is_quoted_with() -> None:
    quoted = {
        "detail": [{"msg": f"bad key {KEY}", "input": CALLBACK_URL, KEY: 1, "half": KEY.partition(":")[2]}],
        "encoded": "fal_webhook=https%3A%2F%2Fh%2Fcallbacks%2Ffal%2Ftok-en_1",
    }
    error = only(submitted(reply(400, quoted))).error
    text = json.dumps(error.provider_error) + error.message
    assert "***" in text
    assert not any(secret in text for secret in (KEY, "0123456789abcdef", "tok-en_1"))


@pytest.mark.parametrize(
    "body",
    [
        b"x" * 1_000_000,
        {"a": "x" * 100_000},
        {"detail": [{"input": "x" * 3_000}] * 500},
        [[[["xxxx"] * 50] * 50] * 50] * 8,
    ],
)
def test_what_fal_is_quoted_with_is_bounded(body: Any) -> None:
    error = only(submitted(reply(400, body))).error
    assert len(json.dumps(error.provider_error)) < 200_000


def test_members_that_hold_prompts_stay_where_they_can_be_found() -> None:
    body = {"detail": [{"type": "one_of", "loc": ["body", "mode"], "input": "x" * 5_000}]}
    error = only(submitted(reply(422, body))).error
    assert error.message == "fal refused the request (422): one_of at body.mode."
    assert error.provider_error["detail"][0]["input"].startswith("xxx")
