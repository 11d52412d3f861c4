"""What a decision asks for, told as the lives of jobs."""

from dataclasses import replace
from decimal import Decimal

import pytest

from service.domain import facts
from service.domain.effects import WHOLE_JOB, Announce, Drop, DropAll, Schedule, Work
from service.domain.failures import ErrorCode
from service.domain.machine import LATE_ASKS_MS, decide, may_resubmit
from service.domain.results import Output
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain
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
    queued,
    running,
    started,
    succeeded,
    taken,
    unknown,
)

SUBMIT_DROPPED = Drop(Work.SUBMIT, WHOLE_JOB)
RESUBMIT = OnUncertain.RESUBMIT


def scheduled(story: Story) -> set[Work]:
    return {effect.work for effect in story.effects if isinstance(effect, Schedule)}


def in_doubt() -> Story:
    """Begin a job that may be sent once more, and whose first attempt has an unknown fate."""
    return Story(on_uncertain=RESUBMIT).tell(started(1), unknown(1))


class TestSubmitting:
    def test_the_intent_alone_asks_for_nothing_and_keeps_the_row_that_a_crash_is_found_by(self) -> None:
        story = Story().tell(started(1))
        assert story.effects == ()
        assert story.rows == {(Work.SUBMIT, WHOLE_JOB)}

    def test_what_was_taken_is_asked_for_when_its_callback_does_not_come_and_never_sent_again(self) -> None:
        story = Story().tell(started(1), accepted(1, ask_ms=NOW + 17))
        assert Schedule(Work.ASK, 1, NOW + 17) in story.effects
        assert SUBMIT_DROPPED in story.effects
        assert story.announced == ["job.submitted"]

    def test_without_a_time_to_ask_it_is_asked_for_at_once(self) -> None:
        assert Schedule(Work.ASK, 1, NOW) in Story().tell(started(1), accepted(1, ask_ms=None)).effects

    def test_what_is_put_off_is_sent_later_as_the_same_attempt_and_says_why(self) -> None:
        story = Story().tell(started(1), postponed(1))
        assert story.effects == (Schedule(Work.SUBMIT, WHOLE_JOB, samples.PARKED.next_try_ms),)
        assert (story.job.state, story.job.waiting) == (JobState.ACCEPTED, samples.PARKED)
        story.tell(started(1))
        assert [one.id for one in story.job.attempts] == ["att_1"]
        assert story.job.waiting is None

    def test_what_is_put_off_is_not_sent_under_the_id_of_another_attempt(self) -> None:
        assert not decide(Story().tell(started(1), postponed(1)).job, started(2), NOW).moved

    def test_a_result_before_the_answer_to_the_submit_ends_the_job_and_the_answer_fills_in_the_id(
        self,
    ) -> None:
        story = Story().tell(started(1), succeeded(1))
        assert story.job.state is JobState.SUCCEEDED
        story.tell(accepted(1, links={"status": "https://queue.example/s"}))
        one = story.job.attempts[0]
        assert (one.provider_request_id, one.state) == ("req_1", AttemptState.SUCCEEDED)
        assert one.links == {"status": "https://queue.example/s"}
        assert story.effects == ()

    def test_a_refused_submit_ends_the_job_as_learned_from_the_response(self) -> None:
        story = Story().tell(started(1), failed(1, cause="submit"))
        assert (story.job.state, story.job.learned_by) == (JobState.FAILED, LearnedBy.RESPONSE)
        assert story.rows == set()

    def test_a_second_id_for_an_attempt_is_only_a_line_in_the_history(self) -> None:
        story = Story().tell(started(1), accepted(1))
        assert decide(story.job, accepted(1, provider_request_id="req_9"), NOW).job == story.job

    def test_the_time_of_the_submit_is_the_first_one_told_or_when_the_intent_was_committed(self) -> None:
        story = Story().tell(started(1), accepted(1, submitted_ms=NOW - 5), accepted(1, submitted_ms=NOW))
        assert story.job.attempts[0].submitted_ms == NOW - 5
        assert Story().tell(started(1), accepted(1)).job.attempts[0].submitted_ms == NOW

    def test_a_repeated_answer_does_not_put_back_the_place_in_the_queue(self) -> None:
        story = Story().tell(started(1), accepted(1, queue_position=9), queued(1, 3))
        story.tell(accepted(1, queue_position=9))
        assert story.job.attempts[0].queue_position == 3

    def test_the_links_told_first_stay_and_missing_ones_are_filled_in(self) -> None:
        links = {"status": "https://queue.example/s"}
        story = Story().tell(
            started(1), accepted(1), accepted(1, links=links), accepted(1, links={"status": "x"})
        )
        assert story.job.attempts[0].links == links

    def test_progress_before_anybody_took_it_is_not_believed(self) -> None:
        story = Story().tell(started(1), running(1))
        assert story.job.attempts[0].state is AttemptState.SUBMITTING

    def test_a_swept_unknown_that_comes_after_the_request_was_put_off_does_not_burn_the_attempt(self) -> None:
        story = Story().tell(started(1), postponed(1), unknown(1))
        assert story.job.attempts[0].state is AttemptState.SUBMITTING
        assert decide(story.job, started(1), NOW).moved

    def test_what_was_put_off_and_turns_out_to_be_taken_is_not_sent_again(self) -> None:
        story = Story(on_uncertain=RESUBMIT).tell(started(1), postponed(1), accepted(1))
        assert SUBMIT_DROPPED in story.effects
        assert story.job.waiting is None
        assert not any(decide(story.job, started(number), NOW).moved for number in (1, 2))
        assert story.tell(succeeded(1)).job.state is JobState.SUCCEEDED


