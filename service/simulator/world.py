"""What all fake providers share: dials, seed, ledger, totals, time, and the life of a request."""

import asyncio
import secrets
from collections import Counter
from typing import Any
from uuid import uuid4

from starlette.requests import Request

from service.simulator.announcer import Announcer
from service.simulator.clock import iso, now_ms
from service.simulator.faults import Faults, as_dict
from service.simulator.ledger import Ledger, TakenRequest
from service.simulator.plan import Plan, make_plan
from service.simulator.provider import Provider
from service.simulator.tally import Tally


class World:
    """One running simulation."""

    def __init__(
        self, *, faults: Faults, seed: int | None, public_url: str | None, keep_s: int, keep_ended: int
    ) -> None:
        self.faults = faults
        # A drawn seed is shown by the stats, so that any run can be repeated.
        self.seed = secrets.randbits(32) if seed is None else seed
        self.public_url = public_url.rstrip("/") if public_url else None
        self.ledger = Ledger(keep_ms=keep_s * 1_000, keep_ended=keep_ended)
        self.tally = Tally()
        self.closing = asyncio.Event()
        self.announcer = Announcer(self)
        self.providers: dict[str, Provider] = {}
        self.started_ms = now_ms()
        self._arrived: Counter[str] = Counter()

    def base_url(self, request: Request) -> str:
        """Return where the caller reaches us: the public URL, else the one that it used."""
        return self.public_url or f"{request.url.scheme}://{request.headers.get('host', 'localhost')}"

    def next_plan(self, provider: str) -> Plan:
        """Decide the fate of the submit that is arriving."""
        self._arrived[provider] += 1
        return make_plan(self.faults, seed=self.seed, provider=provider, number=self._arrived[provider])

    def take(
        self,
        provider: Provider,
        plan: Plan,
        *,
        model: str,
        input: dict[str, Any],
        base_url: str,
        headers: dict[str, str],
        webhook_url: str | None,
        webhook_secret: str | None = None,
        start_timeout_ms: int | None = None,
    ) -> TakenRequest:
        """Take a request: from here on it runs and ends by itself."""
        now = now_ms()
        timed_out = start_timeout_ms is not None and plan.queue_ms > start_timeout_ms
        start = now + (start_timeout_ms or 0 if timed_out else plan.queue_ms)
        request = TakenRequest(
            provider=provider.name,
            id=str(uuid4()),
            model=model,
            input=input,
            headers=headers,
            plan=plan,
            base_url=base_url,
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            accepted_ms=now,
            start_ms=start,
            end_ms=start if timed_out else start + plan.run_ms,
            start_timed_out=timed_out,
        )
        self.ledger.add(request)
        self.tally.count(provider.name, "requests.accepted")
        self.tally.count(provider.name, f"requests.outcomes.{plan.outcome}")
        if not plan.early:
            asyncio.get_running_loop().call_later((request.end_ms - now) / 1_000, self._end, request)
        return request

    async def end_early(self, request: TakenRequest) -> None:
        """End a request at once and give its callback a second to overtake the answer to its submit."""
        task = self._end(request)
        if task is not None:
            await asyncio.wait({task}, timeout=1.0)

    def cancel_queued(self, request: TakenRequest) -> None:
        """Take a request out of the queue: it never runs and sends no callback."""
        request.canceled, request.end_ms = True, now_ms()
        self.ledger.close(request)
        self.tally.count(request.provider, "requests.canceled")

    def poll_fails(self, request: TakenRequest) -> bool:
        """Count a status or result request that is about to be answered, and decide whether it fails."""
        request.polls += 1
        self.tally.count(request.provider, "polls.answered")
        return request.plan.dice.below(f"poll {request.polls}", self.faults.poll_500)

    def count_result(self, request: TakenRequest) -> None:
        """Count a result that was handed out to somebody who asked."""
        request.results_fetched += 1
        self.tally.count(request.provider, "results.fetched")

    def count_file(self, provider: str, request: TakenRequest | None) -> None:
        """Count a result file that was served."""
        self.tally.count(provider, "files.served")
        if request is not None:
            request.files_served += 1

    def stats(self) -> dict[str, object]:
        """Return everything that was counted, as `GET /_sim/stats` shows it."""
        return {
            "seed": self.seed,
            "started_at": iso(self.started_ms),
            "faults": as_dict(self.faults),
            "forgotten": self.ledger.forgotten,
            "callbacks_under_way": self.announcer.under_way,
            "totals": self.tally.total(),
            "providers": {
                name: {**self.tally.of(name), "active": self.ledger.active(name)} for name in self.providers
            },
        }

    def rows(self, provider: str | None = None) -> list[dict[str, object]]:
        """Return one row per known request, oldest first."""
        now = now_ms()
        return [request.row(now) for request in self.ledger.requests(provider)]

    async def close(self) -> None:
        """Stop everything that is still under way."""
        self.closing.set()
        await self.announcer.close()

    def _end(self, request: TakenRequest) -> asyncio.Task[None] | None:
        if request.canceled or self.closing.is_set():
            return None
        request.ended = True
        self.ledger.close(request)
        self.tally.count(request.provider, "requests.ended")
        return self.announcer.announce(self.providers[request.provider], request)
