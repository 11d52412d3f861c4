"""The worker: claims what is due and has it done, for as long as the process lives.

Rule 1: recovery is this same sweep, never a start-up step: what a dead process had claimed becomes due again when
its lease ends, and is treated like anything else that is due.
Rule 2: a wake-up only makes it quicker; the sweep looks by itself every second.
Rule 3: each turn claims under a name of its own, and only names under which somebody is working are renewed: what
nobody works on (the answer to a claim was lost, a beginning failed) becomes due again by itself.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from service.domain.effects import Work
from service.domain.schedule import backoff_ms
from service.flows import submit
from service.flows.advance import Advance
from service.flows.archive import archive
from service.flows.cancel import cancel_at_provider
from service.flows.expire import expire
from service.flows.poll import ask
from service.flows.reconcile import reconcile
from service.flows.runtime import Runtime
from service.storage import work
from service.storage.database import DatabaseUnavailable
from service.storage.work import Due

_SWEEP_S = 1.0
#: After SIGTERM, what is under way gets so long before it is given up (submits become uncertain).
FINISH_S = 8.0
_GIVE_UP_S = 1.0
#: Each kind is claimed at most so often: under load, what comes in this time shares its transactions.
_TURN_EVERY_S = 0.02
#: What the database interrupted is tried again so much later, and not counted as a try.
_INTERRUPTED_MS = 1_000

_log = structlog.get_logger("fluxgate.work")

T = TypeVar("T")
Handler = Callable[[Runtime, Advance, Due], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Duty:
    """One kind of work, done for up to `most` jobs at a time in this process."""

    kind: Work
    most: int
    handler: Handler | None = None


#: Submits are begun in sets (`submit.start`) and therefore have no handler of their own here.
DUTIES = (
    Duty(Work.SUBMIT, 64),
    Duty(Work.ASK, 32, ask),
    Duty(Work.RECONCILE, 8, reconcile),
    Duty(Work.CANCEL, 8, cancel_at_provider),
    Duty(Work.ARCHIVE, 16, archive),
)


class Worker:
    """The background work of one process."""

    def __init__(self, runtime: Runtime, advance: Advance) -> None:
        self._runtime = runtime
        self._advance = advance
        self._stopping = asyncio.Event()
        self._duties: list[asyncio.Task[None]] = []
        self._sweeps: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._turns = itertools.count()
        #: By the name of a claim: how much is under way under it.
        self._held: Counter[str] = Counter()
        #: When each loop last came round, for readiness.
        self.seen_ms: dict[str, int] = {}

    def start(self) -> None:
        """This function will begin to work."""
        renew_s = self._runtime.timing.lease_ms / 3000
        self._duties = [asyncio.create_task(self._duty(duty)) for duty in DUTIES]
        self._sweeps = [
            asyncio.create_task(self._every("expire", _SWEEP_S, self._expire)),
            asyncio.create_task(self._every("renew", renew_s, self._renew)),
        ]

    async def stop(self) -> None:
        """This function will take no new work, let what is under way finish for 8 s, and leave the rest to others.

        Leases are renewed until the end, so that nobody else takes what is still being finished. Called again, it
        waits for the same end and does not begin the 8 s anew.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await self._ending

    async def _end(self) -> None:
        self._stopping.set()
        self._runtime.bell.ring([duty.kind.value for duty in DUTIES], relayed=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._finish()
        held = list(self._held)
        left = {task for task in (*self._duties, *self._jobs, *self._sweeps) if not task.done()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_GIVE_UP_S)
        with contextlib.suppress(DatabaseUnavailable):
            await self._runtime.door.write(lambda tx: [work.release(tx, mine=name) for name in held])

    async def _finish(self) -> None:
        """A turn that has claimed goes on: what it has begun to commit must not be cut off before it is sent."""
        await asyncio.gather(*self._duties, return_exceptions=True)
        while self._jobs:
            await asyncio.wait(self._jobs)

    async def _expire(self) -> bool:
        while await expire(self._runtime, self._advance):
            pass
        return True

    async def _renew(self) -> bool:
        runtime, names = self._runtime, list(self._held)
        if names:
            await runtime.door.write(
                lambda tx: [work.renew(tx, mine=name, lease_ms=runtime.timing.lease_ms) for name in names]
            )
        return True

    async def _every(self, name: str, seconds: float, act: Callable[[], Awaitable[bool]]) -> None:
        while True:
            await self._safely(name, act)
            await self._runtime.sleep(seconds)

    async def _safely(self, name: str, act: Callable[[], Awaitable[T]]) -> T | None:
        """Do it; the loops outlive every failure. None: it was not done."""
        try:
            came = await act()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop=name, reason=str(error))
            return None
        except Exception:  # noqa: BLE001 - a loop outlives every failure
            _log.exception("loop_failed", loop=name)
            return None
        self.seen_ms[name] = self._runtime.now_ms()
        return came

    async def _duty(self, duty: Duty) -> None:
        running: set[asyncio.Task[None]] = set()
        topic, bell = duty.kind.value, self._runtime.bell
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            ticket, began = bell.ticket(topic), clock()
            took = await self._safely(topic, lambda: self._turn(duty, running))
            if took:
                bell.forget(topic, ticket)
            elif len(running) >= duty.most:
                bell.forget(topic, ticket)
                await asyncio.wait(running, timeout=_SWEEP_S, return_when=asyncio.FIRST_COMPLETED)
            else:
                wait_s = _SWEEP_S if took is None else await self._idle_s(duty.kind)
                await bell.wait(topic, ticket, wait_s)
            early_s = _TURN_EVERY_S - (clock() - began)
            if early_s > 0 and not self._stopping.is_set():
                await self._runtime.sleep(early_s)

    async def _idle_s(self, kind: Work) -> float:
        """How long there is nothing to do, at most until the next sweep; by the clock that claims go by."""
        try:
            due_ms, now_ms = await self._runtime.door.read(
                lambda tx: (work.next_due_ms(tx, kind), tx.clock_ms())
            )
        except Exception:  # noqa: BLE001 - then it looks again at the next sweep
            return _SWEEP_S
        if due_ms is None:
            return _SWEEP_S
        return min(_SWEEP_S, max(0.005, (due_ms - now_ms) / 1000))

    async def _turn(self, duty: Duty, running: set[asyncio.Task[None]]) -> int:
        """Claim as much as there is room for and begin it; tells how much that was."""
        free = duty.most - len(running)
        if free <= 0:
            return 0
        runtime = replace(self._runtime, process_id=f"{self._runtime.process_id}/{next(self._turns)}")
        self._hold(runtime.process_id)
        try:
            dues: list[Due] = await runtime.door.write(
                lambda tx: work.claim(
                    tx,
                    kind=duty.kind,
                    mine=runtime.process_id,
                    lease_ms=runtime.timing.lease_ms,
                    most=free,
                )
            )
            if dues and duty.handler is None:
                for sending in await submit.start(runtime, self._advance, dues):
                    doing = partial(submit.send, runtime, self._advance, sending)
                    self._begin(running, runtime.process_id, self._do(runtime, doing, sending.due))
            elif duty.handler is not None:
                for due in dues:
                    doing_it = partial(duty.handler, runtime, self._advance, due)
                    self._begin(running, runtime.process_id, self._do(runtime, doing_it, due))
        finally:
            self._let_go(runtime.process_id)
        return len(dues)

    def _hold(self, name: str) -> None:
        self._held[name] += 1

    def _let_go(self, name: str) -> None:
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]

    def _begin(
        self, running: set[asyncio.Task[None]], claim: str, doing: Coroutine[None, None, None]
    ) -> None:
        task = asyncio.create_task(doing)
        running.add(task)
        self._jobs.add(task)
        self._hold(claim)
        task.add_done_callback(lambda _: self._let_go(claim))
        task.add_done_callback(running.discard)
        task.add_done_callback(self._jobs.discard)

    async def _do(self, runtime: Runtime, doing: Callable[[], Awaitable[None]], due: Due) -> None:
        """Do one piece of work, and give it back when that fails."""
        try:
            await doing()
        except DatabaseUnavailable as error:
            _log.warning("work_interrupted", kind=due.kind.value, job_id=due.job_id, reason=str(error))
            await self._give_back(runtime, due, runtime.now_ms() + _INTERRUPTED_MS, counts=False)
        except Exception:  # noqa: BLE001 - one job's failure is not another's
            _log.exception("work_failed", kind=due.kind.value, job_id=due.job_id)
            later_ms = runtime.now_ms() + backoff_ms(
                tries=due.tries, base_ms=2_000, cap_ms=60_000, jitter=runtime.chance()
            )
            await self._give_back(runtime, due, later_ms, counts=True)

    async def _give_back(self, runtime: Runtime, due: Due, due_ms: int, *, counts: bool) -> None:
        """Put a piece of work off, however long the database is away: until then its lease is renewed."""
        while True:
            with contextlib.suppress(Exception):
                await runtime.door.write(
                    lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=due_ms, counts=counts)
                )
                return
            await runtime.sleep(_SWEEP_S)