class TestUncertain:
    def test_an_unknown_fate_is_reconciled_and_announced_and_by_default_never_sent_again(self) -> None:
        story = Story().tell(started(1), unknown(1))
        assert Schedule(Work.RECONCILE, 1, NOW + 10_000) in story.effects
        assert SUBMIT_DROPPED in story.effects
        assert story.announced == ["job.uncertain"]
        assert not decide(story.job, started(2), NOW).moved
        assert len(decide(story.job, started(2), NOW).job.attempts) == 1

    def test_where_it_was_asked_for_one_more_attempt_is_scheduled(self) -> None:
        story = in_doubt()
        assert Schedule(Work.SUBMIT, WHOLE_JOB, NOW + 120_000) in story.effects
        assert may_resubmit(story.job)
        story.tell(started(2))
        assert [one.number for one in story.job.attempts] == [1, 2]
        assert (Work.RECONCILE, 1) in story.rows

    def test_the_intent_to_send_once_more_needs_a_new_attempt(self) -> None:
        assert not decide(in_doubt().job, started(1), NOW).moved

    def test_a_second_unknown_holds(self) -> None:
        story = in_doubt().tell(started(2), unknown(2))
        assert story.job.state is JobState.UNCERTAIN
        assert SUBMIT_DROPPED in story.effects
        assert {(Work.RECONCILE, 1), (Work.RECONCILE, 2)} == story.rows
        assert not decide(story.job, started(3), NOW).moved

    def test_found_in_time_nothing_is_sent_again(self) -> None:
        story = in_doubt().tell(accepted(1))
        assert (Work.SUBMIT, WHOLE_JOB) not in story.rows
        assert (Work.RECONCILE, 1) not in story.rows
        assert not decide(story.job, started(2), NOW).moved

    def test_found_while_the_second_is_in_flight_the_job_is_queued_and_the_flight_is_still_watched(
        self,
    ) -> None:
        story = in_doubt().tell(started(2), accepted(1))
        assert story.job.state is JobState.QUEUED
        assert (Work.SUBMIT, WHOLE_JOB) in story.rows
        story.tell(accepted(2))
        assert (Work.SUBMIT, WHOLE_JOB) not in story.rows
        assert {(Work.ASK, 1), (Work.ASK, 2)} == story.rows
        assert story.announced == ["job.uncertain", "job.submitted"]

    def test_found_while_the_second_is_in_flight_an_unknown_second_is_reconciled_too(self) -> None:
        story = in_doubt().tell(started(2), accepted(1), unknown(2))
        assert story.job.state is JobState.QUEUED
        assert {(Work.ASK, 1), (Work.RECONCILE, 2)} == story.rows

    @pytest.mark.parametrize("order", [(postponed(2), accepted(1)), (accepted(1), postponed(2))])
    def test_found_while_the_second_is_put_off_the_second_is_given_up(self, order: list[facts.Fact]) -> None:
        story = in_doubt().tell(started(2), *order)
        assert [one.state for one in story.job.attempts] == [AttemptState.QUEUED, AttemptState.CANCELED]
        assert story.job.waiting is None
        assert story.rows == {(Work.ASK, 1)}
        assert not any(decide(story.job, started(number), NOW).moved for number in (1, 2, 3))
        assert story.tell(failed(1)).job.state is JobState.FAILED

    def test_what_was_given_up_and_delivers_all_the_same_wins(self) -> None:
        story = in_doubt().tell(started(2), postponed(2), accepted(1), succeeded(2))
        assert story.job.state is JobState.SUCCEEDED
        assert story.job.attempts[1].state is AttemptState.SUCCEEDED
        assert {(Work.ARCHIVE, 2), (Work.CANCEL, 1), (Work.ASK, 1)} == story.rows

    def test_one_request_of_the_provider_belongs_to_one_attempt(self) -> None:
        story = in_doubt().tell(started(2), unknown(2), accepted(2), accepted(1, provider_request_id="req_2"))
        assert story.job.attempts[0].provider_request_id is None

    def test_a_success_after_the_failure_of_another_attempt_counts(self) -> None:
        story = in_doubt().tell(started(2), accepted(2), failed(1))
        assert story.job.state is JobState.QUEUED
        assert story.tell(succeeded(2)).job.state is JobState.SUCCEEDED

    def test_when_both_fail_the_job_fails_with_the_last_error(self) -> None:
        last = replace(samples.FAILURE, code=ErrorCode.EMPTY_RESULT)
        story = in_doubt().tell(started(2), accepted(1), accepted(2), failed(2), failed(1, error=last))
        assert (story.job.state, story.job.error) == (JobState.FAILED, last)

    def test_a_failed_attempt_that_answers_again_does_not_revive_the_doubt(self) -> None:
        story = in_doubt().tell(started(2), unknown(2), failed(1), accepted(1))
        assert story.job.state is JobState.UNCERTAIN
        assert (Work.ASK, 1) not in story.rows

    def test_the_newest_taken_attempt_shows_how_far_the_job_is(self) -> None:
        story = in_doubt().tell(started(2), accepted(1), accepted(2), running(1))
        assert story.job.state is JobState.QUEUED
        assert story.tell(running(2)).job.state is JobState.RUNNING
        assert story.tell(failed(2)).job.state is JobState.RUNNING
        assert story.tell(queued(1)).job.state is JobState.QUEUED

    def test_a_first_attempt_that_answers_late_is_a_late_result_and_the_first_result_stays(self) -> None:
        late = Output(images=samples.KEPT, seed="2")
        story = in_doubt().tell(started(2), accepted(2), succeeded(2))
        story.tell(accepted(1), succeeded(1, output=late, cost_usd=Decimal("0.03")))
        assert story.job.output == samples.OUTPUT
        assert story.job.attempts[0].output == late
        assert story.job.attempts[0].cost_usd == Decimal("0.03")
        assert story.announced[-1] == "job.late_result"


