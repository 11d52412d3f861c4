"""The job as callers and consumers see it, and what the history keeps of a fact."""

from dataclasses import replace
from decimal import Decimal

import pytest

from service.domain import exact_json
from service.domain.canonical import canonical
from service.domain.fact_detail import detail_of
from service.domain.failures import ErrorCode, JobError
from service.domain.job_object import job_object, settled_usd, without_prompts
from service.domain.results import Output
from service.domain.states import AttemptState, JobState, LearnedBy
from tests.unit import samples
from tests.unit.invariants import Story
from tests.unit.samples import (
    NOW,
    accepted,
    cancel,
    deadline,
    failed,
    job,
    postponed,
    started,
    succeeded,
    taken,
)

#: The job object of the contract, section 4, without `input`, and its attempts.
FIELDS = [
    "id",
    "object",
    "state",
    "provider",
    "model",
    "output",
    "error",
    "learned_by",
    "waiting",
    "attempts",
    "cost",
    "metadata",
    "priority",
    "on_uncertain",
    "webhook_url",
    "retry_of",
    "deadline_s",
    "deadline_at",
    "created_at",
    "updated_at",
    "completed_at",
    "version",
]
ATTEMPT_FIELDS = [
    "id",
    "number",
    "provider",
    "model",
    "state",
    "provider_request_id",
    "queue_position",
    "submitted_at",
    "completed_at",
    "learned_by",
    "lag_ms",
    "cost_usd",
]
PROMPT = "a secret cat"


def test_it_has_the_fields_of_the_contract() -> None:
    shown = job_object(job(JobState.QUEUED, taken(1)), artifacts_url="")
    assert set(FIELDS) <= set(shown)
    assert set(ATTEMPT_FIELDS) <= set(shown["attempts"][0])
    assert (shown["object"], shown["deadline_at"]) == ("job", "2027-01-15T09:00:00.000Z")


def test_it_can_be_written_whatever_happened_to_the_job() -> None:
    stories = [
        Story(),
        Story().tell(started(1), postponed(1)),
        Story().tell(started(1), accepted(1), succeeded(1), samples.kept(1)),
        Story().tell(started(1), accepted(1), cancel(), succeeded(1, cost_usd=Decimal("0.0300"))),
        Story().tell(started(1), failed(1)),
    ]
    for story in stories:
        shown = job_object(story.job, artifacts_url="https://jobs.example")
        assert exact_json.loads(exact_json.dumps(shown)) == shown


def test_the_raw_output_is_not_in_it() -> None:
    shown = job_object(Story().tell(started(1), succeeded(1)).job, artifacts_url="")
    assert set(shown["output"]) == {"images", "seed"}


def test_a_file_is_the_providers_until_it_is_ours() -> None:
    story = Story().tell(started(1), succeeded(1))
    before = job_object(story.job, artifacts_url="https://jobs.example")["output"]["images"][0]
    after = job_object(story.tell(samples.kept(1)).job, artifacts_url="https://jobs.example")["output"][
        "images"
    ][0]
    assert (before["url"], before["artifact_id"]) == ("https://files.example/1.png", None)
    assert (after["url"], after["sha256"]) == ("https://jobs.example/v1/artifacts/art_1", "00")


def test_a_job_that_waits_says_why_and_until_when() -> None:
    shown = job_object(Story().tell(started(1), postponed(1)).job, artifacts_url="")
    assert shown["waiting"] == {
        "code": "insufficient_credit",
        "message": "No credit.",
        "since": "2027-01-15T08:00:00.000Z",
        "next_try_at": "2027-01-15T08:01:00.000Z",
    }


def test_a_result_after_the_end_is_in_its_attempt_with_its_cost() -> None:
    story = Story().tell(started(1), accepted(1), deadline(), succeeded(1, cost_usd=Decimal("0.0300")))
    shown = job_object(story.job, artifacts_url="")
    assert shown["output"] is None
    assert shown["attempts"][0]["output"]["seed"] == samples.OUTPUT.seed
    assert shown["cost"] == {"estimated_usd": None, "settled_usd": "0.03"}


