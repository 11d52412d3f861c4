"""Whatever answers in fal's place: nothing raises, and nothing becomes a success that fal did not tell."""

import json
from collections.abc import Generator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.domain import exact_json
from service.domain.callback import Judgement, Received, Verdict
from service.domain.facts import CancelAnswered, Fact, ProviderSucceeded, SubmitAccepted
from service.providers.base import Answer, Call, Listed, MaybeTaken, NoNews, NotTaken, Reply, Search
from tests.providers.fal_scene import (
    MODEL,
    NOW_MS,
    REQUEST_ID,
    addressee,
    completed,
    drive,
    fal,
    fal_with_keys,
    learn_keys,
    order,
    reply,
    signed,
    subject,
)

_names = st.sampled_from(
    [
        "request_id", "gateway_request_id", "status", "payload", "payload_error", "error", "error_type", "detail",
        "type", "loc", "images", "url", "seed", "width", "queue_position", "status_url", "items", "next_cursor",
        "has_more", "sent_at", "json_input", "keys", "x", "kid",
    ]
)  # fmt: skip
_words = st.sampled_from(
    [
        "COMPLETED", "IN_QUEUE", "OK", "ERROR", REQUEST_ID, "..", "https://x/y", "content_policy_violation",
        "request_timeout", "Invalid status code: 422", "2025-10-09T08:53:25Z", "\x00", "9" * 30,
    ]
)  # fmt: skip
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | _words,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_names | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=25,
)
_bodies = st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode())
_statuses = st.sampled_from(
    [100, 200, 201, 202, 204, 302, 400, 401, 403, 404, 408, 422, 429, 499, 500, 502, 503, 504]
)
_headers = st.dictionaries(
    st.sampled_from(
        ["retry-after", "x-fal-error-type", "x-fal-request-id", "x-fal-needs-retry", "x-fal-billable-units"]
    ),
    st.text() | _words,
)
_replies = st.builds(Reply, status=_statuses, headers=_headers, body=_bodies)


def is_object(reply: Reply) -> bool:
    try:
        return isinstance(exact_json.loads(reply.body), dict)
    except exact_json.NotJson:
        return False


@given(answer=_replies)
def test_a_submit_is_accepted_only_by_a_2xx_that_names_an_id(answer: Reply) -> None:
    outcome, _ = drive(fal().submit(order()), answer)
    if isinstance(outcome, NotTaken):
        assert answer.status in (401, 402, 403, 429)
    elif isinstance(outcome, MaybeTaken):
        assert answer.status in (408, 499) or not 400 <= answer.status < 500
    else:
        accepted = [fact for fact in outcome if isinstance(fact, SubmitAccepted)]
        assert len(outcome) == 1
        assert bool(accepted) is (200 <= answer.status < 300)
        assert not accepted or is_object(answer)


def is_success(outcome: tuple[Fact, ...] | NoNews) -> bool:
    facts = outcome.facts if isinstance(outcome, NoNews) else outcome
    return any(isinstance(fact, ProviderSucceeded) for fact in facts)


def after(talk: Generator[Call, Answer, Any] | None, answer: Reply) -> Any:
    """Answer one call only; give what the talk concluded, or the call that it goes on with."""
    assert talk is not None
    next(talk)
    try:
        return talk.send(answer)
    except StopIteration as end:
        return end.value


@given(answer=_replies)
def test_a_status_alone_ends_nothing(answer: Reply) -> None:
    outcome = after(fal().ask(subject()), answer)
    if not isinstance(outcome, NoNews):
        assert isinstance(outcome, Call)
        assert is_object(answer)
        assert b"COMPLETED" in answer.body


@given(answer=_replies)
def test_a_result_succeeds_only_with_200_and_a_file(answer: Reply) -> None:
    for model in (MODEL, "someone/unknown"):
        outcome, _ = drive(fal().ask(subject(model=model)), completed(), answer)
        if is_success(outcome):
            assert answer.status == 200
            assert b'"https://x/y"' in answer.body
        told = completed(error="boom", error_type="internal_error")
        assert not is_success(drive(fal().ask(subject(model=model)), told, answer)[0])


@given(answer=_replies)
def test_other_questions_survive_any_answer(answer: Reply) -> None:
    assert isinstance(drive(fal().cancel(subject()), answer)[0], CancelAnswered | NoNews)
    assert drive(fal().fetch_keys(NOW_MS), answer)[0] in (True, False)
    search = Search(attempt_id="att_1", model=MODEL, input={}, from_ms=0, until_ms=2**42)
    found = after(fal().find(search), answer)
    assert isinstance(found, Call) or all(isinstance(listed, Listed) for listed in found)


@given(document=_json)
def test_any_key_set_is_read(document: Any) -> None:
    learn_keys(fal(), document)


@given(body=_bodies, stored=st.sampled_from([REQUEST_ID, None]))
def test_a_signed_callback_of_any_body_is_judged(body: bytes, stored: str | None) -> None:
    judgement = fal_with_keys().judge(signed(body), addressee(provider_request_id=stored))
    assert isinstance(judgement, Judgement)
    assert judgement.verdict in (Verdict.VERIFIED, Verdict.MALFORMED, Verdict.MISMATCHED)
    if judgement.facts:
        assert (judgement.verdict, stored) == (Verdict.VERIFIED, REQUEST_ID)
        assert is_object(reply(200, body))


@given(
    headers=st.dictionaries(
        st.sampled_from(
            [f"x-fal-webhook-{name}" for name in ("request-id", "user-id", "timestamp", "signature")]
        ),
        st.text() | _words | st.just("0" * 128) | st.just("1760000010"),
    ),
    body=_bodies,
)
def test_an_unsigned_callback_of_any_form_is_believed_by_nobody(headers: dict[str, str], body: bytes) -> None:
    judgement = fal_with_keys().judge(
        Received(headers=headers, body=body, received_ms=NOW_MS - 100_000), addressee()
    )
    assert isinstance(judgement, Judgement)
    assert judgement.verdict in (Verdict.MALFORMED, Verdict.FORGED)
    assert (judgement.facts, judgement.ask, judgement.candidate_request_id) == ((), False, None)
