"""What a callback of fal is worth: all signature vectors, then who sent it, whose it is, and what it says."""

import base64
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.callback import Judgement, Received, Verdict
from service.domain.facts import ProviderBlocked, ProviderFailed, ProviderSucceeded
from service.domain.failures import ErrorCode
from service.providers.base import KeysNeeded, NoNews
from tests.providers.fal_scene import (
    MODEL,
    NOW_MS,
    POLICY,
    REQUEST_ID,
    RESULT,
    SIGNERS,
    VECTORS,
    addressee,
    completed,
    drive,
    fal,
    fal_with_keys,
    learn_keys,
    only,
    reply,
    signed,
    subject,
    webhook,
)

OTHER_ID = "11111111-1111-1111-1111-111111111111"
MISSING = {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]}


def judged(document: Any, *, adapter: Any = None, stored: str | None = REQUEST_ID, **how: Any) -> Judgement:
    judgement = (adapter or fal_with_keys()).judge(
        signed(document, **how), addressee(provider_request_id=stored)
    )
    assert isinstance(judgement, Judgement)
    return judgement


def error_webhook(code: int | None, payload: Any, **members: Any) -> dict[str, Any]:
    error = f"Invalid status code: {code}" if code is not None else "it went wrong"
    return webhook("ERROR", error=error, payload=payload, **members)


def test_all_fifty_vectors_are_here() -> None:
    assert len(VECTORS["cases"]) == 50


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
@pytest.mark.parametrize("knows_keys", [True, False])
def test_a_vector_is_judged_as_it_says(case: dict[str, Any], knows_keys: bool) -> None:
    """Malformed is decided before keys are needed; without usable keys nothing else is decided at all."""
    now_ms = case["now"] * 1_000
    adapter = fal()
    learned = knows_keys and learn_keys(adapter, VECTORS["jwks_documents"][case["jwks"]], now_ms=now_ms)
    headers = {name.lower(): text for name, text in case["headers"].items()}
    callback = Received(headers=headers, body=base64.b64decode(case["body_b64"]), received_ms=now_ms)
    judgement = adapter.judge(callback, addressee())
    if case["expect"] == "malformed":
        assert isinstance(judgement, Judgement)
        assert (judgement.verdict, judgement.key_id) == (Verdict.MALFORMED, None)
    elif not learned:
        assert judgement is KeysNeeded.MISSING
        assert case["expect"] == "invalid" or not knows_keys
    else:
        assert isinstance(judgement, Judgement)
        was_signed = judgement.key_id is not None
        assert was_signed is (case["expect"] in ("valid", "stale"))
        assert (judgement.verdict is Verdict.STALE) is (case["expect"] == "stale")
        assert (judgement.verdict is Verdict.FORGED) is (case["expect"] == "invalid")
    if isinstance(judgement, Judgement) and case["expect"] != "valid":
        assert (judgement.facts, judgement.message_key, judgement.ask) == ((), None, False)


class TestAGenuineCallback:
    def test_with_a_result_succeeds(self) -> None:
        judgement = judged(webhook(payload=RESULT))
        fact = only(judgement.facts)
        assert isinstance(fact, ProviderSucceeded)
        assert (fact.cause, fact.attempt_id) == ("", "att_1")
        assert fact.output.seed == "15860307465884635512"
        assert judgement == Judgement(
            verdict=Verdict.VERIFIED,
            reason="verified",
            facts=(fact,),
            message_key=f"{REQUEST_ID}:OK",
            key_id="fal-test-1",
        )

    def test_names_the_key_that_verified_it(self) -> None:
        assert judged(webhook(payload=RESULT), signer=SIGNERS[1]).key_id == "fal-test-2"

    @pytest.mark.parametrize("header_id", [REQUEST_ID, "attempt-2"])
    def test_may_be_signed_for_the_request_or_for_fals_last_attempt(self, header_id: str) -> None:
        document = {**webhook(payload=RESULT), "gateway_request_id": "attempt-2"}
        assert judged(document, header_id=header_id).verdict is Verdict.VERIFIED

    def test_with_an_error_fails_or_is_blocked(self) -> None:
        failed = judged(error_webhook(422, MISSING))
        assert failed.message_key == f"{REQUEST_ID}:ERROR"
        fact = only(failed.facts)
        assert isinstance(fact, ProviderFailed)
        assert (fact.error.code, fact.error.provider_status) == (ErrorCode.PROVIDER_REJECTED, 422)
        assert fact.error.provider_error == MISSING
        assert isinstance(only(judged(error_webhook(422, POLICY)).facts), ProviderBlocked)

    def test_without_media_fails(self) -> None:
        fact = only(judged(webhook(payload={"images": []})).facts)
        assert fact.error.code is ErrorCode.EMPTY_RESULT


