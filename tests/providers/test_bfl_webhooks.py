"""BFL's callbacks: every vector of the collected ones, and what they do not cover."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from service.domain.callback import Addressee, Judgement, Received, Verdict
from service.domain.facts import ProviderBlocked, ProviderFailed, ProviderSucceeded, SubmitAccepted
from service.providers.bfl import Bfl

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "bfl_webhooks.json").read_text())
TASK = VECTORS["stored_task_id"]
SECRET = "test-secret-of-an-attempt-0123456789abcdef"
BFL = Bfl(key="bfl-key", url="https://api.bfl.ai")

KINDS = {
    "ready": ProviderSucceeded,
    "failed": ProviderFailed,
    "moderated_input": ProviderBlocked,
    "moderated_output": ProviderBlocked,
}


def judged(
    headers: dict[str, str], body: bytes, *, secret: str | None = SECRET, task: str | None = TASK
) -> Judgement:
    received = Received(headers={k.lower(): v for k, v in headers.items()}, body=body, received_ms=0)
    addressee = Addressee(attempt_id="att_1", model="flux-2-pro", provider_request_id=task, secret=secret)
    judgement = BFL.judge(received, addressee)
    assert isinstance(judgement, Judgement)
    return judgement


def proved(document: Any, *, task: str | None = TASK) -> Judgement:
    return judged({"X-Webhook-Secret": SECRET}, json.dumps(document).encode(), task=task)


def ready(**changes: Any) -> dict[str, Any]:
    result = {"sample": "https://delivery-eu.bfl.ai/results/ab/sample.jpeg?se=2026", "seed": 7}
    return {"id": TASK, "status": "Ready", "result": result, **changes}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_a_collected_callback_is_judged_as_its_vector_says(case: dict[str, Any]) -> None:
    judgement = judged(
        case["headers"], base64.b64decode(case["body_b64"]), secret=case["secret"] or None, task=TASK
    )
    expected = case["expect"]
    match expected["action"]:
        case "apply":
            assert judgement.verdict is Verdict.VERIFIED
            assert [type(fact) for fact in judgement.facts] == [KINDS[expected["state"]]]
            assert judgement.message_key is not None
            assert judgement.message_key.startswith(f"{expected['task_id']}:")
        case "ignore":
            assert (judgement.verdict, judgement.ask) == (Verdict.VERIFIED, False)
        case "poll":
            assert judgement.ask
        case "reject":
            assert judgement.verdict is Verdict.FORGED
    if expected["action"] != "apply":
        assert judgement.facts == ()
        assert judgement.message_key is None
    verdicts = {"unauthenticated": Verdict.UNAUTHENTICATED, "invalid": Verdict.FORGED}
    assert judgement.verdict is verdicts.get(expected["auth"], judgement.verdict)


def test_the_vectors_cover_every_action() -> None:
    assert {case["expect"]["action"] for case in VECTORS["cases"]} == {"apply", "ignore", "poll", "reject"}
    assert len(VECTORS["cases"]) >= 25


def test_a_proved_callback_that_comes_before_our_submit_answer_binds_its_task() -> None:
    bound, verdict = proved(ready(), task=None).facts
    assert isinstance(bound, SubmitAccepted)
    assert (bound.provider_request_id, bound.attempt_id, bound.cause) == (TASK, "att_1", "")
    assert isinstance(verdict, ProviderSucceeded)


def test_an_event_on_the_way_binds_its_task_and_changes_nothing_else() -> None:
    judgement = proved({"task_id": TASK, "status": "processing"}, task=None)
    assert [type(fact) for fact in judgement.facts] == [SubmitAccepted]
    assert not judgement.ask


def test_an_unproved_callback_binds_nothing() -> None:
    judgement = judged({}, json.dumps(ready()).encode(), task=None)
    assert (judgement.verdict, judgement.facts) == (Verdict.UNAUTHENTICATED, ())


def test_without_the_secret_a_callback_is_a_hint_and_no_forgery() -> None:
    judgement = judged({"X-Webhook-Secret": SECRET}, json.dumps(ready()).encode(), secret=None)
    assert (judgement.verdict, judgement.ask, judgement.facts) == (Verdict.UNAUTHENTICATED, True, ())


def test_the_task_id_counts_before_the_id() -> None:
    assert proved(ready(task_id="another")).verdict is Verdict.MISMATCHED
    assert proved(ready(id="another", task_id=TASK)).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("document", [[], "ready", None, {"status": "Ready"}, {"id": 7}, {"id": "a b\n"}])
def test_a_proved_body_that_names_no_task_is_malformed_and_asked_about(document: Any) -> None:
    judgement = proved(document)
    assert (judgement.verdict, judgement.ask, judgement.facts) == (Verdict.MALFORMED, True, ())


def test_a_body_that_is_nested_absurdly_deep_is_malformed() -> None:
    body = b'{"id":"%s","status":"Ready","result":%s1%s}' % (TASK.encode(), b"[" * 900, b"]" * 900)
    assert judged({"X-Webhook-Secret": SECRET}, body).verdict is Verdict.MALFORMED


def test_a_seed_beyond_every_double_is_kept_exactly() -> None:
    result = {"sample": "https://delivery-eu.bfl.ai/a.png", "seed": 15860307465884635512 * 10**9}
    (fact,) = proved(ready(result=result)).facts
    assert isinstance(fact, ProviderSucceeded)
    assert fact.output.seed == "15860307465884635512000000000"
    assert fact.output.raw == result


def test_a_moderated_task_without_reasons_ends_and_is_asked_about() -> None:
    judgement = proved({"id": TASK, "status": "Content Moderated", "result": None})
    (fact,) = judgement.facts
    assert isinstance(fact, ProviderBlocked)
    assert judgement.ask


def test_a_moderated_task_with_reasons_is_not_asked_about() -> None:
    details = {"Moderation Reasons": ["Derivative Works Filter"]}
    judgement = proved({"id": TASK, "status": "Request Moderated", "details": details})
    (fact,) = judgement.facts
    assert isinstance(fact, ProviderBlocked)
    assert "Derivative Works Filter" in fact.error.message
    assert fact.error.provider_error["details"] == details
    assert not judgement.ask


def test_a_secret_that_a_body_repeats_is_not_kept() -> None:
    (fact,) = proved({"id": TASK, "status": "Error", "message": f"secret was {SECRET}"}).facts
    assert isinstance(fact, ProviderFailed)
    assert SECRET not in json.dumps(fact.error.provider_error)


def test_a_second_end_of_one_task_has_the_key_of_the_first() -> None:
    body = json.dumps(ready(timestamp="2026-11-20T10:00:00Z")).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    again = judged({"X-BFL-Signature": signature}, body)
    assert again.message_key == proved(ready()).message_key
