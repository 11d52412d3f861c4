"""Asking fal: the traps of status and result, one row for each documented error."""

from decimal import Decimal
from typing import Any

import pytest

from service.domain.facts import (
    ProviderBlocked,
    ProviderFailed,
    ProviderQueued,
    ProviderStarted,
    ProviderSucceeded,
)
from service.domain.failures import ErrorCode
from service.domain.results import Image
from service.providers.base import NoNews, Reply, Stage, Trouble
from tests.providers.fal_scene import (
    KEY,
    MODEL,
    POLICY,
    REQUEST_ID,
    RESULT,
    SEED,
    completed,
    drive,
    fal,
    only,
    reply,
    subject,
)

LINK = f"https://queue.fal.run/fal-ai/flux-2/requests/{REQUEST_ID}"
OWN = {"x_fal_request_id": REQUEST_ID}


def asked(*answers: Any, **changes: Any) -> Any:
    return drive(fal().ask(subject(**changes)), *answers)[0]


def verdict(result: Reply, status: Reply | None = None, **changes: Any) -> Any:
    fact = only(asked(status or completed(), result, **changes))
    assert (fact.cause, fact.attempt_id) == ("poll", "att_1")
    return fact


def typed(word: str) -> dict[str, Any]:
    return {"detail": [{"loc": ["body", "prompt"], "msg": "m", "type": word, "input": "a cat"}]}


class TestTheCalls:
    def test_use_the_links_that_were_kept(self) -> None:
        links = {"status": "https://queue.falrun.com/s", "result": "https://queue.fal.run/x/response"}
        _, calls = drive(fal().ask(subject(links=links)), completed(), reply(200, RESULT))
        assert [(call.method, call.url) for call in calls] == [("GET", link) for link in links.values()]
        assert all(call.headers["Authorization"] == f"Key {KEY}" for call in calls)

    def test_go_to_built_links_where_a_kept_one_leads_elsewhere(self) -> None:
        links = {"status": "https://evil.example/s", "result": "http://queue.fal.run/r"}
        _, calls = drive(fal().ask(subject(links=links)), completed(), reply(200, RESULT))
        assert [call.url for call in calls] == [f"{LINK}/status", LINK]

    def test_are_not_made_for_an_id_that_could_steer_them(self) -> None:
        outcome, calls = drive(fal().ask(subject(provider_request_id="../../me")))
        assert calls == []
        assert isinstance(outcome, NoNews)


class TestAStatusThatEndsNothing:
    def test_tells_the_place_in_the_queue(self) -> None:
        news = asked(reply(202, {"status": "IN_QUEUE", "queue_position": 4}))
        assert news.facts == (ProviderQueued(cause="poll", attempt_id="att_1", queue_position=4),)

    def test_tells_that_the_request_runs(self) -> None:
        news = asked(reply(202, {"status": "IN_PROGRESS", "logs": None}))
        assert news.facts == (ProviderStarted(cause="poll", attempt_id="att_1"),)

    @pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 408, 422, 429, 499, 500, 502, 503, 504])
    def test_means_ask_again_whatever_went_wrong_with_the_question(self, status: int) -> None:
        body = {"detail": "content_policy_violation", "status": "COMPLETED", "error_type": "internal_error"}
        news = asked(reply(status, body, retry_after="3"))
        assert news == NoNews(reason=f"fal answered the status request with {status}.", retry_after_ms=3_000)

    @pytest.mark.parametrize("word", ["FAILED", "OK", "completed", "", None, 1, ["COMPLETED"]])
    def test_is_any_word_that_we_do_not_know(self, word: Any) -> None:
        assert asked(reply(200, {"status": word})).facts == ()

    @pytest.mark.parametrize("body", [b"", b"COMPLETED", b"[]", b"<html>", b'{"status":'])
    def test_is_anything_that_is_no_object(self, body: bytes) -> None:
        assert isinstance(asked(reply(200, body)), NoNews)

    @pytest.mark.parametrize("stage", list(Stage))
    def test_is_trouble(self, stage: Stage) -> None:
        trouble = Trouble(stage=stage, reason="gone")
        assert asked(trouble) == NoNews(reason="gone")
        assert asked(completed(), trouble) == NoNews(reason="gone")