class TestTheEnd:
    def test_of_a_success_keeps_the_files_and_forgets_all_other_work(self) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1))
        assert story.effects == (DropAll(), Schedule(Work.ARCHIVE, 1, NOW), Announce("job.succeeded"))

    @pytest.mark.parametrize(
        ("archive", "output"), [(False, samples.OUTPUT), (True, replace(samples.OUTPUT, images=()))]
    )
    def test_of_a_success_without_files_to_keep_keeps_none(self, archive: bool, output: Output) -> None:
        story = Story(archive=archive).tell(started(1), accepted(1), succeeded(1, output=output))
        assert story.effects == (DropAll(), Announce("job.succeeded"))

    def test_of_a_failure_asks_for_nothing(self) -> None:
        story = Story().tell(started(1), accepted(1), failed(1))
        assert story.effects == (DropAll(), Announce("job.failed"))
        assert story.job.error == samples.FAILURE

    @pytest.mark.parametrize(("fact", "name"), [(cancel(), "canceled"), (deadline(), "expired")])
    def test_by_us_cancels_at_the_provider_and_asks_again_after_a_minute(
        self, fact: facts.Fact, name: str
    ) -> None:
        story = Story().tell(started(1), accepted(1), running(1), fact)
        assert story.effects == (
            DropAll(),
            Schedule(Work.CANCEL, 1, NOW),
            Schedule(Work.ASK, 1, NOW + 60_000),
            Announce(f"job.{name}"),
        )
        assert story.job.attempts[0].state is AttemptState(name)
        assert story.job.attempts[0].completed_ms == NOW
        assert story.job.attempts[0].learned_by is story.job.learned_by is not None

    def test_is_asked_after_once_more_five_minutes_later(self) -> None:
        assert LATE_ASKS_MS == (60_000, 300_000)

    @pytest.mark.parametrize("doubt", [(), (unknown(1),)])
    @pytest.mark.parametrize("fact", [cancel(), deadline()])
    def test_before_the_id_is_known_cancels_at_the_provider_once_it_is(
        self, doubt: list[facts.Fact], fact: facts.Fact
    ) -> None:
        story = Story().tell(started(1), *doubt, fact)
        assert story.rows == set()
        story.tell(accepted(1))
        assert story.effects == (Schedule(Work.CANCEL, 1, NOW), Schedule(Work.ASK, 1, NOW + 60_000))
        assert story.job.attempts[0].provider_request_id == "req_1"

    def test_of_an_unsent_job_asks_nobody(self) -> None:
        assert Story().tell(cancel()).effects == (DropAll(), Announce("job.canceled"))

    def test_by_one_attempt_cancels_the_other(self) -> None:
        story = in_doubt().tell(started(2), accepted(1), accepted(2), succeeded(1))
        assert story.rows == {(Work.ARCHIVE, 1), (Work.CANCEL, 2), (Work.ASK, 2)}

    def test_closes_an_attempt_that_was_put_off_and_will_never_be_sent(self) -> None:
        story = in_doubt().tell(started(2), postponed(2), succeeded(1))
        assert story.job.attempts[1].state is AttemptState.CANCELED

    def test_leaves_an_attempt_in_flight_open_until_its_answer(self) -> None:
        story = in_doubt().tell(started(2), succeeded(1))
        assert story.job.attempts[1].state is AttemptState.SUBMITTING
        assert story.tell(postponed(2)).job.attempts[1].state is AttemptState.CANCELED

    @pytest.mark.parametrize(
        ("cause", "by"),
        [
            ("callback:cb_1", LearnedBy.CALLBACK),
            ("poll", LearnedBy.POLL),
            ("submit", LearnedBy.RESPONSE),
            ("operator", LearnedBy.OPERATOR),
            ("api:key_1", LearnedBy.OPERATOR),
            ("clock", LearnedBy.CLOCK),
        ],
    )
    def test_tells_by_which_way_it_was_learned(self, cause: str, by: LearnedBy) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1, cause=cause))
        assert (story.job.learned_by, story.job.attempts[0].learned_by) == (by, by)
        assert decide(job(), cancel(cause=cause), NOW).job.learned_by is by

    def test_tells_how_long_after_the_providers_own_end_it_was_learned(self) -> None:
        begun = (started(1), accepted(1))
        for completed_ms, lag in ((NOW - 41, 41), (NOW + 500, 0), (None, None)):
            story = Story().tell(*begun, succeeded(1, provider_completed_ms=completed_ms))
            assert story.job.attempts[0].lag_ms == lag

    def test_settles_the_cost_that_the_result_names_over_that_of_the_submit(self) -> None:
        begun = (started(1), accepted(1, cost_usd=Decimal("0.05")))
        told = Story().tell(*begun, succeeded(1, cost_usd=Decimal(0)))
        assert told.job.attempts[0].cost_usd == Decimal(0)
        untold = Story().tell(*begun, succeeded(1))
        assert untold.job.attempts[0].cost_usd == Decimal("0.05")

    def test_takes_a_cost_that_is_told_later_but_no_second_one(self) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1))
        story.tell(succeeded(1, cost_usd=Decimal("0.03")), succeeded(1, cost_usd=Decimal(9)))
        assert story.job.attempts[0].cost_usd == Decimal("0.03")
        assert "job.late_result" not in story.announced


