"""The whole product of states, facts and attempts, against the moves that the contract lists."""

from dataclasses import replace
from itertools import product

import pytest

from service.domain import facts
from service.domain.effects import Announce
from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL, TRANSITIONS, decide
from service.domain.states import AttemptState, JobState, OnUncertain
from tests.unit import samples
from tests.unit.samples import NOW, UNKNOWN_ATTEMPT, attempt, job, taken

FINAL = {"succeeded", "failed", "blocked", "canceled", "expired"}
NOT_FINAL = ("accepted", "submitting", "uncertain", "queued", "running")

# Contract, section 4, "Moves", each with the fact that makes it.
MOVES: dict[tuple[str, str], str] = {
    ("accepted", "submit.started"): "submitting",
    ("submitting", "submit.postponed"): "accepted",
    ("submitting", "submit.accepted"): "queued",
    ("submitting", "submit.unknown"): "uncertain",
    ("uncertain", "submit.accepted"): "queued",
    ("uncertain", "submit.started"): "submitting",
    ("queued", "provider.started"): "running",
    ("running", "provider.queued"): "queued",
    **{(state, "provider.succeeded"): "succeeded" for state in NOT_FINAL},
    **{(state, "provider.failed"): "failed" for state in NOT_FINAL},
    **{(state, "provider.blocked"): "blocked" for state in NOT_FINAL},
    **{(state, "cancel.requested"): "canceled" for state in NOT_FINAL},
    **{(state, "deadline.passed"): "expired" for state in NOT_FINAL},
}
#: What needs no attempt, because it concerns the whole job.
OF_THE_JOB = {"cancel.requested", "deadline.passed"}


def fact_classes(base: type[facts.Fact] = facts.Fact) -> set[type[facts.Fact]]:
    return {found for sub in base.__subclasses__() for found in {sub, *fact_classes(sub)}}


def own_attempt(state: JobState) -> Attempt:
    """Make the attempt that a job in this state has, when it has but one."""
    match state:
        case JobState.ACCEPTED:
            return attempt(1, AttemptState.SUBMITTING)
        case JobState.SUBMITTING | JobState.UNCERTAIN:
            return attempt(1, AttemptState(state.value))
        case _:
            outcome = AttemptState(state.value) if state in {"succeeded", "failed", "blocked"} else None
            return taken(1, AttemptState(state.value), outcome=outcome)


def situations(state: JobState) -> dict[str, Job]:
    """Make jobs in one state in every situation of attempts; facts are about the first of them."""
    found = {"no attempt": job(state)}
    for own in ("submitting", "uncertain", "queued", "running"):
        first = attempt(1, AttemptState(own))
        found[f"current {own}"] = job(state, first)
        found[f"older {own}, current queued"] = job(state, first, taken(2))
        found[f"older {own}, current uncertain"] = job(state, first, attempt(2, AttemptState.UNCERTAIN))
        found[f"older {own}, current submitting"] = job(state, first, attempt(2))
    for own in sorted(FINAL):
        ended = taken(1, AttemptState(own), completed_ms=NOW - 1)
        found[f"{own} without verdict"] = job(state, ended)
        for verdict in ("succeeded", "failed", "blocked"):
            concluded = replace(ended, outcome=AttemptState(verdict))
            found[f"{own}, concluded as {verdict}"] = job(state, concluded)
            found[f"older {own}, concluded as {verdict}"] = job(state, concluded, taken(2))
    return found


CASES = [
    (state, name, replace(found, on_uncertain=policy), fact)
    for state in JobState
    for name, found in situations(state).items()
    for policy, fact in product(OnUncertain, samples.every_fact(1))
]
UNKNOWN_CASES = [
    (state, name, found, replace(fact, attempt_id=unknown_id))
    for state in JobState
    for name, found in situations(state).items()
    for unknown_id, fact in product((UNKNOWN_ATTEMPT, None), samples.every_fact(1))
]


def test_the_samples_hold_one_of_each_class_of_facts() -> None:
    assert {type(fact) for fact in samples.every_fact(1)} == fact_classes()


def test_the_table_is_the_moves_of_the_contract() -> None:
    table = {
        (state.value, fact.type): target.value
        for state, row in TRANSITIONS.items()
        for fact, target in row.items()
    }
    assert table == MOVES


def test_the_final_states_are_the_empty_rows_and_those_of_the_contract() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {state.value for state in TERMINAL} == FINAL
    assert {state for state, row in TRANSITIONS.items() if not row} == TERMINAL


@pytest.mark.parametrize("state", JobState)
def test_a_fact_about_the_only_attempt_moves_a_job_exactly_as_the_contract_says(state: JobState) -> None:
    given = samples.resubmitting(state, own_attempt(state))
    for fact in samples.every_fact(1):
        # One more attempt has a new id; one that was put off is sent again under its own.
        more = isinstance(fact, facts.SubmitStarted) and state is JobState.UNCERTAIN
        decision = decide(given, samples.started(2) if more else fact, NOW)
        target = MOVES.get((state.value, fact.type))
        assert (decision.moved, decision.job.state.value) == (target is not None, target or state.value), (
            fact.type
        )