class TestASuccess:
    def test_gives_images_the_exact_seed_and_the_result_as_received(self) -> None:
        fact = verdict(reply(200, RESULT))
        assert isinstance(fact, ProviderSucceeded)
        assert fact.output.images == (
            Image(url="https://v3.fal.media/files/a.png", content_type="image/png", width=1024, height=768),
        )
        assert fact.output.seed == str(SEED)
        assert fact.output.raw == RESULT
        assert fact.cost_usd is None

    @pytest.mark.parametrize(
        ("seed", "kept"),
        [
            (2**70, str(2**70)),
            (-1, "-1"),
            ("42", "42"),
            (1.5, None),
            (True, None),
            ("1e3", None),
            (None, None),
        ],
    )
    def test_keeps_a_seed_only_where_it_is_exact(self, seed: Any, kept: str | None) -> None:
        assert verdict(reply(200, {**RESULT, "seed": seed})).output.seed == kept

    def test_stays_one_when_every_image_is_flagged(self) -> None:
        body = {**RESULT, "has_nsfw_concepts": [True]}
        assert verdict(reply(200, body)).output.raw["has_nsfw_concepts"] == [True]

    def test_leaves_out_what_is_no_file_and_measures_that_are_none(self) -> None:
        files = [
            None,
            1,
            {},
            {"url": 5},
            {"url": "javascript:x"},
            {"url": "https://x/y", "width": True, "height": -1},
        ]
        images = verdict(reply(200, {"images": files})).output.images
        assert images == (Image(url="https://x/y"),)

    def test_with_nothing_billed_costs_nothing_and_otherwise_nobody_knows(self) -> None:
        assert verdict(reply(200, RESULT, x_fal_billable_units="0")).cost_usd == Decimal(0)
        for units in ("1", "-1", "nan", "x", ""):
            assert verdict(reply(200, RESULT, x_fal_billable_units=units)).cost_usd is None

    @pytest.mark.parametrize(
        ("model", "body"),
        [
            (
                "fal-ai/flux-2-trainer",
                {"config_file": {"url": "https://f/c"}, "diffusers_lora_file": {"url": "https://f/l"}},
            ),
            ("someone/video", {"video": {"url": "https://f/v", "content_type": "video/mp4"}, "seed": 1}),
            ("someone/mesh", {"model_mesh": {"url": "https://f/m"}, "images": []}),
            ("someone/many", {"audio_files": [{"url": "https://f/1"}, {"url": "https://f/2"}]}),
            ("someone/plain", {"url": "https://f/1"}),
            ("someone/inline", {"image": {"url": "data:image/png;base64,AA=="}}),
        ],
    )
    def test_of_a_model_that_makes_other_things_is_any_file_at_the_top(self, model: str, body: Any) -> None:
        fact = verdict(reply(200, body), model=model)
        urls = [image.url for image in fact.output.images]
        assert urls
        assert all(url in str(body) for url in urls)


class TestAResultWithoutMedia:
    @pytest.mark.parametrize(
        ("model", "body"),
        [
            (MODEL, {}),
            (MODEL, {"images": []}),
            (MODEL, {"images": None, "seed": 1}),
            (MODEL, {"images": [{}]}),
            (MODEL, {"image": {"url": "https://v3.fal.media/input.png"}}),
            (MODEL, None),
            (MODEL, []),
            (MODEL, "https://v3.fal.media/a.png"),
            (
                "someone/llm",
                {"output": "a poem about https://fal.ai", "nested": {"a": {"url": "https://x/y"}}},
            ),
            ("fal-ai/flux-2-trainer", {"config_file": None}),
        ],
    )
    def test_is_a_failure(self, model: str, body: Any) -> None:
        fact = verdict(reply(200, body), model=model)
        assert isinstance(fact, ProviderFailed)
        assert fact.error.code is ErrorCode.EMPTY_RESULT
        assert (fact.error.provider_status, fact.error.provider_error) == (200, body)

    @pytest.mark.parametrize("body", [b"", b"\x89PNG", b'{"images": [', b'{"images": NaN}'])
    def test_that_cannot_be_read_is_asked_for_again(self, body: bytes) -> None:
        assert isinstance(asked(completed(), reply(200, body)), NoNews)

    @pytest.mark.parametrize("status", [100, 201, 202, 204, 302])
    def test_with_another_status_than_200_is_asked_for_again(self, status: int) -> None:
        assert isinstance(asked(completed(), reply(status, RESULT)), NoNews)


