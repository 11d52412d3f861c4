"""BFL's submit: what goes out, and what each answer means."""

import json
from decimal import Decimal
from typing import Any

import pytest

from service.domain.facts import ProviderFailed, SubmitAccepted
from service.domain.failures import ErrorCode
from service.providers.base import (
    Answer,
    Call,
    MaybeTaken,
    NotTaken,
    Order,
    Refusal,
    Reply,
    Stage,
    Submitted,
    Trouble,
)
from service.providers.bfl import Bfl

TASK = "023a1507-369e-46e0-bd6d-1f3446d7d5f2"
KEY = "bfl-key-0123456789"
CALLBACK = "https://jobs.example/callbacks/bfl/token-0123456789abcdef"
SECRET = "secret-0123456789abcdef0123456789abcdef"
BFL = Bfl(key=KEY, url="https://api.bfl.ai")


def order(model: str = "flux-2-pro", *, callback_url: str | None = CALLBACK, **input: Any) -> Order:
    return Order(
        attempt_id="att_1",
        model=model,
        input={"prompt": "a fox", **input},
        callback_url=callback_url,
        secret=SECRET,
        priority="normal",
        now_ms=1_763_632_800_000,
        deadline_ms=1_763_636_400_000,
    )


def sent(one: Order, bfl: Bfl = BFL) -> Call:
    return next(bfl.submit(one))


def submitted(answer: Answer, bfl: Bfl = BFL) -> Submitted:
    talk = bfl.submit(order())
    next(talk)
    with pytest.raises(StopIteration) as end:
        talk.send(answer)
    result: Submitted = end.value.value
    return result


def reply(status: int, document: Any = None, **headers: str) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Reply(status=status, headers=headers, body=body)


def accepted(document: Any, bfl: Bfl = BFL) -> SubmitAccepted:
    result = submitted(reply(200, document), bfl)
    assert isinstance(result, tuple)
    (fact,) = result
    assert isinstance(fact, SubmitAccepted)
    return fact


class TestWhatGoesOut:
    def test_the_input_goes_with_webhook_and_secret_in_the_body(self) -> None:
        call = sent(order(seed=18446744073709551617, unknown=[1]))
        assert (call.method, call.url) == ("POST", "https://api.bfl.ai/v1/flux-2-pro")
        assert call.headers["x-key"] == KEY
        assert call.body is not None
        assert b'"seed":18446744073709551617' in call.body
        assert json.loads(call.body) == {
            "prompt": "a fox",
            "seed": 18446744073709551617,
            "unknown": [1],
            "webhook_url": CALLBACK,
            "webhook_secret": SECRET,
        }

    def test_without_a_public_url_nothing_of_a_webhook_is_said(self) -> None:
        assert json.loads(sent(order(callback_url=None)).body or b"") == {"prompt": "a fox"}

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("outpainting-v1", "flux-tools/outpainting-v1"),
            ("flux-tools/outpainting-v1", "flux-tools/outpainting-v1"),
            ("video-edit-v1", "flux-tools/video-edit-v1"),
            ("flux-3-video", "flux-3-video"),
            ("flux-3-pro", "flux-3-pro"),
        ],
    )
    def test_endpoints_with_closed_schemas_get_no_webhook(self, model: str, path: str) -> None:
        call = sent(order(model))
        assert call.url == f"https://api.bfl.ai/v1/{path}"
        assert json.loads(call.body or b"") == {"prompt": "a fox"}

    @pytest.mark.parametrize("name", ["erase-v1", "deblur-v1", "vto-v1", "vto-v2", "video-upscale-v1"])
    def test_other_tools_get_one(self, name: str) -> None:
        call = sent(order(name))
        assert call.url == f"https://api.bfl.ai/v1/flux-tools/{name}"
        assert json.loads(call.body or b"")["webhook_url"] == CALLBACK

    def test_an_unknown_model_is_submitted_at_its_own_name(self) -> None:
        call = sent(order("flux-9-dream"), Bfl(key=KEY, url="http://127.0.0.1:9090/bfl/"))
        assert call.url == "http://127.0.0.1:9090/bfl/v1/flux-9-dream"

    def test_an_empty_key_is_refused(self) -> None:
        with pytest.raises(ValueError, match="key"):
            Bfl(key=" ", url="https://api.bfl.ai")