class TestACallbackThatLeavesTheOutcomeOpen:
    @pytest.mark.parametrize(
        "document",
        [
            webhook(payload=None, payload_error="Response payload is not JSON serializable."),
            webhook(payload=None),
            webhook(),
            webhook(payload=RESULT, payload_error="cut"),
            error_webhook(404, None, payload_error="Response payload is not JSON serializable."),
            error_webhook(422, None),
            error_webhook(None, {"detail": "x"}),
            error_webhook(200, RESULT),
            error_webhook(302, {}),
            error_webhook(504, {"detail": "Request timed out", "error_type": "request_timeout"}),
            error_webhook(504, {"detail": "Request timed out"}),
            error_webhook(None, {}, error_type="startup_timeout"),
            webhook("ERROR", payload=RESULT),
        ],
    )
    def test_makes_us_ask_and_moves_nothing(self, document: Any) -> None:
        judgement = judged(document)
        assert (judgement.verdict, judgement.facts, judgement.ask) == (Verdict.VERIFIED, (), True)
        assert judgement.candidate_request_id is None

    def test_does_not_make_the_whole_one_look_like_a_repeat(self) -> None:
        keys = {judged(webhook(payload=payload)).message_key for payload in (None, RESULT)}
        assert len(keys) == 2
        assert judged(webhook(payload=None)).message_key == judged(webhook()).message_key


class TestACallbackBeforeOurAnswer:
    @pytest.mark.parametrize("document", [webhook(payload=RESULT), error_webhook(422, POLICY), webhook()])
    def test_only_names_a_candidate_to_ask_about(self, document: Any) -> None:
        assert judged(document, stored=None) == Judgement(
            verdict=Verdict.VERIFIED,
            reason="the request id is not recorded yet: fal is asked about the one claimed",
            ask=True,
            candidate_request_id=REQUEST_ID,
            key_id="fal-test-1",
        )


class TestAGenuineCallbackThatIsNotOurs:
    def test_comes_from_another_account(self) -> None:
        pinned = fal_with_keys(user_id="user_1")
        assert judged(webhook(payload=RESULT), adapter=pinned).verdict is Verdict.VERIFIED
        judgement = judged(webhook(payload=RESULT), adapter=pinned, user_id="user_2")
        assert (judgement.verdict, judgement.facts) == (Verdict.MISMATCHED, ())

    def test_is_about_another_request(self) -> None:
        judgement = judged({**webhook(payload=RESULT), "request_id": OTHER_ID}, header_id=OTHER_ID)
        assert (judgement.verdict, judgement.facts, judgement.ask) == (Verdict.MISMATCHED, (), False)

    @pytest.mark.parametrize("stored", [REQUEST_ID, None])
    def test_is_signed_for_another_request_than_its_body_names(self, stored: str | None) -> None:
        judgement = judged(webhook(payload=RESULT), header_id=OTHER_ID, stored=stored)
        assert (judgement.verdict, judgement.candidate_request_id) == (Verdict.MISMATCHED, None)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        [],
        {},
        {"request_id": 5, "status": "OK"},
        {"request_id": REQUEST_ID},
        webhook("COMPLETED", payload=RESULT),
        webhook("ok", payload=RESULT),
        {**webhook(payload=RESULT), "status": ["OK"]},
        {**webhook(payload=RESULT), "request_id": "a/../b"},
    ],
)
def test_a_genuine_body_that_is_not_what_fal_sends_is_malformed(document: Any) -> None:
    judgement = judged(document)
    assert (judgement.verdict, judgement.facts, judgement.ask) == (Verdict.MALFORMED, (), False)


