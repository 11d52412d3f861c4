"""Receive a callback: keep it, judge it, advance the job, commit, and only then answer.

Rule 1: the raw bytes, the judgement and what follows from it are one transaction; without its commit the provider
hears 503 and comes again.
Rule 2: what cannot be judged now is kept as `unjudged` and answered 503, and the job is asked for instead.
Rule 3: a refused callback is a hint at most: it makes us ask, at most once in 30 s for each attempt.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import orjson

from service.domain import facts
from service.domain.callback import ASK_AFTER, STATUS, Addressee, Judgement, Received, Verdict
from service.domain.effects import Work
from service.domain.job import Job
from service.domain.secrets import token_hash_of
from service.flows import learn
from service.flows.advance import Advanced, Step, advance, count
from service.flows.runtime import Runtime
from service.providers.base import KeysNeeded
from service.storage import callbacks, jobs, work
from service.storage.batch import Batch
from service.storage.callbacks import Kept, Tally
from service.storage.database import Tx
from service.storage.statements import Row

#: Of refused callbacks of one attempt, so many are kept, and so many bytes of them; the rest is only counted.
KEPT_REFUSED = 20
KEPT_REFUSED_BYTES = 1024 * 1024
#: A refused callback makes us ask at most this often for each attempt.
HINT_EVERY_MS = 30_000

#: Headers whose value proves the sender to us, or us to somebody: only their SHA-256 is kept.
_SECRET_HEADERS = frozenset(("x-webhook-secret", "authorization", "cookie", "proxy-authorization", "x-key"))
_BELIEVED = (Verdict.VERIFIED, Verdict.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request to a callback URL."""

    id: str
    provider: str
    token_hash: str
    received: Received
    #: The keys were fetched for this one already: what they do not prove is not proved.
    keys_tried: bool = False


@dataclass(slots=True)
class _News:
    """What one transaction of callbacks moved: whoever of its senders is still there first tells it."""

    advanced: Advanced
    told: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What the sender hears, and why. `verdict` is None for a token that names no attempt."""

    status: int
    verdict: Verdict | None = None
    keys_needed: KeysNeeded | None = None
    news: "_News | None" = None


@dataclass(slots=True)
class _Pile:
    """What one transaction of callbacks will write."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    candidates: list[tuple[str, str]] = field(default_factory=list)
    #: Attempts to be asked about although nothing may be scheduled for them, and those where it is only hastened.
    asks: set[tuple[str, int]] = field(default_factory=set)
    hints: set[tuple[str, int]] = field(default_factory=set)