REJECTED, FAILED = ErrorCode.PROVIDER_REJECTED, ErrorCode.PROVIDER_FAILED
MODEL_ERRORS = [
    ("internal_server_error", 500, FAILED, True),
    ("generation_timeout", 504, FAILED, True),
    ("downstream_service_error", 400, REJECTED, True),
    ("downstream_service_unavailable", 500, FAILED, True),
    ("no_media_generated", 422, ErrorCode.EMPTY_RESULT, False),
    *(
        (word, 422, REJECTED, False)
        for word in [
            "face_detection_error",
            "feature_not_supported",
            "image_load_error",
            "file_download_error",
            "invalid_archive",
            "unsupported_audio_format",
            "unsupported_image_format",
            "unsupported_video_format",
            "image_too_small",
            "image_too_large",
            "file_too_large",
            "audio_duration_too_long",
            "audio_duration_too_short",
            "video_duration_too_long",
            "video_duration_too_short",
            "archive_file_count_below_minimum",
            "greater_than",
            "greater_than_equal",
            "less_than",
            "less_than_equal",
            "multiple_of",
            "sequence_too_short",
            "sequence_too_long",
            "one_of",
            "value_error.missing",
            "string_type",
            "something_new",
        ]
    ),
]
REQUEST_ERRORS = [
    ("request_timeout", 504, FAILED, True),
    ("startup_timeout", 504, FAILED, True),
    ("runner_scheduling_failure", 503, FAILED, True),
    ("runner_connection_timeout", 503, FAILED, True),
    ("runner_disconnected", 503, FAILED, True),
    ("runner_connection_refused", 503, FAILED, True),
    ("runner_connection_error", 503, FAILED, True),
    ("runner_incomplete_response", 502, FAILED, True),
    ("runner_server_error", 500, FAILED, True),
    ("internal_error", 500, FAILED, True),
    ("client_disconnected", 499, ErrorCode.CANCELED, False),
    ("client_cancelled", 499, ErrorCode.CANCELED, False),
    ("bad_request", 400, REJECTED, False),
]


class TestAModelError:
    @pytest.mark.parametrize(("word", "status", "code", "retryable"), MODEL_ERRORS)
    def test_is_told_by_its_type(self, word: str, status: int, code: ErrorCode, retryable: bool) -> None:
        fact = verdict(reply(status, typed(word)))
        assert isinstance(fact, ProviderFailed)
        assert (fact.error.code, fact.error.retryable) == (code, retryable)
        assert (fact.error.provider_status, fact.error.provider_error) == (status, typed(word))
        assert word in fact.error.message
        assert "a cat" not in fact.error.message

    @pytest.mark.parametrize("header", ["x_fal_needs_retry", "x_fal_retryable"])
    @pytest.mark.parametrize(
        ("text", "retryable"), [("false", False), ("0", False), ("true", True), ("?", True)]
    )
    def test_that_may_pass_follows_the_retry_header(self, header: str, text: str, retryable: bool) -> None:
        fact = verdict(reply(500, typed("internal_server_error"), **{header: text}))
        assert fact.error.retryable is retryable
        assert verdict(reply(422, typed("one_of"), **{header: text})).error.retryable is False

    @pytest.mark.parametrize(
        "body",
        [
            POLICY,
            {"detail": [*typed("one_of")["detail"], *POLICY["detail"]]},
            {"detail": "content_policy_violation"},
            {"detail": {"type": "content_policy_violation"}},
            {"detail": "x", "error_type": "content_policy_violation"},
            {"error": "content_policy_violation"},
        ],
    )
    @pytest.mark.parametrize("status", [400, 403, 422, 500])
    def test_of_content_policy_blocks_wherever_it_stands(self, status: int, body: Any) -> None:
        fact = verdict(reply(status, body))
        assert isinstance(fact, ProviderBlocked)
        assert (fact.error.code, fact.error.retryable) == (ErrorCode.CONTENT_BLOCKED, False)
        assert (fact.error.provider_status, fact.error.provider_error) == (status, body)

    @pytest.mark.parametrize("body", [{"detail": "plain text"}, {"detail": []}, b"", b"<html>", b"null", {}])
    def test_of_422_needs_no_shape(self, body: Any) -> None:
        assert verdict(reply(422, body)).error.code is REJECTED

    def test_with_zero_billed_units_costs_nothing(self) -> None:
        assert verdict(reply(422, typed("one_of"), x_fal_billable_units="0")).cost_usd == Decimal(0)