class TestTheDeadline:
    def test_of_an_unsent_job_may_be_tried_again(self) -> None:
        error = Story().tell(deadline()).job.error
        assert error is not None
        assert (error.code, error.retryable) == (ErrorCode.DEADLINE_EXCEEDED, True)

    @pytest.mark.parametrize("begun", [(started(1),), (started(1), accepted(1))])
    def test_of_a_job_that_may_have_been_taken_is_no_advice_to_try_again(
        self, begun: list[facts.Fact]
    ) -> None:
        error = Story().tell(*begun, deadline()).job.error
        assert error is not None
        assert (error.code, error.retryable) == (ErrorCode.DEADLINE_EXCEEDED, False)

    def test_of_an_uncertain_job_says_so(self) -> None:
        error = Story().tell(started(1), unknown(1), deadline()).job.error
        assert error is not None
        assert (error.code, error.retryable) == (ErrorCode.SUBMIT_UNCERTAIN, False)

    def test_of_a_job_that_waits_names_what_it_waited_for(self) -> None:
        story = Story().tell(started(1), postponed(1), deadline())
        assert story.job.error is not None
        assert (story.job.error.code, story.job.error.retryable) == (ErrorCode.INSUFFICIENT_CREDIT, True)
        assert story.job.waiting is None
        assert story.job.attempts[0].state is AttemptState.EXPIRED

    def test_of_a_job_that_waits_after_an_attempt_of_unknown_fate_is_no_advice_to_try_again(self) -> None:
        error = in_doubt().tell(started(2), postponed(2), deadline()).job.error
        assert error is not None
        assert (error.code, error.retryable) == (ErrorCode.INSUFFICIENT_CREDIT, False)


