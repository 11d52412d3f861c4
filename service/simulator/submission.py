"""The fate of a submit, the same for every provider: answered, refused, failed, hanging, or cut off."""

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.simulator.ledger import TakenRequest
from service.simulator.plan import REFUSALS, Plan, SubmitFate
from service.simulator.provider import Provider
from service.simulator.world import World

#: where the application keeps the server's own `send`, whose connection an unanswered submit cuts
RAW_SEND = "simulator.send"


async def settle_submit(world: World, provider: Provider, take: Callable[[Plan], TakenRequest]) -> Response:
    """Answer a well-formed submit as its plan says, taking it or not."""
    plan = world.next_plan(provider.name)
    world.tally.count(provider.name, f"requests.submit_fates.{plan.submit}")
    if plan.submit in REFUSALS:
        return refuse(world, provider, plan.submit)
    request = take(plan)
    if plan.early:
        await world.end_early(request)
    if plan.submit is SubmitFate.TAKEN_ERROR:
        return provider.refusal(plan.submit)
    if plan.submit is SubmitFate.HANGING:
        return Unanswered(world, hold_ms=world.faults.hang_ms)
    if plan.submit is SubmitFate.CUT:
        return Unanswered(world, hold_ms=0)
    return provider.acceptance(request)


def refuse(world: World, provider: Provider, fate: SubmitFate) -> Response:
    """Answer a submit that was not taken, and count it."""
    count_refused(world, provider, fate)
    return provider.refusal(fate)


def count_refused(world: World, provider: Provider, reason: str) -> None:
    """Count a submit that was not taken."""
    world.tally.count(provider.name, "requests.refused")
    world.tally.count(provider.name, f"requests.refused_by.{reason}")


class Unanswered(Response):
    """No answer at all: after a while, or at once, the connection is gone."""

    def __init__(self, world: World, *, hold_ms: int) -> None:
        super().__init__()
        self._closing = world.closing
        self._hold_s = hold_ms / 1_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the connection while the caller waits, at most for the given time, then cut it."""
        if self._hold_s:
            ends = [asyncio.ensure_future(self._gone(receive)), asyncio.ensure_future(self._closing.wait())]
            await asyncio.wait(ends, timeout=self._hold_s, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        transport = getattr(getattr(scope.get(RAW_SEND), "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionAbortedError("the submit is left unanswered")
        transport.abort()
        await self._gone(receive)

    @staticmethod
    async def _gone(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
