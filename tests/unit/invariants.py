"""What must hold after every decision, whatever came before: shared by random sequences and the model check."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.domain import facts
from service.domain.effects import Announce, Drop, DropAll, Schedule, Work
from service.domain.job import Attempt, Job
from service.domain.machine import LATE_ASKS_MS, TERMINAL, Decision, decide, may_resubmit
from service.domain.states import AttemptState, JobState, OnUncertain
from tests.unit.samples import NOW, job

Row = tuple[Work, int]
IN_HAND = (AttemptState.QUEUED, AttemptState.RUNNING)


def work_after(rows: frozenset[Row], decision: Decision) -> frozenset[Row]:
    """Apply a decision's effects to the rows of due work, in their order."""
    kept = set(rows)
    for effect in decision.effects:
        match effect:
            case Schedule():
                kept.add((effect.work, effect.number))
            case Drop():
                kept.discard((effect.work, effect.number))
            case DropAll():
                kept.clear()
            case Announce():
                pass
    return frozenset(kept)


def check_step(before: Job, fact: facts.Fact, decision: Decision, rows: frozenset[Row]) -> None:
    """Check one decision; `rows` is the due work after it."""
    after = decision.job
    assert decision.moved is (before.state is not after.state)
    assert after.version == before.version + (after != before)
    if before.state in TERMINAL:
        assert not decision.moved
        assert (before.completed_ms, before.learned_by, before.error) == (
            after.completed_ms,
            after.learned_by,
            after.error,
        )
    if before.output != after.output:
        kept = isinstance(fact, facts.ResultKept | facts.ResultLost)
        assert kept if before.output is not None else decision.moved
        assert before.output is None or (after.output is not None and after.output.seed == before.output.seed)
    _check_columns(after)
    _check_attempts(before, fact, decision)
    _check_wishes(before, fact, decision)
    _check_nobody_is_forgotten(after, rows)


def _check_columns(after: Job) -> None:
    """The constraints that stand behind the machine in the database."""
    final = after.state in TERMINAL
    assert final is (after.completed_ms is not None)
    assert final is (after.learned_by is not None)
    assert (after.state is JobState.SUCCEEDED) is (after.output is not None)
    assert (after.error is not None) is (final and after.state is not JobState.SUCCEEDED)
    assert after.waiting is None or after.state is JobState.ACCEPTED


def _check_attempts(before: Job, fact: facts.Fact, decision: Decision) -> None:
    after = decision.job
    assert [one.number for one in after.attempts] == list(range(1, len(after.attempts) + 1))
    assert [one.id for one in after.attempts][: len(before.attempts)] == [one.id for one in before.attempts]
    assert len(after.attempts) <= (2 if after.on_uncertain is OnUncertain.RESUBMIT else 1)
    ids = [one.provider_request_id for one in after.attempts if one.provider_request_id is not None]
    assert len(ids) == len(set(ids))
    if len(after.attempts) > len(before.attempts):
        assert decision.moved
        assert after.state is JobState.SUBMITTING
    if decision.moved and isinstance(fact, facts.SubmitStarted):
        assert not any(one.state in IN_HAND for one in before.attempts)
    for old, new in zip(before.attempts, after.attempts, strict=False):
        _check_attempt(old, new)
    won = [one for one in after.attempts if one.outcome is AttemptState.SUCCEEDED and one.output is None]
    assert len(won) == (after.state is JobState.SUCCEEDED)


def _check_attempt(old: Attempt, new: Attempt) -> None:
    for name in ("provider_request_id", "outcome", "output", "submitted_ms"):
        assert getattr(old, name) in (None, getattr(new, name)), name
    assert old.cost_usd is None or new.cost_usd is not None
    if old.outcome is not None:
        assert (old.state, old.completed_ms, old.learned_by) == (new.state, new.completed_ms, new.learned_by)
    assert new.state not in IN_HAND or new.provider_request_id is not None
    assert new.queue_position is None or new.state is AttemptState.QUEUED


def _check_wishes(before: Job, fact: facts.Fact, decision: Decision) -> None:
    """Announcements fit the move; what still runs after the end is canceled and asked for; late results are told."""
    after = decision.job
    announced = [effect.type for effect in decision.effects if isinstance(effect, Announce)]
    if decision.moved:
        name = after.state.value
        submitted = isinstance(fact, facts.SubmitAccepted)
        silent = name in ("accepted", "submitting")
        assert announced == ([] if silent else ["job.submitted" if submitted else f"job.{name}"])
        assert name != "queued" or submitted or before.state is JobState.RUNNING
    else:
        late = [
            new
            for old, new in zip(before.attempts, after.attempts, strict=True)
            if before.state in TERMINAL and old.outcome is None and new.outcome is not None
        ]
        told = any(one.outcome is AttemptState.SUCCEEDED or one.cost_usd is not None for one in late)
        archived = isinstance(fact, facts.ResultKept) and after != before
        assert announced == ["job.late_result"] * told + ["job.archived"] * archived
    for one in after.attempts:
        known = before.attempt(one.id)
        if _runs_on(after, one) and not (known is not None and _runs_on(before, known)):
            assert Schedule(Work.CANCEL, one.number, NOW) in decision.effects
            assert Schedule(Work.ASK, one.number, NOW + LATE_ASKS_MS[0]) in decision.effects


def _runs_on(of: Job, one: Attempt) -> bool:
    return of.state in TERMINAL and one.provider_request_id is not None and one.outcome is None


def _check_nobody_is_forgotten(after: Job, rows: frozenset[Row]) -> None:
    submit = (Work.SUBMIT, 0)
    if after.state in TERMINAL:
        assert all(work not in (Work.SUBMIT, Work.RECONCILE) for work, _ in rows)
        assert all(_runs_on(after, one) <= ((Work.CANCEL, one.number) in rows) for one in after.attempts)
        return
    in_hand = any(one.state in IN_HAND for one in after.attempts)
    in_flight = after.state is not JobState.ACCEPTED and any(
        one.state is AttemptState.SUBMITTING for one in after.attempts
    )
    for one in after.attempts:
        assert one.state not in IN_HAND or (Work.ASK, one.number) in rows
        assert one.state is not AttemptState.UNCERTAIN or (Work.RECONCILE, one.number) in rows
        assert one.outcome is None or not {(Work.ASK, one.number), (Work.RECONCILE, one.number)} & rows
    waits_to_be_sent = (after.state is JobState.ACCEPTED and not in_hand) or may_resubmit(after)
    assert not (in_flight or waits_to_be_sent) or submit in rows
    assert submit not in rows or in_flight or waits_to_be_sent


@dataclass
class Story:
    """A job from its acceptance on, checked at every step."""

    on_uncertain: OnUncertain = OnUncertain.HOLD
    archive: bool = True
    job: Job = field(init=False)
    rows: frozenset[Row] = frozenset({(Work.SUBMIT, 0)})
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.job = job(on_uncertain=self.on_uncertain, archive=self.archive)

    def tell(self, *told: facts.Fact) -> "Story":
        for fact in told:
            before, decision = self.job, decide(self.job, fact, NOW)
            self.rows = work_after(self.rows, decision)
            check_step(before, fact, decision, self.rows)
            self.job = decision.job
            self.decisions.append(decision)
        return self

    @property
    def announced(self) -> Sequence[str]:
        return [
            effect.type
            for decision in self.decisions
            for effect in decision.effects
            if isinstance(effect, Announce)
        ]

    @property
    def effects(self) -> Sequence[object]:
        """The effects of the last decision."""
        return self.decisions[-1].effects
