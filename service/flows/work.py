"""The worker: claims what is due and has it done, for as long as the process lives.

Rule 1: recovery is this same sweep, never a start-up step: what a dead process had claimed becomes due again when
its lease ends, and is treated like anything else that is due.
Rule 2: a wake-up only makes it quicker; the sweep looks by itself every second.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from service.domain.effects import Work
from service.domain.schedule import backoff_ms
from service.flows import submit
from service.flows.advance import Advance
from service.flows.announce import announce
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

_log = structlog.get_logger("fluxgate.work")

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
        self._loops: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()
        #: When each loop last came round, for readiness.
        self.seen_ms: dict[str, int] = {}

    def start(self) -> None:
        """This function will begin to work."""
        loops: list[Coroutine[Any, Any, None]] = [self._duty(duty) for duty in DUTIES]
        loops += [self._every("expire", _SWEEP_S, self._expire), self._renewing()]
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """This function will take no new work, let what is under way finish for 8 s, and leave the rest to others."""
        self._stopping.set()
        self._runtime.bell.ring([duty.kind.value for duty in DUTIES], relayed=True)
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=FINISH_S)
        for job in self._jobs:
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=_GIVE_UP_S)
        with contextlib.suppress(DatabaseUnavailable):
            await self._runtime.door.write(lambda tx: work.release(tx, mine=self._runtime.process_id))

    async def _expire(self) -> None:
        while await expire(self._runtime, self._advance):
            pass

    async def _renewing(self) -> None:
        runtime = self._runtime
        every_s = runtime.timing.lease_ms / 3000

        async def renew() -> None:
            await runtime.door.write(
                lambda tx: work.renew(tx, mine=runtime.process_id, lease_ms=runtime.timing.lease_ms)
            )

        await self._every("renew", every_s, renew)

    async def _every(self, name: str, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            await self._safely(name, act)
            await self._runtime.sleep(seconds)

    async def _safely(self, name: str, act: Callable[[], Awaitable[None]]) -> bool:
        """Do it; the loops outlive every failure. Tells whether it was done."""
        try:
            await act()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop=name, reason=str(error))
            return False
        except Exception:  # noqa: BLE001 - a loop outlives every failure
            _log.exception("loop_failed", loop=name)
            return False
        self.seen_ms[name] = self._runtime.now_ms()
        return True

    async def _duty(self, duty: Duty) -> None:
        running: set[asyncio.Task[None]] = set()
        topic = duty.kind.value
        while not self._stopping.is_set():
            ticket = self._runtime.bell.ticket(topic)
            took: list[int] = []

            async def turn(took: list[int] = took) -> None:
                took.append(await self._turn(duty, running))

            done = await self._safely(topic, turn)
            if done and took[0]:
                self._runtime.bell.forget(topic, ticket)
                continue
            if len(running) >= duty.most:
                self._runtime.bell.forget(topic, ticket)
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                continue
            wait_s = await self._idle_s(duty.kind) if done else _SWEEP_S
            await self._runtime.bell.wait(topic, ticket, wait_s)

    async def _idle_s(self, kind: Work) -> float:
        """How long there is nothing to do, at most until the next sweep."""
        try:
            due_ms = await self._runtime.door.read(lambda tx: work.next_due_ms(tx, kind))
        except DatabaseUnavailable:
            return _SWEEP_S
        if due_ms is None:
            return _SWEEP_S
        return min(_SWEEP_S, max(0.005, (due_ms - self._runtime.now_ms()) / 1000))

    async def _turn(self, duty: Duty, running: set[asyncio.Task[None]]) -> int:
        """Claim as much as there is room for and begin it; tells how much that was."""
        runtime, free = self._runtime, duty.most - len(running)
        if free <= 0:
            return 0
        dues: list[Due] = await runtime.door.write(
            lambda tx: work.claim(
                tx, kind=duty.kind, mine=runtime.process_id, lease_ms=runtime.timing.lease_ms, most=free
            )
        )
        if not dues:
            return 0
        if duty.handler is None:
            for sending in await submit.start(runtime, self._advance, dues):
                self._begin(running, submit.send(runtime, self._advance, sending), sending.due, duty.kind)
        else:
            for due in dues:
                self._begin(running, duty.handler(runtime, self._advance, due), due, duty.kind)
        return len(dues)

    def _begin(self, running: set[asyncio.Task[None]], doing: Awaitable[None], due: Due, kind: Work) -> None:
        task = asyncio.create_task(self._do(doing, due, kind))
        running.add(task)
        self._jobs.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(self._jobs.discard)

    async def _do(self, doing: Awaitable[None], due: Due, kind: Work) -> None:
        runtime = self._runtime
        try:
            await doing
        except DatabaseUnavailable as error:
            _log.warning("work_interrupted", kind=kind.value, job_id=due.job_id, reason=str(error))
        except Exception:  # noqa: BLE001 - one job's failure is not another's
            _log.exception("work_failed", kind=kind.value, job_id=due.job_id)
            later = runtime.now_ms() + backoff_ms(
                tries=due.tries, base_ms=2_000, cap_ms=60_000, jitter=runtime.chance()
            )
            with contextlib.suppress(DatabaseUnavailable):
                await runtime.door.write(
                    lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=later)
                )


class Announcer:
    """Numbers committed events; every process on PostgreSQL has one, so that a web process needs no worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """This function will begin to number events; on SQLite there is nothing to begin."""
        if self._runtime.door.dialect == "postgresql":
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """This function will number what is still unnumbered, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(DatabaseUnavailable):
                await announce(self._runtime)

    async def _run(self) -> None:
        bell = self._runtime.bell
        while True:
            ticket = bell.ticket("announce")
            try:
                while await announce(self._runtime):
                    pass
            except DatabaseUnavailable as error:
                _log.warning("database_unavailable", loop="announce", reason=str(error))
            except Exception:  # noqa: BLE001 - a loop outlives every failure
                _log.exception("loop_failed", loop="announce")
            await bell.wait("announce", ticket, _SWEEP_S)
