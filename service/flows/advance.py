"""The single door through which a job changes.

Rule 1: read, decide, write history, events and work, all in one transaction; lock first, compare afterwards.
Rule 2: an intent that did not move stops its flow: whoever told it looks at `Decision.moved`. A fact survives a lost
race: the transaction is run again and the fact is decided anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain import effects, exact_json
from service.domain.fact_detail import detail_of
from service.domain.facts import CAUSE_SUBMIT, Fact, SubmitAccepted
from service.domain.history import HistoryLine, chain
from service.domain.job import Job
from service.domain.job_object import job_object, without_prompts
from service.domain.machine import Decision, decide
from service.domain.secrets import token_hash_of
from service.domain.states import Priority
from service.flows.runtime import Runtime
from service.storage import callbacks, events, history, jobs, work
from service.storage.batch import Batch
from service.storage.database import Tx
from service.storage.events import Event
from service.storage.jobs import Change, Stored


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One fact about one job, or how to tell the fact from the job as it is then (None: nothing to say)."""

    job_id: str
    fact: Fact | Callable[[Job], Fact | None]
    #: What proves it (callback, digest, key), kept in the history beside the fact's own detail.
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Ledger:
    """What one transaction will write."""

    before: dict[str, Stored]
    after: dict[str, Stored]
    lines: list[tuple[str, HistoryLine]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: The last word on each piece of work; None: not needed any more.
    scheduled: dict[tuple[str, effects.Work, int], work.Scheduled | None] = field(default_factory=dict)
    cleared: set[str] = field(default_factory=set)
    topics: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Advanced:
    """What became of the steps of a transaction, and whom to wake after its commit."""

    decisions: list[Decision | None]
    topics: frozenset[str]


def advance(tx: Tx, runtime: Runtime, steps: Sequence[Step], now_ms: int) -> Advanced:
    """This function will decide and write facts, in their order, inside a running transaction.

    A step of a job that does not exist, or without a fact to tell, gives None.
    """
    stored = jobs.load(tx, [step.job_id for step in steps], lock=True)
    ledger = _Ledger(before=stored, after=dict(stored))
    decisions = [_step(runtime, ledger, step, now_ms) for step in steps]
    _write(tx, runtime, ledger)
    return Advanced(decisions, frozenset(ledger.topics))


def _step(runtime: Runtime, ledger: _Ledger, step: Step, now_ms: int) -> Decision | None:
    stored = ledger.after.get(step.job_id)
    if stored is None:
        return None
    fact = step.fact(stored.job) if callable(step.fact) else step.fact
    if fact is None:
        return None
    decision = decide(stored.job, fact, now_ms)
    line = chain(
        job_id=stored.job.id,
        seq=stored.history_seq + 1,
        at_ms=now_ms,
        type=fact.type,
        cause=fact.cause,
        moved=decision.moved,
        before=decision.before.value,
        after=decision.job.state.value,
        detail={**detail_of(fact), **step.evidence},
        salt=runtime.salt(),
        prev=stored.history_hash,
    )
    ledger.lines.append((stored.job.tenant, line))
    event_seq = _effects(runtime, ledger, decision, stored.event_seq, now_ms)
    ledger.after[step.job_id] = Stored(decision.job, line.seq, line.hash, event_seq)
    return decision


def _effects(runtime: Runtime, ledger: _Ledger, decision: Decision, event_seq: int, now_ms: int) -> int:
    job = decision.job
    low = job.priority is Priority.LOW
    if decision.moved:
        ledger.topics.add(f"job:{job.id}")
    for effect in decision.effects:
        match effect:
            case effects.Announce(type=type_):
                event_seq += 1
                ledger.events.append(announcement(runtime, job, type_, event_seq, now_ms))
            case effects.Schedule():
                ledger.scheduled[job.id, effect.work, effect.number] = work.Scheduled(
                    job.id, effect.work, effect.number, effect.due_ms, low
                )
                ledger.topics.add(effect.work.value)
            case effects.Drop():
                ledger.scheduled[job.id, effect.work, effect.number] = None
            case effects.DropAll():
                ledger.cleared.add(job.id)
                for key in [key for key in ledger.scheduled if key[0] == job.id]:
                    del ledger.scheduled[key]
    return event_seq


def announcement(runtime: Runtime, job: Job, type_: str, event_seq: int, now_ms: int) -> Event:
    """This function will make the event that tells consumers of a job as it is now."""
    shown = without_prompts(job_object(job, artifacts_url=runtime.public_url or ""))
    return Event(
        id=runtime.make_id("evt"),
        tenant=job.tenant,
        type=type_,
        job_id=job.id,
        job_seq=event_seq,
        at_ms=now_ms,
        data=exact_json.dumps(shown),
    )


def _write(tx: Tx, runtime: Runtime, ledger: _Ledger) -> None:
    changes = [
        Change(ledger.before[job_id], after)
        for job_id, after in ledger.after.items()
        if after is not ledger.before[job_id]
    ]
    if not changes:
        return
    jobs.save_many(tx, changes, _token_hashes(runtime, changes))
    history.append(tx, ledger.lines)
    work.drop_all(tx, sorted(ledger.cleared))
    work.drop(
        tx, [key for key, item in ledger.scheduled.items() if item is None and key[0] not in ledger.cleared]
    )
    work.schedule(tx, [item for item in ledger.scheduled.values() if item is not None])
    if ledger.events:
        events.append(tx, ledger.events)
        ledger.topics.add("feed")


def _token_hashes(runtime: Runtime, changes: Sequence[Change]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for change in changes:
        for attempt in change.after.job.attempts[len(change.before.job.attempts) :]:
            token = runtime.keys.token(attempt.secret_key_id, attempt.id)
            assert token is not None, "a new attempt has the current key"
            hashes[attempt.id] = token_hash_of(token)
    return hashes


def _ask_now(tx: Tx, steps: Sequence[Step], now_ms: int) -> None:
    """A callback that came before the answer to the submit has claimed the id: the question it caused stays due."""
    named = {
        step.fact.attempt_id: step.job_id
        for step in steps
        if isinstance(step.fact, SubmitAccepted) and step.fact.cause == CAUSE_SUBMIT
    }
    claimed = callbacks.candidates(tx, [attempt_id for attempt_id in named if attempt_id]) if named else {}
    found = jobs.load(tx, [named[attempt_id] for attempt_id in claimed])
    work.hasten(
        tx,
        [
            (job_id, effects.Work.ASK, attempt.number, now_ms)
            for job_id, stored in sorted(found.items())
            for attempt in stored.job.attempts
            if attempt.id in claimed and stored.job.completed_ms is None
        ],
    )


class Advance:
    """Facts from anywhere, written together; each caller gets the decision on its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batch = Batch(runtime.door, self._handle, lanes=1)

    def _handle(self, tx: Tx, items: list[list[Step]]) -> list[Advanced]:
        steps = [step for item in items for step in item]
        now_ms = self._runtime.now_ms()
        done = advance(tx, self._runtime, steps, now_ms)
        _ask_now(tx, steps, now_ms)
        out, place = [], 0
        for item in items:
            out.append(replace(done, decisions=done.decisions[place : place + len(item)]))
            place += len(item)
        return out

    async def tell(self, steps: Sequence[Step]) -> list[Decision | None]:
        """This function will commit facts and wake who waits for them.

        :raises DatabaseUnavailable: if they could not be committed; they may be told again.
        :raises IntegrityError: the driver's own, if a provider's request id belongs to another attempt.
        """
        done = await self._batch(list(steps))
        self._runtime.bell.ring(done.topics)
        for decision in done.decisions:
            if decision is not None:
                count(self._runtime, decision)
        return done.decisions


def count(runtime: Runtime, decision: Decision) -> None:
    """This function will count a job's end."""
    job = decision.job
    if not decision.moved or job.completed_ms is None:
        return
    by = job.learned_by.value if job.learned_by else ""
    runtime.measures.finished.labels(job.provider, job.state.value, by).inc()
    for attempt in job.attempts:
        if attempt.lag_ms is not None and attempt.outcome is not None:
            runtime.measures.lag.labels(job.provider, by).observe(attempt.lag_ms / 1000)