class TestARequestError:
    @pytest.mark.parametrize(("word", "status", "code", "retryable"), REQUEST_ERRORS)
    @pytest.mark.parametrize("told_by", ["status", "result", "header"])
    def test_is_told_by_its_error_type(
        self, word: str, status: int, code: ErrorCode, retryable: bool, told_by: str
    ) -> None:
        body = {"detail": "it went wrong"}
        before, result = {
            "status": (completed(error="it went wrong", error_type=word), reply(status, body)),
            "result": (completed(error=None, error_type=None), reply(status, {**body, "error_type": word})),
            "header": (completed(), reply(status, body, x_fal_error_type=word)),
        }[told_by]
        fact = verdict(result, before)
        assert isinstance(fact, ProviderFailed)
        assert (fact.error.code, fact.error.retryable) == (code, retryable)
        assert fact.error.provider_status == status
        assert word in fact.error.message

    def test_of_our_own_start_deadline_is_not_worth_a_new_submit(self) -> None:
        body = {"detail": "Request timed out", "error_type": "request_timeout"}
        fact = verdict(reply(504, body, x_fal_request_timeout_type="user"))
        assert (fact.error.code, fact.error.retryable) == (ErrorCode.DEADLINE_EXCEEDED, False)
        assert verdict(reply(504, b"", x_fal_request_timeout_type="user")).error.code is fact.error.code

    @pytest.mark.parametrize("body", [b"", {"detail": "canceled"}])
    def test_499_is_a_canceled_request(self, body: Any) -> None:
        assert verdict(reply(499, body)).error.code is ErrorCode.CANCELED


class TestACompletedStatusWithAnError:
    @pytest.mark.parametrize("status", [200, 404, 410])
    def test_is_a_failure_whatever_the_result_request_answers(self, status: int) -> None:
        fact = verdict(
            reply(status, RESULT), completed(error="Runner went away", error_type="runner_disconnected")
        )
        assert isinstance(fact, ProviderFailed)
        assert (fact.error.code, fact.error.retryable, fact.error.provider_status) == (FAILED, True, 503)
        assert fact.error.provider_error == {"error": "Runner went away", "error_type": "runner_disconnected"}

    def test_without_a_type_is_a_failure_too(self) -> None:
        fact = verdict(reply(200, RESULT), completed(error="boom"))
        assert (fact.error.code, fact.error.provider_status) == (FAILED, None)

    @pytest.mark.parametrize(
        ("status", "code"), [(401, REJECTED), (404, REJECTED), (422, REJECTED), (503, FAILED)]
    )
    def test_that_names_the_models_status_makes_that_answer_the_models(
        self, status: int, code: ErrorCode
    ) -> None:
        fact = verdict(reply(status, {"detail": "x"}), completed(error=f"Invalid status code: {status}"))
        assert (fact.error.code, fact.error.provider_status) == (code, status)

    def test_waits_for_the_reasons_where_the_result_request_meets_other_trouble(self) -> None:
        before = completed(error="Invalid status code: 422")
        assert isinstance(asked(before, reply(502, b"<html>")), NoNews)
        assert isinstance(asked(before, reply(429, {"detail": "slow down"})), NoNews)
        assert isinstance(verdict(reply(422, POLICY), before), ProviderBlocked)

    @pytest.mark.parametrize("error", ["", None, 0, False, {}])
    def test_is_none_when_the_members_are_empty(self, error: Any) -> None:
        assert isinstance(
            verdict(reply(200, RESULT), completed(error=error, error_type=error)), ProviderSucceeded
        )


class TestTroubleWithTheResultRequest:
    @pytest.mark.parametrize(
        "result",
        [
            *(reply(status, {"detail": "no"}, retry_after="2") for status in (401, 402, 403, 408, 429)),
            reply(403, {"detail": [{"type": "forbidden"}]}),
            reply(400, {"detail": "Request is still in progress"}),
            reply(400, b"bad gateway"),
            reply(418, b""),
            reply(500, {"detail": "Internal Server Error"}),
            reply(500, b"oops", **OWN),
            reply(500, {"message": "x"}, **OWN),
            reply(502, b"<html>nginx</html>"),
            reply(503, {"detail": "Service Unavailable"}, **OWN),
            reply(504, b"", **OWN),
            reply(504, b"", x_fal_request_timeout_type="fal"),
        ],
    )
    def test_only_means_ask_again(self, result: Reply) -> None:
        news = asked(completed(), result)
        assert news.reason == f"fal answered the result request with {result.status}."
        assert news.facts == ()
        assert news.retry_after_ms == (2_000 if "retry-after" in result.headers else None)

    @pytest.mark.parametrize(
        ("result", "code"),
        [
            (reply(500, {"detail": "Internal Server Error"}, **OWN), FAILED),
            (reply(400, {"detail": "cannot"}), REJECTED),
            (reply(413, {"detail": "too large"}), REJECTED),
            (reply(404, {"detail": "no such path"}, x_fal_billable_units="0"), REJECTED),
        ],
    )
    def test_is_told_from_what_an_app_answers(self, result: Reply, code: ErrorCode) -> None:
        assert verdict(result).error.code is code

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_result_that_is_gone_has_expired(self, status: int) -> None:
        error = verdict(reply(status, {"detail": "Request not found"})).error
        assert (error.code, error.retryable, error.provider_status) == (
            ErrorCode.RESULT_EXPIRED,
            False,
            status,
        )
