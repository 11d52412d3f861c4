"""Asking BFL: which hosts, which words, and what each means."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from service.domain.facts import (
    Fact,
    ProviderBlocked,
    ProviderFailed,
    ProviderQueued,
    ProviderStarted,
    ProviderSucceeded,
)
from service.domain.failures import ErrorCode
from service.providers.base import Answer, Call, NoNews, Reply, Search, Stage, Subject, Trouble
from service.providers.bfl import Bfl

TASK = "023a1507-369e-46e0-bd6d-1f3446d7d5f2"
LINK = f"https://api.us3.bfl.ai/v1/get_result?id={TASK}"
SAMPLE = "https://delivery-eu.bfl.ai/results/c5/sample.jpeg?se=2026-11-20T10%3A39%3A23Z&sig=a%3D"
BFL = Bfl(key="bfl-key", url="https://api.bfl.ai")

Outcome = tuple[Fact, ...] | NoNews


def subject(link: str | None = LINK) -> Subject:
    return Subject(
        attempt_id="att_1",
        model="flux-2-pro",
        provider_request_id=TASK,
        links={"status": link} if link else {},
        open=True,
        now_ms=0,
    )


def asked(*answers: Answer, link: str | None = LINK, bfl: Bfl = BFL) -> tuple[list[Call], Outcome]:
    """Drive the talk; the last answer is repeated for as long as it goes on."""
    talk, calls = bfl.ask(subject(link)), []
    source: Iterator[Answer] = iter(answers)
    answer = answers[-1]
    try:
        calls.append(next(talk))
        while True:
            answer = next(source, answer)
            calls.append(talk.send(answer))
    except StopIteration as end:
        return calls, end.value


def reply(document: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status=status, headers=headers, body=json.dumps(document).encode())


def told(**members: Any) -> Outcome:
    return asked(reply({"id": TASK, "result": None, "progress": None, **members}))[1]


def only(outcome: Outcome) -> Fact:
    assert isinstance(outcome, tuple)
    (fact,) = outcome
    assert (fact.cause, fact.attempt_id) == ("poll", "att_1")
    return fact


NOT_FOUND = {"id": TASK, "status": "Task not found", "result": None}


class TestHosts:
    def test_the_polling_url_is_asked_alone_and_with_the_key(self) -> None:
        calls, outcome = asked(reply(NOT_FOUND, 404))
        assert [call.url for call in calls] == [LINK]
        assert calls[0].headers["x-key"] == "bfl-key"
        assert isinstance(outcome, NoNews)

    @pytest.mark.parametrize(
        "lost", [reply(NOT_FOUND, 404), reply(NOT_FOUND), Trouble(stage=Stage.NOT_SENT, reason="refused")]
    )
    def test_without_one_the_clusters_are_asked_in_turn_and_not_found_is_no_end(self, lost: Answer) -> None:
        calls, outcome = asked(lost, link=None)
        hosts = [call.url.removesuffix(f"/v1/get_result?id={TASK}") for call in calls]
        assert hosts == [
            "https://api.bfl.ai",
            "https://api.us3.bfl.ai",
            "https://api.us1.bfl.ai",
            "https://api.us.bfl.ai",
            "https://api.eu.bfl.ai",
        ]
        assert isinstance(outcome, NoNews)

    def test_the_first_cluster_that_knows_the_task_is_the_last_one_asked(self) -> None:
        pending = reply({"id": TASK, "status": "Pending"})
        calls, outcome = asked(reply(NOT_FOUND, 404), pending, link=None)
        assert len(calls) == 2
        assert isinstance(outcome, NoNews)
        assert [type(fact) for fact in outcome.facts] == [ProviderQueued]

    def test_a_regional_host_comes_first_and_once(self) -> None:
        calls, _ = asked(reply(NOT_FOUND, 404), link=None, bfl=Bfl(key="k", url="https://api.eu.bfl.ai"))
        urls = [call.url for call in calls]
        assert urls[0].startswith("https://api.eu.bfl.ai/")
        assert len(set(urls)) == len(urls) == 5

    def test_a_configured_origin_is_the_only_one(self) -> None:
        bfl = Bfl(key="k", url="http://127.0.0.1:9090/bfl")
        calls, _ = asked(reply(NOT_FOUND, 404), link=None, bfl=bfl)
        assert [call.url for call in calls] == [f"http://127.0.0.1:9090/bfl/v1/get_result?id={TASK}"]

    def test_a_kept_link_that_may_not_carry_the_key_is_not_used(self) -> None:
        calls, _ = asked(reply(NOT_FOUND, 404), link="https://attacker.example/v1/get_result")
        assert calls[0].url == f"https://api.bfl.ai/v1/get_result?id={TASK}"

    def test_too_many_questions_are_not_answered_by_more(self) -> None:
        calls, outcome = asked(reply({}, 429, **{"retry-after": "9"}), link=None)
        assert len(calls) == 1
        assert isinstance(outcome, NoNews)
        assert outcome.retry_after_ms == 9_000


class TestEnds:
    def test_a_ready_task_is_told_whole(self) -> None:
        result = {
            "sample": SAMPLE,
            "seed": 2400964722,
            "start_time": 1754216958.97,
            "end_time": 1754216963.93,
        }
        fact = only(told(status="Ready", result=result, cost=4.5))
        assert isinstance(fact, ProviderSucceeded)
        (image,) = fact.output.images
        assert (image.url, image.content_type) == (SAMPLE, "image/jpeg")
        assert (fact.output.seed, fact.output.raw) == ("2400964722", result)
        assert fact.cost_usd == Decimal("0.045")
        assert fact.provider_completed_ms == 1754216963930

    @pytest.mark.parametrize(
        ("seed", "text"),
        [(0, "0"), (-7, "-7"), (2**64, "18446744073709551616"), ("42", "42"), (True, None), (1.5, None)],
    )
    def test_a_seed_is_exact_text_or_nothing(self, seed: Any, text: str | None) -> None:
        fact = only(told(status="Ready", result={"sample": SAMPLE, "seed": seed}))
        assert isinstance(fact, ProviderSucceeded)
        assert fact.output.seed == text

    @pytest.mark.parametrize("end_time", [None, True, "1754216963.93", -1, 0, 1e300, [1]])
    def test_a_time_that_is_none_is_not_told(self, end_time: Any) -> None:
        fact = only(told(status="Ready", result={"sample": SAMPLE, "end_time": end_time}))
        assert isinstance(fact, ProviderSucceeded)
        assert fact.provider_completed_ms is None

    def test_a_settled_cost_of_nothing_is_a_cost(self) -> None:
        fact = only(told(status="Error", cost=0))
        assert isinstance(fact, ProviderFailed)
        assert fact.cost_usd == Decimal(0)

    @pytest.mark.parametrize(
        "result", [None, {}, [], "x", {"sample": None}, {"sample": ""}, {"sample": ["x"]}]
    )
    def test_a_ready_task_without_a_file_fails_as_empty(self, result: Any) -> None:
        fact = only(told(status="Ready", result=result))
        assert isinstance(fact, ProviderFailed)
        assert fact.error.code is ErrorCode.EMPTY_RESULT

    @pytest.mark.parametrize(
        "sample",
        ["javascript:alert(1)", "file:///etc/passwd", "http://elsewhere.example/a.png", "https://a@b/c", "x"],
    )
    def test_a_file_that_no_client_should_open_is_none(self, sample: str) -> None:
        assert isinstance(only(told(status="Ready", result={"sample": sample})), ProviderFailed)

    def test_a_file_at_an_unknown_host_is_delivered_and_never_fetched_by_us(self) -> None:
        sample = "https://bfldeliveryprod.blob.core.windows.net/results/a.png"
        fact = only(told(status="Ready", result={"sample": sample}))
        assert isinstance(fact, ProviderSucceeded)
        assert fact.output.images[0].url == sample
        assert not BFL.may_download(sample)

    @pytest.mark.parametrize(
        ("status", "retryable", "moderated"),
        [("Request Moderated", False, "request"), ("Content Moderated", True, "content")],
    )
    def test_moderation_says_what_was_refused_and_why(
        self, status: str, retryable: bool, moderated: str
    ) -> None:
        details = {"Moderation Reasons": ["Derivative Works Filter", 7]}
        fact = only(told(status=status, details=details))
        assert isinstance(fact, ProviderBlocked)
        assert fact.error.code is ErrorCode.CONTENT_BLOCKED
        assert fact.error.retryable is retryable
        assert "Derivative Works Filter" in fact.error.message
        assert fact.error.provider_error["moderated"] == moderated

    @pytest.mark.parametrize("status", ["Error", "Failed", "FAILURE"])
    def test_a_failure_may_be_tried_again_by_the_caller(self, status: str) -> None:
        fact = only(told(status=status, details={"why": "x"}))
        assert isinstance(fact, ProviderFailed)
        assert (fact.error.code, fact.error.retryable) == (ErrorCode.PROVIDER_FAILED, True)


class TestNoEnds:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [("Pending", ProviderQueued), ("Reasoning", ProviderStarted), ("Generating", ProviderStarted)],
    )
    def test_a_task_under_way_is_told_as_that(self, status: str, kind: type[Fact]) -> None:
        outcome = told(status=status)
        assert isinstance(outcome, NoNews)
        assert [type(fact) for fact in outcome.facts] == [kind]

    @pytest.mark.parametrize(
        "status", ["Finished", "Unmoderated", "Not Ready", "", None, 7, "Readyish", "cancelled"]
    )
    def test_an_unknown_word_is_neither_success_nor_an_end(self, status: Any) -> None:
        outcome = told(status=status, result={"sample": SAMPLE})
        assert isinstance(outcome, NoNews)
        assert outcome.facts == ()

    def test_an_answer_about_another_task_is_not_ours(self) -> None:
        assert isinstance(told(id="another", status="Ready", result={"sample": SAMPLE}), NoNews)

    @pytest.mark.parametrize("status", [201, 302, 400, 401, 402, 403, 404, 408, 422, 429, 500, 503])
    def test_no_other_answer_says_anything_of_the_task(self, status: int) -> None:
        document = {"id": TASK, "status": "Ready", "result": {"sample": SAMPLE}}
        assert isinstance(asked(reply(document, status))[1], NoNews)

    @pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"<html>", b'{"status":"Ready"', b"\xff\xfe"])
    def test_an_unreadable_answer_says_nothing(self, body: bytes) -> None:
        assert isinstance(asked(Reply(status=200, headers={}, body=body))[1], NoNews)

    def test_trouble_says_nothing(self) -> None:
        trouble = Trouble(stage=Stage.MAYBE_SENT, reason="The provider did not answer.")
        assert asked(trouble)[1] == NoNews(reason="The provider did not answer.")


class TestDownloads:
    @pytest.mark.parametrize(
        "host", ["delivery-eu.bfl.ai", "delivery-us1.bfl.ai", "delivery.ice.bfl.ai", "delivery.eu2.bfl.ai"]
    )
    def test_delivery_hosts_may_be_fetched_from(self, host: str) -> None:
        assert BFL.may_download(f"https://{host}/results/a.jpeg?se=1")

    @pytest.mark.parametrize(
        "url",
        [
            "https://delivery-eu.bfl.ai.attacker.example/a",
            "https://xdelivery-eu.bfl.ai/a",
            "https://deliveryeu.bfl.ai/a",
            "https://api.us3.bfl.ai/a",
            "http://delivery-eu.bfl.ai/a",
            "https://delivery-eu.bfl.ai:444/a",
            "https://user:pass@delivery-eu.bfl.ai/a",
            "https://delivery-eu.bfl.ai\\.attacker.example/a",
            "https://attacker.example/delivery-eu.bfl.ai",
            "https://[::1]/a",
            "ftp://delivery-eu.bfl.ai/a",
            "https://delivery-eu.bfl.ai:port/a",
            "",
        ],
    )
    def test_nothing_else_may(self, url: str) -> None:
        assert not BFL.may_download(url)

    def test_the_configured_origin_may_too(self) -> None:
        bfl = Bfl(key="k", url="http://127.0.0.1:9090/bfl")
        assert bfl.may_download("http://127.0.0.1:9090/bfl-delivery/a.png")
        assert not bfl.may_download("http://127.0.0.1:9091/bfl-delivery/a.png")
        assert not bfl.may_download("https://127.0.0.1:9090/bfl-delivery/a.png")


def test_bfl_cannot_cancel_and_lists_nothing() -> None:
    with pytest.raises(StopIteration) as end:
        next(BFL.cancel(subject()))
    assert end.value.value.answer == "not supported by the provider"
    search = Search(attempt_id="att_1", model="flux-2-pro", input={}, from_ms=0, until_ms=1)
    assert BFL.find(search) is None
    assert not BFL.wants_keys(None, 0)
