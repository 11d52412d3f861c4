"""The checks of the demo: each holds on a good record, and each fails on every way in which it can be broken."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.cli.demo.checks import Record, all_checks
from service.cli.demo.script import FEWEST_JOBS, MODELS, scenes

FINAL_CHECK = "every job is final"
TAKEN = "the provider took as many requests as there are attempts"
FORGED = "forged callbacks moved nothing"
FEED = "the feed equals the histories"


def at(second: int) -> str:
    return f"2026-11-20T12:00:{second:02d}.000Z"


def line(second: int, type_: str, before: str | None, after: str, **more: Any) -> dict[str, Any]:
    moved = {"moved": True, "cause": "submit"} | more
    return {"at": at(second), "type": type_, "from": before, "to": after, **moved}


def story(number: int, provider: str, way: str, *, forged: bool) -> dict[str, Any]:
    """Tell one job from both sides: it succeeded, learned by callback or by poll."""
    job_id, request_id = f"job_{number}", f"request-{number}"
    cause = f"callback:cb_{number}" if way == "callback" else "poll"
    history = [
        line(1, "job.accepted", None, "accepted", cause="api:key_1"),
        line(2, "submit.started", "accepted", "submitting"),
        line(3, "submit.accepted", "submitting", "queued"),
        line(5, "provider.succeeded", "queued", "succeeded", cause=cause),
        line(6, "result.kept", "succeeded", "succeeded", cause="poll", moved=False),
    ]
    callbacks = [{"id": f"cb_{number}", "verdict": "verified"}] if way == "callback" else []
    answers = [{"kind": "genuine", "status": 200}] if way == "callback" else []
    if forged:
        refused = {"cause": f"callback:cb_f{number}", "moved": False}
        history.insert(3, line(4, "callback.not_used", "queued", "queued", **refused))
        callbacks.append({"id": f"cb_f{number}", "verdict": "forged"})
        answers.append({"kind": "forged:wrong_key", "status": 401})
    return {
        "job": {
            "id": job_id, "provider": provider, "state": "succeeded", "learned_by": way,
            "attempts": [{"provider": provider, "provider_request_id": request_id}],
        },
        "history": history,
        "callbacks": callbacks,
        "request": {"id": request_id, "provider": provider, "answers": answers},
        "events": [
            event(job_id, number * 10 + seq, seq, type_, second, state)
            for seq, (type_, second, state) in enumerate(
                [
                    ("job.accepted", 1, "accepted"),
                    ("job.submitted", 3, "queued"),
                    ("job.succeeded", 5, "succeeded"),
                    ("job.archived", 6, "succeeded"),
                ],
                start=1,
            )
        ],
    }  # fmt: skip


def event(job_id: str, seq: int, job_seq: int, *told: Any) -> dict[str, Any]:
    type_, second, state = told
    return {
        "id": f"evt_{seq}", "seq": seq, "job_id": job_id, "job_seq": job_seq, "type": type_,
        "timestamp": at(second), "data": {"state": state},
    }  # fmt: skip


def good() -> Record:
    stories = [
        story(1, "fal", "callback", forged=False),
        story(2, "bfl", "callback", forged=True),
        story(3, "fal", "poll", forged=True),
        story(4, "bfl", "poll", forged=False),
    ]
    feed = [one for told in stories for one in told["events"]]
    return Record(
        jobs=[told["job"] for told in stories],
        histories={told["job"]["id"]: told["history"] for told in stories},
        callbacks={told["job"]["id"]: told["callbacks"] for told in stories},
        feed=feed,
        watched=[one["id"] for one in feed],
        accepted={"fal": 2, "bfl": 2},
        requests=[told["request"] for told in stories],
    )


def failing(record: Record) -> list[str]:
    return [check.name for check in all_checks(record) if not check.held]


def test_a_good_record_passes_every_check() -> None:
    checks = all_checks(good())
    assert [check.name for check in checks] == [
        FINAL_CHECK, TAKEN, FORGED, FEED,
        "bfl: learned by callback and by poll", "fal: learned by callback and by poll",
    ]  # fmt: skip
    assert all(check.held and check.detail for check in checks)


def an_open_job(record: Any) -> None:
    record.jobs[0]["state"] = "queued"
    record.feed[3]["data"]["state"] = "queued"


def one_request_too_many(record: Any) -> None:
    record.accepted["fal"] += 1


def a_provider_that_nobody_asked(record: Any) -> None:
    record.accepted["replicate"] = 1


def another_request_than_ours(record: Any) -> None:
    record.requests[3]["id"] = "request-9"


def an_attempt_without_a_request(record: Any) -> None:
    record.jobs[0]["attempts"].append({"provider": "fal", "provider_request_id": None})


def a_forged_callback_that_moved(record: Any) -> None:
    record.histories["job_2"][4]["cause"] = "callback:cb_f2"


def a_callback_that_was_never_kept_moved(record: Any) -> None:
    record.histories["job_4"][3]["cause"] = "callback:cb_9"


def a_forged_callback_that_is_not_kept(record: Any) -> None:
    del record.callbacks["job_3"][0]


def a_forged_callback_that_was_believed(record: Any) -> None:
    record.callbacks["job_3"][0]["verdict"] = "verified"


def a_forged_callback_without_a_line(record: Any) -> None:
    del record.histories["job_3"][3]


def no_forgery_at_all(record: Any) -> None:
    for request in record.requests:
        request["answers"] = [one for one in request["answers"] if one["kind"] == "genuine"]


def an_event_that_is_missing(record: Any) -> None:
    del record.feed[1], record.watched[1]


def an_event_without_a_move(record: Any) -> None:
    record.feed.insert(3, event("job_1", 13, 4, "job.running", 5, "succeeded"))
    record.feed[4] |= {"seq": 14, "job_seq": 5}
    record.watched.insert(3, "evt_13")


def a_move_without_an_event(record: Any) -> None:
    record.histories["job_1"].insert(3, line(4, "provider.started", "queued", "running"))


def an_event_at_another_time(record: Any) -> None:
    record.feed[2]["timestamp"] = at(9)


def events_out_of_order(record: Any) -> None:
    record.feed[4]["seq"] = 1


def a_gap_in_the_numbers_of_a_job(record: Any) -> None:
    record.feed[3]["job_seq"] = 5


def a_last_event_that_tells_another_state(record: Any) -> None:
    record.feed[3]["data"]["state"] = "running"


def files_that_the_history_does_not_know(record: Any) -> None:
    record.histories["job_1"].pop()


def events_of_a_stranger(record: Any) -> None:
    record.feed.append(event("job_9", 99, 1, "job.accepted", 1, "accepted"))
    record.watched.append("evt_99")


def a_reader_who_missed_an_event(record: Any) -> None:
    del record.watched[5]


def an_empty_feed(record: Any) -> None:
    record.feed.clear()
    record.watched.clear()


@pytest.mark.parametrize(
    ("break_it", "name"),
    [
        (an_open_job, FINAL_CHECK),
        (one_request_too_many, TAKEN),
        (a_provider_that_nobody_asked, TAKEN),
        (another_request_than_ours, TAKEN),
        (an_attempt_without_a_request, TAKEN),
        (a_forged_callback_that_moved, FORGED),
        (a_callback_that_was_never_kept_moved, FORGED),
        (a_forged_callback_that_is_not_kept, FORGED),
        (a_forged_callback_that_was_believed, FORGED),
        (a_forged_callback_without_a_line, FORGED),
        (no_forgery_at_all, FORGED),
        (an_event_that_is_missing, FEED),
        (an_event_without_a_move, FEED),
        (a_move_without_an_event, FEED),
        (an_event_at_another_time, FEED),
        (events_out_of_order, FEED),
        (a_gap_in_the_numbers_of_a_job, FEED),
        (a_last_event_that_tells_another_state, FEED),
        (files_that_the_history_does_not_know, FEED),
        (events_of_a_stranger, FEED),
        (a_reader_who_missed_an_event, FEED),
        (an_empty_feed, FEED),
    ],
)
def test_a_broken_promise_is_seen_by_its_own_check(break_it: Callable[[Any], None], name: str) -> None:
    record = copy.deepcopy(good())
    break_it(record)
    assert name in failing(record)


@pytest.mark.parametrize("provider", ["fal", "bfl"])
@pytest.mark.parametrize("way", ["callback", "poll"])
def test_a_way_of_learning_that_did_not_occur_is_seen(provider: str, way: str) -> None:
    record = copy.deepcopy(good())
    for job in record.jobs:
        if job["provider"] == provider and job["learned_by"] == way:
            job["learned_by"] = "clock"  # type: ignore[index]
    assert failing(record) == [f"{provider}: learned by callback and by poll"]


def test_a_record_of_nothing_passes_no_check() -> None:
    nothing = Record(jobs=[], histories={}, callbacks={}, feed=[], watched=[], accepted={}, requests=[])
    assert [check.held for check in all_checks(nothing)] == [False] * 4
    accepted = replace(nothing, accepted={"fal": 0, "bfl": 0})
    assert [check.held for check in all_checks(accepted)] == [False] * 6


@pytest.mark.parametrize("jobs", [FEWEST_JOBS, 7, 12, 50])
def test_however_few_jobs_each_provider_has_a_callback_that_comes_and_one_that_is_lost(jobs: int) -> None:
    laid_out = list(scenes(jobs))
    assert [scene.number for scene in laid_out] == list(range(1, jobs + 1))
    assert any(scene.dials["forge"] for scene in laid_out)
    for provider in MODELS:
        own = [scene for scene in laid_out if scene.provider == provider]
        disturbed = ("drop", "late", "forge", "duplicate", "reorder")
        assert any(not any(scene.dials[dial] for dial in disturbed) for scene in own)
        assert any(scene.dials["drop"] == 1 for scene in own)
