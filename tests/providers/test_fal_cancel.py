"""Cancel at fal is a wish: its answer moves nothing, trouble means to wish again."""

import pytest

from service.domain.facts import CancelAnswered
from service.providers.base import NoNews, Stage, Trouble
from tests.providers.fal_scene import KEY, REQUEST_ID, drive, fal, only, reply, subject

LINK = f"https://queue.fal.run/fal-ai/flux-2/requests/{REQUEST_ID}/cancel"


def test_the_wish_is_a_put_with_our_key() -> None:
    _, calls = drive(fal().cancel(subject()), reply(202, {"status": "CANCELLATION_REQUESTED"}))
    call = only(calls)
    assert (call.method, call.url, call.body) == ("PUT", LINK, None)
    assert call.headers["Authorization"] == f"Key {KEY}"


def test_the_wish_goes_to_the_link_that_was_kept_and_never_elsewhere() -> None:
    kept = {"cancel": "https://queue.fal.run/other/cancel"}
    _, calls = drive(fal().cancel(subject(links=kept)), reply(202, {}))
    assert calls[0].url == kept["cancel"]
    _, calls = drive(fal().cancel(subject(links={"cancel": "https://evil.example/cancel"})), reply(202, {}))
    assert calls[0].url == LINK
    outcome, calls = drive(fal().cancel(subject(model="../x")))
    assert calls == []
    assert isinstance(outcome, NoNews)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (202, {"status": "CANCELLATION_REQUESTED"}, "CANCELLATION_REQUESTED"),
        (200, {"status": "OK"}, "OK"),
        (400, {"status": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
        (404, {"status": "NOT_FOUND"}, "NOT_FOUND"),
        (404, {"detail": "?"}, "HTTP 404"),
        (405, b"<html>", "HTTP 405"),
        (202, {"status": "x" * 5_000}, "HTTP 202"),
        (200, b"", "HTTP 200"),
    ],
)
def test_an_answer_is_reported(status: int, body: object, said: str) -> None:
    outcome, _ = drive(fal().cancel(subject()), reply(status, body))
    assert outcome == CancelAnswered(cause="poll", attempt_id="att_1", answer=said)


@pytest.mark.parametrize("status", [302, 401, 402, 403, 408, 429, 500, 502, 503, 504])
def test_trouble_with_the_question_is_no_answer(status: int) -> None:
    outcome, _ = drive(fal().cancel(subject()), reply(status, {"status": "OK"}, retry_after="9"))
    assert outcome == NoNews(reason=f"fal answered the wish to cancel with {status}.", retry_after_ms=9_000)


@pytest.mark.parametrize("stage", list(Stage))
def test_trouble_on_the_way_is_no_answer(stage: Stage) -> None:
    outcome, _ = drive(fal().cancel(subject()), Trouble(stage=stage, reason="gone"))
    assert outcome == NoNews(reason="gone")
