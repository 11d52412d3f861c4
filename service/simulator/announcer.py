"""Sends callbacks: late, doubled, dropped, overtaken or forged, as each request's plan says."""

import asyncio
from collections import defaultdict
from typing import Protocol

from service.simulator.clock import now_ms
from service.simulator.faults import Faults
from service.simulator.ledger import TakenRequest
from service.simulator.postman import Postman
from service.simulator.provider import Message, Provider
from service.simulator.tally import Tally


class Surroundings(Protocol):
    """The part of the world that the announcer needs."""

    faults: Faults
    tally: Tally


class Announcer:
    """Owns all callbacks under way."""

    def __init__(self, world: Surroundings) -> None:
        self._world = world
        self._postman = Postman()
        self._tasks: set[asyncio.Task[None]] = set()
        #: per provider: callbacks that wait to be overtaken
        self._held: defaultdict[str, list[asyncio.Event]] = defaultdict(list)

    @property
    def under_way(self) -> int:
        """How many requests still have a callback to come."""
        return len(self._tasks)

    def announce(self, provider: Provider, request: TakenRequest) -> asyncio.Task[None] | None:
        """Start telling the receiver that a request has ended, if it named a URL."""
        if not request.webhook_url:
            return None
        task = asyncio.get_running_loop().create_task(self._announce(provider, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Stop all deliveries and close all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._postman.close()

    async def _announce(self, provider: Provider, request: TakenRequest) -> None:
        plan = request.plan
        if plan.forge and plan.forge_first:
            await self._forge(provider, request)
        if plan.drop:
            self._count(request, "dropped")
        else:
            await self._wait_for_its_turn(request)
            await self._send_copies(provider, request)
        if plan.forge and not plan.forge_first:
            await self._forge(provider, request)
        # The rendered callback is half of what a request weighs, and nobody will ask for it again.
        request.notes.clear()

    async def _wait_for_its_turn(self, request: TakenRequest) -> None:
        faults, plan = self._world.faults, request.plan
        wait_ms = faults.delay_ms + (faults.late_ms if plan.late else 0)
        if plan.late:
            self._count(request, "late")
        if plan.early:
            self._count(request, "early")
        if wait_ms:
            await asyncio.sleep(wait_ms / 1_000)
        if plan.held:
            await self._be_overtaken(request)

    async def _be_overtaken(self, request: TakenRequest) -> None:
        self._count(request, "held")
        overtaken = asyncio.Event()
        waiting = self._held[request.provider]
        waiting.append(overtaken)
        try:
            await asyncio.wait_for(overtaken.wait(), self._world.faults.reorder_ms / 1_000)
        except TimeoutError:
            waiting.remove(overtaken)

    async def _send_copies(self, provider: Provider, request: TakenRequest) -> None:
        progress = provider.progress(request, now_ms=now_ms())
        if progress is not None and not request.plan.held:
            await self._send_progress(provider, request, progress)
        copies = [self._deliver(provider, request, copy) for copy in range(request.plan.copies)]
        await asyncio.gather(*copies)
        if progress is not None and request.plan.held:
            await self._send_progress(provider, request, progress)

    async def _deliver(self, provider: Provider, request: TakenRequest, copy: int) -> None:
        if copy:
            self._count(request, "duplicated")
            # Half of the copies race with the first one, the others come after it.
            await asyncio.sleep(request.plan.dice.choose(f"copy {copy}", (0, 0, 0.1, 0.4)))
        for attempt, delay_ms in enumerate((0, *provider.retry_delays_ms)):
            if delay_ms:
                await asyncio.sleep(delay_ms * self._world.faults.retry_scale / 1_000)
            timeout_s = provider.retry_timeout_s if attempt else provider.timeout_s
            self._count(request, "sent")
            answer = await self._send(
                request, provider.callback(request, now_ms=now_ms()), "genuine", timeout_s
            )
            self._count(request, f"answers.{answer}")
            self._let_go_held(request.provider)
            if isinstance(answer, int) and 200 <= answer < 300:
                self._count(request, "delivered")
                return
            if isinstance(answer, int) and 300 <= answer < 400 and provider.redirect_is_final:
                break
        self._count(request, "given_up")

    async def _send_progress(self, provider: Provider, request: TakenRequest, message: Message) -> None:
        self._count(request, "progress")
        await self._send(request, message, "progress", provider.timeout_s)

    async def _forge(self, provider: Provider, request: TakenRequest) -> None:
        kind, message = provider.forgery(request, now_ms=now_ms())
        self._count(request, "forged")
        self._count(request, f"forged_by.{kind}")
        answer = await self._send(request, message, f"forged:{kind}", provider.timeout_s)
        self._count(request, f"forged_answers.{answer}")

    async def _send(self, request: TakenRequest, message: Message, kind: str, timeout_s: float) -> int | str:
        assert request.webhook_url is not None
        answer = await self._postman.post(
            request.webhook_url, headers=message.headers, body=message.body, timeout_s=timeout_s
        )
        request.note_answer(kind, answer, now_ms())
        return answer

    def _let_go_held(self, provider: str) -> None:
        held, self._held[provider] = self._held[provider], []
        for overtaken in held:
            overtaken.set()

    def _count(self, request: TakenRequest, name: str) -> None:
        self._world.tally.count(request.provider, f"callbacks.{name}")