def test_a_cost_is_settled_once_the_job_is_final_and_sums_all_attempts() -> None:
    both = (taken(1, cost_usd=Decimal("0.03")), taken(2, cost_usd=Decimal("0.04")), taken(3))
    assert settled_usd(job(JobState.SUCCEEDED, *both)) == Decimal("0.07")
    assert settled_usd(job(JobState.RUNNING, *both)) is None
    assert settled_usd(job(JobState.SUCCEEDED, taken(1))) is None


@pytest.mark.parametrize("detail", [None, "text", {"input": 1}, 3, ["a", {"msg": "b"}]])
def test_an_error_without_quoted_prompts_is_shown_whole(detail: object) -> None:
    error = JobError(code=ErrorCode.PROVIDER_REJECTED, message="no", provider_error={"detail": detail})
    shown = job_object(job(JobState.FAILED, error=error), artifacts_url="")
    assert without_prompts(shown) == shown


def test_prompts_that_an_error_quotes_are_cut_from_events_only() -> None:
    quoted = {
        "detail": [{"loc": ["body", "seed"], "msg": "wrong", "input": {"prompt": PROMPT}}, "x"],
        "more": 1,
    }
    error = JobError(code=ErrorCode.PROVIDER_REJECTED, message="no", provider_error=quoted)
    shown = job_object(job(JobState.FAILED, error=error), artifacts_url="")
    cut = without_prompts(shown)
    assert cut["error"]["provider_error"] == {
        "detail": [{"loc": ["body", "seed"], "msg": "wrong"}, "x"],
        "more": 1,
    }
    assert PROMPT in exact_json.dumps(shown)
    assert without_prompts(job_object(job(), artifacts_url=""))["error"] is None


@pytest.mark.parametrize("fact", samples.every_fact(1), ids=lambda fact: fact.type)
def test_the_history_keeps_of_every_fact_what_can_be_hashed(fact: object) -> None:
    assert canonical(detail_of(fact))


def test_the_history_says_what_a_fact_brought() -> None:
    lag = succeeded(1, cost_usd=Decimal("0.030"), provider_completed_ms=NOW)
    assert detail_of(lag).items() >= {"seed": "15860307465884635512", "cost_usd": "0.03", "images": 1}.items()
    assert detail_of(failed(1))["code"] == "provider_failed"
    assert detail_of(postponed(1))["code"] == "insufficient_credit"
    assert detail_of(accepted(1))["provider_request_id"] == "req_1"
    assert detail_of(samples.not_used(1))["verdict"] == "forged"
    assert detail_of(cancel()) == {}
    files = [{"artifact_id": "art_1", "sha256": "00"}]
    assert detail_of(samples.kept(1))["files"] == files
    assert detail_of(replace(samples.lost(1), images=samples.KEPT))["files"] == files


def test_the_history_keeps_no_prompt_and_no_result() -> None:
    output = Output(images=samples.OUTPUT.images, raw={"prompt": PROMPT})
    error = JobError(
        code=ErrorCode.PROVIDER_REJECTED, message="no", provider_error={"detail": [{"input": PROMPT}]}
    )
    for fact in (succeeded(1, output=output), failed(1, error=error)):
        kept = canonical(detail_of(fact)).decode()
        assert PROMPT not in kept
        assert "https://" not in kept


def test_states_are_shown_as_words() -> None:
    given = job(JobState.QUEUED, taken(1, AttemptState.RUNNING), learned_by=LearnedBy.CALLBACK)
    shown = job_object(given, artifacts_url="")
    assert (shown["state"], shown["attempts"][0]["state"], shown["learned_by"]) == (
        "queued",
        "running",
        "callback",
    )
