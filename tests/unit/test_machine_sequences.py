"""Any facts in any order: random sequences, and every job that two attempts can lead to."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.domain import facts
from service.domain.job import Job
from service.domain.machine import TERMINAL, decide
from service.domain.states import JobState, OnUncertain
from tests.unit import samples
from tests.unit.invariants import Row, Story, check_step, work_after
from tests.unit.samples import (
    NOW,
    accepted,
    deadline,
    failed,
    postponed,
    running,
    started,
    succeeded,
    unknown,
)

ALPHABET: tuple[facts.Fact, ...] = (
    *(fact for number in (1, 2, 3) for fact in samples.every_fact(number)),
    *(replace(fact, attempt_id=samples.UNKNOWN_ATTEMPT) for fact in samples.every_fact(1)),
    accepted(1, provider_request_id="req_other", queue_position=9, cost_usd=Decimal("0.05")),
    accepted(2, provider_request_id="req_1", links={"status": "https://queue.example/1"}),
    succeeded(1, cause="poll", provider_completed_ms=NOW - 41),
    succeeded(2, cause="submit", provider_completed_ms=NOW + 5_000, cost_usd=Decimal(0)),
    failed(1, cause="callback:cb_9", cost_usd=Decimal("0.01")),
    samples.cancel(cause="operator"),
)
FACTS = st.lists(st.sampled_from(ALPHABET), max_size=25)
#: Random facts seldom get anywhere; these begin with a way that a real job takes.
BEGINNINGS = st.sampled_from(
    [
        (),
        (started(1), accepted(1)),
        (started(1), accepted(1), running(1)),
        (started(1), unknown(1)),
        (started(1), postponed(1)),
        (started(1), unknown(1), started(2)),
        (started(1), unknown(1), started(2), postponed(2)),
        (started(1), unknown(1), started(2), unknown(2)),
        (started(1), unknown(1), started(2), accepted(1), accepted(2)),
    ]
)
SEQUENCES = st.tuples(BEGINNINGS, FACTS).map(lambda parts: [*parts[0], *parts[1]])


@given(SEQUENCES, st.sampled_from(OnUncertain), st.booleans())
@settings(max_examples=400)
def test_after_every_fact_the_promises_hold(
    told: list[facts.Fact], policy: OnUncertain, archive: bool
) -> None:
    Story(on_uncertain=policy, archive=archive).tell(*told)


@given(SEQUENCES, st.sampled_from(OnUncertain))
@example([], OnUncertain.HOLD)
def test_a_sequence_that_ends_in_silence_ends_expired_unless_it_had_ended(
    told: list[facts.Fact], policy: OnUncertain
) -> None:
    story = Story(on_uncertain=policy).tell(*told)
    before = story.job.state
    after = story.tell(deadline()).job
    assert after.state is (before if before in TERMINAL else JobState.EXPIRED)
    assert after.completed_ms is not None


@given(SEQUENCES, st.sampled_from(OnUncertain))
def test_a_job_is_submitted_at_most_once_to_consumers_and_ends_at_most_once(
    told: list[facts.Fact], policy: OnUncertain
) -> None:
    announced = Story(on_uncertain=policy).tell(*told).announced
    assert announced.count("job.submitted") <= 1
    assert sum(announced.count(f"job.{state}") for state in TERMINAL) <= 1


@given(SEQUENCES, st.sampled_from(OnUncertain))
def test_the_same_sequence_gives_the_same_job_and_the_same_effects(
    told: list[facts.Fact], policy: OnUncertain
) -> None:
    assert Story(on_uncertain=policy).tell(*told) == Story(on_uncertain=policy).tell(*told)


@given(SEQUENCES, st.sampled_from(OnUncertain))
def test_a_fact_told_twice_in_a_row_changes_nothing_the_second_time(
    told: list[facts.Fact], policy: OnUncertain
) -> None:
    story = Story(on_uncertain=policy)
    for fact in told:
        once = story.tell(fact).job
        # An attempt that was put off is meant to be sent under the same intent again.
        if not isinstance(fact, facts.SubmitStarted | facts.SubmitPostponed):
            again = decide(once, fact, NOW)
            assert not again.moved
            assert again.job == once


def reachable(policy: OnUncertain, alphabet: tuple[facts.Fact, ...]) -> dict[str, tuple[Job, frozenset[Row]]]:
    """Walk breadth-first over all distinct jobs, with their due work, until there is no new one."""
    begin = Story(on_uncertain=policy)
    seen = {repr((begin.job, sorted(begin.rows))): (begin.job, begin.rows)}
    edge = list(seen.values())
    while edge:
        reached = []
        for before, rows in edge:
            for fact in alphabet:
                decision = decide(before, fact, NOW)
                rows_after = work_after(rows, decision)
                check_step(before, fact, decision, rows_after)
                after = without_counters(decision.job, begin.job.version)
                key = repr((after, sorted(rows_after)))
                if key not in seen:
                    seen[key] = (after, rows_after)
                    reached.append((after, rows_after))
        edge = reached
    return seen


def without_counters(job: Job, version: int) -> Job:
    """What only counts steps would make every job on the way a new one."""
    attempts = tuple(replace(attempt, postponed=0, postponed_since_ms=None) for attempt in job.attempts)
    return replace(job, version=version, attempts=attempts)


MODEL: tuple[facts.Fact, ...] = tuple(
    fact
    for number in (1, 2)
    for fact in samples.every_fact(number)
    if fact.type not in ("provider.blocked", "cancel.answered", "callback.not_used", "result.lost")
)


@pytest.mark.parametrize("policy", OnUncertain)
def test_every_job_that_two_attempts_can_lead_to_keeps_the_promises(policy: OnUncertain) -> None:
    jobs = [found for found, _ in reachable(policy, MODEL).values()]
    assert {found.state for found in jobs} == set(JobState) - {JobState.BLOCKED}
    assert {len(found.attempts) for found in jobs} == (
        {0, 1, 2} if policy is OnUncertain.RESUBMIT else {0, 1}
    )
    assert all(decide(found, deadline(), NOW).job.state in TERMINAL for found in jobs)