class TestALateResult:
    @pytest.mark.parametrize("end", [cancel(), deadline()])
    def test_is_kept_in_its_attempt_with_its_cost_and_announced_once(self, end: facts.Fact) -> None:
        story = Story().tell(started(1), accepted(1), end)
        state = story.job.state
        story.tell(succeeded(1, cause="poll", cost_usd=Decimal("0.03")))
        one = story.job.attempts[0]
        assert (story.job.state, story.job.output, one.output) == (state, None, samples.OUTPUT)
        assert (one.state.value, one.outcome, one.cost_usd) == (
            state.value,
            AttemptState.SUCCEEDED,
            Decimal("0.03"),
        )
        assert story.rows == set()
        story.tell(succeeded(1))
        assert story.announced.count("job.late_result") == 1

    def test_that_is_a_failure_is_announced_only_if_it_cost_something(self) -> None:
        free = Story().tell(started(1), accepted(1), cancel(), failed(1))
        assert "job.late_result" not in free.announced
        paid = Story().tell(started(1), accepted(1), cancel(), failed(1, cost_usd=Decimal("0.01")))
        assert paid.announced[-1] == "job.late_result"

    def test_stops_the_asking_and_the_canceling(self) -> None:
        story = Story().tell(started(1), accepted(1), cancel())
        assert story.rows == {(Work.CANCEL, 1), (Work.ASK, 1)}
        assert story.tell(failed(1)).rows == set()

    def test_keeps_its_files_with_the_provider(self) -> None:
        story = Story().tell(started(1), accepted(1), cancel(), succeeded(1), samples.kept(1))
        assert story.job.attempts[0].output == samples.OUTPUT
        assert story.job.output is None


class TestKeptFiles:
    def test_take_the_place_of_the_providers_and_are_announced_once(self) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1), samples.kept(1), samples.kept(1))
        assert story.job.output == replace(samples.OUTPUT, images=samples.KEPT)
        assert story.announced.count("job.archived") == 1

    def test_of_another_attempt_than_the_one_that_won_are_not_the_jobs(self) -> None:
        story = in_doubt().tell(started(2), accepted(2), succeeded(2), accepted(1), succeeded(1))
        assert story.tell(samples.kept(1)).job.output == samples.OUTPUT
        assert story.tell(samples.kept(2)).job.output == replace(samples.OUTPUT, images=samples.KEPT)

    def test_that_are_lost_leave_the_providers_and_announce_nothing(self) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1), samples.lost(1))
        assert story.job.output == samples.OUTPUT
        assert story.announced[-1] == "job.succeeded"

    def test_that_are_lost_in_part_keep_the_rest(self) -> None:
        story = Story().tell(started(1), accepted(1), succeeded(1))
        story.tell(replace(samples.lost(1), images=samples.KEPT))
        assert story.job.output == replace(samples.OUTPUT, images=samples.KEPT)


def test_progress_without_news_changes_nothing() -> None:
    given = job(JobState.QUEUED, taken(1, queue_position=4))
    assert decide(given, queued(1, 4), NOW).job is given
    assert decide(given, queued(1, 3), NOW).job.attempts[0].queue_position == 3


def test_a_cause_that_the_contract_does_not_know_has_no_way_of_learning() -> None:
    for cause in ("", "webhook", "callback_cb_1", "polls"):
        with pytest.raises(ValueError, match="unknown cause"):
            facts.learned_by(cause)