class Receive:
    """Receives callbacks, many to a commit."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batch = Batch(runtime.door, self._handle, lanes=1)
        self._fetching = {name: asyncio.Lock() for name in runtime.providers}
        self._renewing: set[asyncio.Task[None]] = set()

    async def __call__(self, provider: str, token: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """This function will keep and judge a callback and answer once that is committed.

        `headers` have lower-case names.

        :raises DatabaseUnavailable: if it could not be committed; the sender must hear 503.
        """
        runtime = self._runtime
        adapter = runtime.providers.get(provider)
        if adapter is None:
            return Answered(404)
        received = Received(headers=headers, body=body, received_ms=runtime.now_ms())
        arrived = Arrived(runtime.make_id("cb"), provider, token_hash_of(token), received)
        self._renew_old_keys(provider)
        answered = await self._recorded(arrived)
        if answered.keys_needed is not None:
            await self._fetch_keys(provider, answered.keys_needed)
            answered = await self._recorded(replace(arrived, keys_tried=True))
        if answered.verdict is not None:
            runtime.measures.callbacks.labels(provider, answered.verdict.value).inc()
        return answered

    async def _recorded(self, arrived: Arrived) -> Answered:
        answered = await self._batch(arrived)
        if answered.news is not None and not answered.news.told:
            answered.news.told = True
            self._runtime.bell.ring(answered.news.advanced.topics)
            for decision in answered.news.advanced.decisions:
                if decision is not None:
                    count(self._runtime, decision)
        return answered

    async def _fetch_keys(self, provider: str, why: KeysNeeded | None) -> None:
        """One fetch for all who wait: those behind it find the keys fetched, or know that it failed."""
        runtime, adapter = self._runtime, self._runtime.providers[provider]
        async with self._fetching[provider]:
            if adapter.wants_keys(why, runtime.now_ms()):
                await runtime.talks[provider].run(adapter.fetch_keys(runtime.now_ms()))

    def _renew_old_keys(self, provider: str) -> None:
        """Keys that grow old are renewed beside the callbacks, which do not wait for it."""
        adapter = self._runtime.providers[provider]
        idle = not self._fetching[provider].locked()
        if adapter.has_keys and idle and adapter.wants_keys(None, self._runtime.now_ms()):
            task = asyncio.create_task(self._fetch_keys(provider, None))
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)

    def _handle(self, tx: Tx, items: list[Arrived]) -> list[Answered]:
        rows = callbacks.addressees(tx, [item.token_hash for item in items])
        pile = _Pile()
        answers = [self._one(tx, pile, item, rows.get(item.token_hash)) for item in items]
        done = advance(tx, self._runtime, pile.steps, self._runtime.now_ms())
        callbacks.keep(tx, pile.kept)
        callbacks.tally(tx, list(pile.tallies.values()))
        callbacks.name_candidates(tx, pile.candidates)
        if self._ask(tx, pile):
            done = replace(done, topics=done.topics | {Work.ASK.value, Work.RECONCILE.value})
        news = _News(done)
        return [replace(answer, news=news) for answer in answers]

    def _one(self, tx: Tx, pile: _Pile, item: Arrived, row: Row | None) -> Answered:
        if row is None or row["provider"] != item.provider:
            return Answered(404)
        judged = self._judge(item, row)
        if isinstance(judged, KeysNeeded):
            return Answered(503, keys_needed=judged)
        tally = pile.tallies.get(row["id"]) or _tally_of(row)
        judgement = self._second_look(tx, judged, row, tally)
        pile.tallies[row["id"]] = self._record(pile, item, row, judgement, tally)
        return Answered(STATUS[judgement.verdict], judgement.verdict)

    def _judge(self, item: Arrived, row: Row) -> Judgement | KeysNeeded:
        runtime, adapter = self._runtime, self._runtime.providers[item.provider]
        addressee = Addressee(
            attempt_id=row["id"],
            model=row["model"],
            provider_request_id=row["provider_request_id"],
            # Derived only for who proves himself by it: that costs as much as hashing the callback.
            secret=None if adapter.has_keys else runtime.keys.webhook_secret(row["secret_key_id"], row["id"]),
        )
        judged = adapter.judge(item.received, addressee)
        if isinstance(judged, Judgement) or not item.keys_tried:
            return judged
        if judged is KeysNeeded.MISSING:
            return Judgement(verdict=Verdict.UNJUDGED, reason="no keys to be had now", ask=True)
        return Judgement(verdict=Verdict.FORGED, reason="no key of the provider verifies the signature")

    def _second_look(self, tx: Tx, judgement: Judgement, row: Row, tally: Tally) -> Judgement:
        """What only the database knows: a repetition, or a request id that another attempt holds."""
        if judgement.verdict is not Verdict.VERIFIED:
            return judgement
        if judgement.message_key is not None and judgement.message_key == tally.message_key:
            return replace(
                judgement,
                verdict=Verdict.DUPLICATE,
                reason="said before",
                facts=(),
                ask=False,
                candidate_request_id=None,
            )
        claimed = [
            fact.provider_request_id for fact in judgement.facts if isinstance(fact, facts.SubmitAccepted)
        ]
        claimed += [judgement.candidate_request_id] if judgement.candidate_request_id else []
        for request_id in claimed:
            holder = jobs.holder_of(tx, provider=row["provider"], request_id=request_id)
            if holder not in (None, row["id"]):
                return Judgement(
                    verdict=Verdict.MISMATCHED, reason="the request id belongs to another attempt", ask=True
                )
        return judgement

    def _record(self, pile: _Pile, item: Arrived, row: Row, judgement: Judgement, tally: Tally) -> Tally:
        believed = judgement.verdict in _BELIEVED
        size = len(item.received.body)
        keep = believed or (
            tally.refused_callbacks < KEPT_REFUSED and tally.refused_bytes + size <= KEPT_REFUSED_BYTES
        )
        if keep:
            kept = _kept(item, row, judgement)
            pile.kept.append(kept)
            pile.steps.extend(self._steps(kept, row, judgement))
        else:
            self._runtime.measures.refused_unkept.labels(item.provider).inc()
        if judgement.candidate_request_id is not None:
            pile.candidates.append((row["id"], judgement.candidate_request_id))
        hint = judgement.verdict in ASK_AFTER
        may_hint = item.received.received_ms - tally.hinted_ms >= HINT_EVERY_MS
        if judgement.ask and believed:
            pile.asks.add((row["job_id"], row["number"]))
        elif hint and may_hint:
            pile.hints.add((row["job_id"], row["number"]))
        return Tally(
            attempt_id=tally.attempt_id,
            message_key=judgement.message_key
            if judgement.verdict is Verdict.VERIFIED and judgement.message_key
            else tally.message_key,
            refused_callbacks=tally.refused_callbacks + (0 if believed else 1),
            refused_bytes=tally.refused_bytes + (0 if believed or not keep else size),
            hinted_ms=item.received.received_ms if hint and may_hint else tally.hinted_ms,
        )

    def _steps(self, kept: Kept, row: Row, judgement: Judgement) -> list[Step]:
        evidence = {"callback_id": kept.id, "body_sha256": kept.body_sha256, "key_id": kept.key_id}
        cause = f"callback:{kept.id}"
        told = [replace(fact, cause=cause, attempt_id=row["id"]) for fact in judgement.facts]
        if not told:
            note = facts.CallbackNotUsed(
                cause=cause,
                attempt_id=row["id"],
                callback_id=kept.id,
                verdict=judgement.verdict.value,
                reason=judgement.reason,
            )
            return [Step(job_id=row["job_id"], fact=note, evidence=evidence)]
        return [Step(job_id=row["job_id"], fact=self._timed(fact), evidence=evidence) for fact in told]

    def _timed(self, fact: facts.Fact) -> facts.Fact | Callable[[Job], facts.Fact]:
        """A callback that also tells us the request's id starts our own clock for asking."""
        if not isinstance(fact, facts.SubmitAccepted):
            return fact
        return partial(_with_first_ask, self._runtime, fact)

    def _ask(self, tx: Tx, pile: _Pile) -> bool:
        now_ms = self._runtime.now_ms()
        hastened = [
            (job_id, kind, number, now_ms)
            for job_id, number in sorted(pile.hints | pile.asks)
            for kind in (Work.ASK, Work.RECONCILE)
        ]
        work.hasten(tx, hastened)
        found = jobs.load(tx, [job_id for job_id, _ in pile.asks])
        wanted = []
        for job_id, number in sorted(pile.asks):
            attempt = next(a for a in found[job_id].job.attempts if a.number == number)
            if attempt.outcome is None:
                wanted.append(work.Scheduled(job_id, Work.ASK, number, now_ms))
        work.schedule(tx, wanted)
        return bool(hastened)