def test_a_stale_callback_says_nothing() -> None:
    judgement = judged(webhook(payload=RESULT), at_ms=NOW_MS - 301_000)
    assert (judgement.verdict, judgement.facts, judgement.key_id) == (Verdict.STALE, (), "fal-test-1")


@pytest.mark.parametrize("timestamp", ["9" * 5_000, "0" * 30 + "1760000010"])
def test_a_timestamp_of_any_length_is_stale_rather_than_an_error(timestamp: str) -> None:
    callback = signed(webhook(payload=RESULT))
    body_hash = hashlib.sha256(callback.body).hexdigest()
    message = "\n".join((REQUEST_ID, "user_1", timestamp, body_hash)).encode()
    headers = {
        **callback.headers,
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": SIGNERS[0].sign(message).hex(),
    }
    judgement = fal_with_keys().judge(replace(callback, headers=headers), addressee())
    assert isinstance(judgement, Judgement)
    assert judgement.verdict is Verdict.STALE


_words = st.sampled_from(
    [
        "internal_server_error",
        "generation_timeout",
        "one_of",
        "no_media_generated",
        "content_policy_violation",
    ]
)
_errors = st.one_of(
    st.fixed_dictionaries(
        {"detail": st.lists(st.fixed_dictionaries({"type": _words}), min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries(
        {
            "detail": st.text(),
            "error_type": st.sampled_from(["runner_disconnected", "bad_request", "internal_error"]),
        }
    ),
    st.fixed_dictionaries({"detail": st.text()}),
)
_scalars = st.none() | st.booleans() | st.integers() | st.text()
_files = st.lists(_scalars | st.fixed_dictionaries({"url": st.sampled_from(["https://x/y", "", "ftp://x"])}))
_results = st.one_of(
    st.dictionaries(st.sampled_from(["images", "seed", "video", "url", "x"]), _scalars | _files),
    st.lists(_scalars),
    _scalars.filter(lambda value: value is not None),
)


@given(payload=_results, model=st.sampled_from([MODEL, "someone/video", "fal-ai/flux-2-trainer"]))
def test_a_result_means_the_same_by_callback_and_by_poll(payload: Any, model: str) -> None:
    judgement = fal_with_keys().judge(signed(webhook(payload=payload)), addressee(model=model))
    facts, _ = drive(fal().ask(subject(model=model)), completed(), reply(200, payload))
    assert isinstance(judgement, Judgement)
    assert replace(only(judgement.facts), cause="poll") == only(facts)


@given(payload=_errors, code=st.sampled_from([400, 404, 422, 499, 500, 502, 503]), told=st.booleans())
def test_an_error_means_the_same_by_callback_and_by_poll(payload: Any, code: int, told: bool) -> None:
    """Where the status tells nothing, some answers may be the gateway's own: then the poll asks again."""
    judgement = judged(error_webhook(code, payload))
    status = completed(error=f"Invalid status code: {code}") if told else completed()
    facts, _ = drive(
        fal().ask(subject()), status, reply(code, payload, x_fal_request_id="g", x_fal_billable_units="1")
    )
    if isinstance(facts, NoNews):
        assert not told
        assert code in (400, 502, 503)
    else:
        assert replace(only(judgement.facts), cause="poll") == only(facts)