def test_whatever_happens_it_is_decided_and_moves_only_by_the_contract() -> None:
    for state, name, given, fact in CASES + UNKNOWN_CASES:
        decision = decide(given, fact, NOW)
        told = (state.value, name, fact)
        assert decision.before is given.state, told
        assert decision.moved is (decision.job.state is not given.state), told
        if decision.moved:
            assert decision.job.state.value == MOVES[(state.value, fact.type)], told


def test_a_version_grows_by_one_with_every_change_and_never_without() -> None:
    for state, name, given, fact in CASES + UNKNOWN_CASES:
        decision = decide(given, fact, NOW)
        changed = replace(decision.job, version=0, updated_ms=0) != replace(given, version=0, updated_ms=0)
        assert decision.job.version == given.version + changed, (state, name, fact)
        assert decision.job.updated_ms == (NOW if changed else given.updated_ms), (state, name, fact)


def test_a_final_state_and_what_it_brought_never_change() -> None:
    for state, name, given, fact in CASES + UNKNOWN_CASES:
        if state.value in FINAL:
            after = decide(given, fact, NOW).job
            kept = "output" if isinstance(fact, facts.ResultKept | facts.ResultLost) else ""
            for field in {"state", "completed_ms", "learned_by", "error", "output"} - {kept}:
                assert getattr(after, field) == getattr(given, field), (state, name, fact, field)


def test_a_fact_about_nobodys_attempt_is_only_history() -> None:
    for state, name, given, fact in UNKNOWN_CASES:
        begins = isinstance(fact, facts.SubmitStarted) and fact.attempt_id is not None and not given.attempts
        of_the_output = isinstance(fact, facts.ResultKept) and fact.attempt_id is None
        if not (fact.type in OF_THE_JOB or begins or of_the_output):
            decision = decide(given, fact, NOW)
            assert (decision.job, decision.effects) == (given, ()), (state, name, fact)


def test_a_first_attempt_begins_only_in_an_accepted_job() -> None:
    for state in JobState:
        decision = decide(job(state), samples.started(1), NOW)
        assert decision.moved is (state is JobState.ACCEPTED)
        assert len(decision.job.attempts) == decision.moved


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("policy", OnUncertain)
def test_an_intent_that_did_not_move_leaves_the_job_as_it_was(number: int, policy: OnUncertain) -> None:
    for state in JobState:
        for name, found in situations(state).items():
            given = replace(found, on_uncertain=policy)
            decision = decide(given, samples.started(number), NOW)
            if not decision.moved:
                assert (decision.job, decision.effects) == (given, ()), (state, name)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("policy", OnUncertain)
def test_nothing_is_sent_while_the_newest_attempt_is_known_to_be_taken(
    number: int, policy: OnUncertain
) -> None:
    for one in (taken(1, AttemptState.QUEUED), taken(1, AttemptState.RUNNING)):
        given = job(JobState.ACCEPTED, one, on_uncertain=policy)
        assert not decide(given, samples.started(number), NOW).moved


def test_a_concluded_attempt_says_nothing_more_about_its_job() -> None:
    for state, name, given, fact in CASES:
        if "concluded" in name and fact.type not in OF_THE_JOB | {"submit.started"}:
            assert not decide(given, fact, NOW).moved, (state, name, fact)


@pytest.mark.parametrize("state", [state for state in JobState if state.value in NOT_FINAL])
def test_the_first_success_ends_the_job_whichever_attempt_it_comes_from(state: JobState) -> None:
    for name, given in situations(state).items():
        for number in range(1, len(given.attempts) + 1):
            one = given.attempts[number - 1]
            decision = decide(given, samples.succeeded(number), NOW)
            assert decision.moved is (one.outcome is None), name
            if decision.moved:
                assert decision.job.output == samples.OUTPUT
                assert decision.job.attempts[number - 1].state is AttemptState.SUCCEEDED


@pytest.mark.parametrize("fact", [samples.failed(1), samples.blocked(1)])
@pytest.mark.parametrize("state", [state for state in JobState if state.value in NOT_FINAL])
def test_a_failure_waits_for_another_attempt_that_may_still_succeed(
    state: JobState, fact: facts.ProviderFailed | facts.ProviderBlocked
) -> None:
    for name, given in situations(state).items():
        if given.attempts and given.attempts[0].outcome is None:
            decision = decide(given, fact, NOW)
            assert decision.moved is (len(given.attempts) == 1), name
            assert decision.job.attempts[0].outcome is decision.job.attempts[0].state


def test_a_failure_does_not_wait_for_an_older_attempt_that_was_given_up() -> None:
    given = samples.resubmitting(
        JobState.QUEUED, attempt(1, AttemptState.UNCERTAIN), taken(2, AttemptState.QUEUED)
    )
    assert decide(given, samples.failed(2), NOW).job.state is JobState.FAILED


def test_every_move_but_those_without_an_event_is_announced_once_under_its_name() -> None:
    for state, name, given, fact in CASES:
        decision = decide(given, fact, NOW)
        announced = [effect.type for effect in decision.effects if isinstance(effect, Announce)]
        if decision.moved:
            target = decision.job.state.value
            submitted = target == "queued" and state is not JobState.RUNNING
            silent = target in ("accepted", "submitting")
            expected = [] if silent else ["job.submitted" if submitted else f"job.{target}"]
            assert announced == expected, (state, name, fact)
        else:
            assert set(announced) <= {"job.late_result", "job.archived"}, (state, name, fact)
