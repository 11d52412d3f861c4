"""What the fake providers took and what became of it; ended requests are forgotten by age and by number."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.simulator.clock import iso
from service.simulator.plan import Plan

#: answers kept per request; all of them are counted
ANSWERS_KEPT = 60


class State(StrEnum):
    """Where a request stands."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    #: cancelled before it started: it never ran
    CANCELED = "canceled"


@dataclass(slots=True, kw_only=True)
class TakenRequest:
    """One request that a provider took; times in milliseconds since the epoch."""

    provider: str
    id: str
    model: str
    input: dict[str, Any]
    headers: dict[str, str]
    plan: Plan
    base_url: str
    webhook_url: str | None
    webhook_secret: str | None
    accepted_ms: int
    start_ms: int
    end_ms: int
    #: the caller's deadline to start passed while it was queued
    start_timed_out: bool = False
    ended: bool = False
    canceled: bool = False
    cancel_asked_ms: int | None = None
    polls: int = 0
    results_fetched: int = 0
    files_served: int = 0
    hand_outs: int = 0
    answers: list[dict[str, object]] = field(default_factory=list)
    #: what the provider rendered for itself and could render again; emptied after the callbacks
    notes: dict[str, Any] = field(default_factory=dict)

    def state(self, now_ms: int) -> State:
        """Return where the request stands at this time."""
        if self.canceled:
            return State.CANCELED
        if self.ended or now_ms >= self.end_ms:
            return State.ENDED
        return State.QUEUED if self.start_timed_out or now_ms < self.start_ms else State.RUNNING

    def note_answer(self, kind: str, answer: int | str, now_ms: int) -> None:
        """Keep what the receiver said to one delivery."""
        if len(self.answers) < ANSWERS_KEPT:
            self.answers.append({"kind": kind, "status": answer, "at": iso(now_ms)})

    def row(self, now_ms: int) -> dict[str, object]:
        """Return the request as `GET /_sim/requests` shows it."""
        state = self.state(now_ms)
        over = state in (State.ENDED, State.CANCELED)
        return {
            "provider": self.provider,
            "id": self.id,
            "model": self.model,
            "input": self.input,
            "headers": self.headers,
            "state": state,
            "callback_url": self.webhook_url,
            "plan": self.plan.summary(),
            "answers": self.answers,
            "polls": self.polls,
            "results_fetched": self.results_fetched,
            "files_served": self.files_served,
            "cancel_asked_at": None if self.cancel_asked_ms is None else iso(self.cancel_asked_ms),
            "accepted_at": iso(self.accepted_ms),
            "completed_at": iso(self.end_ms) if over else None,
        }


class Ledger:
    """All requests that are still known, by provider and id, oldest first."""

    def __init__(self, *, keep_ms: int, keep_ended: int) -> None:
        self._keep_ms = keep_ms
        self._keep_ended = keep_ended
        self._known: dict[tuple[str, str], TakenRequest] = {}
        self._ended: deque[TakenRequest] = deque()
        self._active: Counter[tuple[str, str]] = Counter()
        self.forgotten = 0

    def add(self, request: TakenRequest) -> None:
        """Keep a new request, and forget what is too old."""
        self._known[request.provider, request.id] = request
        self._active[request.provider, request.model] += 1
        self._forget(request.accepted_ms)

    def close(self, request: TakenRequest) -> None:
        """Note that a request is over; from now on it may be forgotten."""
        self._active[request.provider, request.model] -= 1
        self._ended.append(request)

    def find(self, provider: str, request_id: str) -> TakenRequest | None:
        """Return a known request."""
        return self._known.get((provider, request_id))

    def active(self, provider: str, model: str | None = None) -> int:
        """Return how many requests of a provider, or of one of its models, are not over."""
        if model is not None:
            return self._active[provider, model]
        return sum(count for (name, _), count in self._active.items() if name == provider)

    def requests(self, provider: str | None = None) -> Iterator[TakenRequest]:
        """Yield the known requests, oldest first."""
        return (request for request in self._known.values() if provider in (None, request.provider))

    def _forget(self, now_ms: int) -> None:
        while self._ended and (
            len(self._ended) > self._keep_ended or self._ended[0].end_ms + self._keep_ms < now_ms
        ):
            old = self._ended.popleft()
            del self._known[old.provider, old.id]
            self.forgotten += 1