def _with_first_ask(runtime: Runtime, fact: facts.SubmitAccepted, job: Job) -> facts.Fact:
    at_ms = learn.first_ask_ms(runtime, job, runtime.now_ms())
    return replace(fact, ask_ms=at_ms)


def _tally_of(row: Row) -> Tally:
    return Tally(
        attempt_id=row["id"],
        message_key=row["message_key"],
        refused_callbacks=row["refused_callbacks"],
        refused_bytes=row["refused_bytes"],
        hinted_ms=row["hinted_ms"],
    )


def _kept(item: Arrived, row: Row, judgement: Judgement) -> Kept:
    return Kept(
        id=item.id,
        job_id=row["job_id"],
        attempt_id=row["id"],
        received_ms=item.received.received_ms,
        verdict=judgement.verdict.value,
        reason=judgement.reason,
        status=STATUS[judgement.verdict],
        key_id=judgement.key_id,
        body_sha256=hashlib.sha256(item.received.body).hexdigest(),
        headers=orjson.dumps(_safe_headers(item.received.headers)).decode(),
        body=item.received.body,
    )


def _safe_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they came, save that secrets are replaced by their digest and undecodable bytes are shown."""
    return {
        name: f"sha256:{hashlib.sha256(value.encode('latin-1', 'replace')).hexdigest()}"
        if name in _SECRET_HEADERS
        else value
        for name, value in headers.items()
    }