class TestAccepted:
    def test_the_reply_with_a_polling_url(self) -> None:
        link = f"https://api.us3.bfl.ai/v1/get_result?id={TASK}"
        fact = accepted({"id": TASK, "polling_url": link, "cost": 3.0, "input_mp": None})
        assert fact == SubmitAccepted(
            cause="submit",
            attempt_id="att_1",
            provider_request_id=TASK,
            links={"status": link},
            cost_usd=Decimal("0.03"),
        )

    def test_the_reply_of_a_webhook_submit_without_one(self) -> None:
        fact = accepted({"id": TASK, "status": "Pending", "webhook_url": CALLBACK, "cost": None})
        assert (fact.provider_request_id, fact.links, fact.cost_usd) == (TASK, {}, None)

    @pytest.mark.parametrize(
        "link",
        [
            "https://api.bfl.ai.attacker.example/v1/get_result",
            "https://attackerbfl.ai/v1/get_result",
            "http://api.us3.bfl.ai/v1/get_result",
            "https://api.us3.bfl.ai:8443/v1/get_result",
            "https://user@api.us3.bfl.ai/v1/get_result",
            "https://api.us3.bfl.ai\\@attacker.example/",
            "//api.us3.bfl.ai/v1/get_result",
            "https://127.0.0.1/v1/get_result",
            7,
            None,
        ],
    )
    def test_a_polling_url_elsewhere_is_not_kept(self, link: Any) -> None:
        assert accepted({"id": TASK, "polling_url": link}).links == {}

    def test_the_configured_origin_may_be_polled_and_no_other_port(self) -> None:
        bfl = Bfl(key=KEY, url="http://127.0.0.1:9090/bfl")
        link = f"http://127.0.0.1:9090/bfl/v1/get_result?id={TASK}"
        assert accepted({"id": TASK, "polling_url": link}, bfl).links == {"status": link}
        assert accepted({"id": TASK, "polling_url": link.replace("9090", "9091")}, bfl).links == {}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b"<html>",
            b'{"id":null}',
            b'{"id":""}',
            b'{"id":7}',
            b'{"id":"a/../b"}',
            b'{"id":"a b"}',
            b'{"polling_url":"https://api.bfl.ai/v1/get_result?id=1"}',
        ],
    )
    def test_a_success_without_a_usable_id_may_have_been_taken(self, body: bytes) -> None:
        assert isinstance(submitted(reply(200, body)), MaybeTaken)

    @pytest.mark.parametrize("cost", [-1, "x", True, [], 1e300, None])
    def test_a_cost_that_is_none_is_no_reason_to_fail(self, cost: Any) -> None:
        assert accepted({"id": TASK, "cost": cost}).cost_usd is None


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "refusal"),
        [
            (401, Refusal.AUTHENTICATION),
            (403, Refusal.AUTHENTICATION),
            (402, Refusal.INSUFFICIENT_CREDIT),
            (429, Refusal.RATE_LIMITED),
        ],
    )
    def test_trouble_with_the_account_parks_the_job(self, status: int, refusal: Refusal) -> None:
        result = submitted(reply(status, {"detail": "no"}))
        assert isinstance(result, NotTaken)
        assert (result.refusal, result.retry_after_ms) == (refusal, None)

    @pytest.mark.parametrize(
        ("header", "wait_ms"),
        [
            ("7", 7_000),
            ("Thu, 20 Nov 2025 10:00:05 GMT", 5_000),
            ("soon", None),
            ("-1", None),
            ("9" * 40, 86_400_000),
        ],
    )
    def test_retry_after_is_honoured(self, header: str, wait_ms: int | None) -> None:
        result = submitted(reply(429, {"detail": "no"}, **{"retry-after": header}))
        assert isinstance(result, NotTaken)
        assert result.retry_after_ms == wait_ms

    def test_a_malformed_key_is_no_fault_of_the_request(self) -> None:
        result = submitted(reply(422, {"detail": "Invalid API key format"}))
        assert isinstance(result, NotTaken)
        assert result.refusal is Refusal.AUTHENTICATION

    @pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 422])
    def test_a_refused_request_fails_for_good_with_what_bfl_said(self, status: int) -> None:
        detail = [{"type": "less_than_equal", "loc": ["body", "steps"], "msg": "too many", "input": 99}]
        result = submitted(reply(status, {"detail": detail}))
        assert isinstance(result, tuple)
        (fact,) = result
        assert isinstance(fact, ProviderFailed)
        assert fact.cause == "submit"
        assert (fact.error.code, fact.error.provider_status) == (ErrorCode.PROVIDER_REJECTED, status)
        assert fact.error.provider_error == {"detail": detail}
        assert "steps: less_than_equal" in fact.error.message
        assert not fact.error.retryable

    def test_a_refusal_that_repeats_our_body_is_kept_without_secrets_and_prompt(self) -> None:
        given = {"prompt": "a fox", "webhook_url": CALLBACK, "webhook_secret": SECRET, "key": KEY}
        detail = [{"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": given}]
        result = submitted(reply(422, {"detail": detail}))
        assert isinstance(result, tuple)
        (fact,) = result
        assert isinstance(fact, ProviderFailed)
        kept = json.dumps(fact.error.provider_error)
        assert not any(secret in kept for secret in (SECRET, KEY, "token-0123456789abcdef"))
        assert "a fox" not in fact.error.message

    @pytest.mark.parametrize(
        "document", [b"<html>nope</html>", {"detail": "text"}, {"detail": [1, {"loc": 2}]}, {}]
    )
    def test_a_refusal_in_any_form_is_a_refusal(self, document: Any) -> None:
        result = submitted(reply(400, document))
        assert isinstance(result, tuple)
        assert isinstance(result[0], ProviderFailed)

    def test_a_refusal_too_long_to_keep_is_not_kept_in_part(self) -> None:
        detail = [{"type": "missing", "loc": ["body", "x"], "input": {"prompt": "a fox " * 10_000}}]
        result = submitted(reply(422, {"detail": detail}))
        assert isinstance(result, tuple)
        assert isinstance(result[0], ProviderFailed)
        assert result[0].error.provider_error == {"truncated": True}

    @pytest.mark.parametrize("status", [100, 301, 307, 408, 500, 502, 503, 504, 599])
    def test_what_may_have_been_taken_is_never_called_refused(self, status: int) -> None:
        result = submitted(reply(status, {"detail": "no"}))
        assert isinstance(result, MaybeTaken)
        assert result.status == status

    def test_trouble_on_the_way_says_by_itself_whether_it_was_sent(self) -> None:
        kept = submitted(Trouble(stage=Stage.NOT_SENT, reason="refused"))
        lost = submitted(Trouble(stage=Stage.MAYBE_SENT, reason="reset"))
        assert isinstance(kept, NotTaken)
        assert kept.refusal is Refusal.UNREACHABLE
        assert isinstance(lost, MaybeTaken)
