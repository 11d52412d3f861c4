"""The tasks that feed the sinks of one working process: one for each, so that one that is down holds up no other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence

import structlog

from service.flows.runtime import Runtime
from service.flows.sink import SWEEP_S, Publisher
from service.sinks.base import Sink
from service.storage.database import DatabaseUnavailable

#: What is committed in these milliseconds shares one turn.
_GATHER_S = 0.005
_FINISH_S = 0.5

_log = structlog.get_logger("fluxgate.sink")


class Sinks:
    """All sinks of one process."""

    def __init__(self, runtime: Runtime, configured: Sequence[Sink]) -> None:
        self._runtime = runtime
        self._publishers = [Publisher(runtime, sink) for sink in configured]
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """This function will begin to publish; without sinks there is nothing to begin."""
        if self._publishers:
            self._tasks = [asyncio.create_task(self._run(each)) for each in self._publishers]
            self._renewing = asyncio.create_task(self._renew())

    async def stop(self) -> None:
        """This function will let the sets under way be confirmed, for half a second, and give the sinks to others.

        A set that is cut off is safe: it is found in the broker, or sent again with the same ids.
        """
        self._stopping.set()
        running = [*self._tasks, *([self._renewing] if self._renewing else [])]
        if not running:
            return
        if self._renewing is not None:
            self._renewing.cancel()
        _, left = await asyncio.wait(running, timeout=_FINISH_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(publisher.end() for publisher in self._publishers))

    async def _run(self, publisher: Publisher) -> None:
        bell = self._runtime.bell
        while not self._stopping.is_set():
            ticket = bell.ticket("feed")
            wait_s = await self._safely(publisher)
            if wait_s == SWEEP_S:
                await self._either(bell.wait("feed", ticket, wait_s))
                await self._runtime.sleep(_GATHER_S)
                continue
            bell.forget("feed", ticket)
            if wait_s:
                await self._either(self._runtime.sleep(wait_s))

    async def _either(self, waiting: Awaitable[object]) -> None:
        """Wait for something, or for the end."""
        stopped = asyncio.create_task(self._stopping.wait())
        other = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait({stopped, other}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            other.cancel()
            await asyncio.gather(stopped, other, return_exceptions=True)

    async def _safely(self, publisher: Publisher) -> float:
        try:
            return await publisher.turn()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop=f"sink {publisher.name}", reason=str(error))
        except Exception:  # noqa: BLE001 - a loop outlives every failure
            _log.exception("loop_failed", loop=f"sink {publisher.name}")
        return SWEEP_S

    async def _renew(self) -> None:
        while True:
            await self._runtime.sleep(self._runtime.timing.lease_ms / 3000)
            for publisher in self._publishers:
                with contextlib.suppress(DatabaseUnavailable):
                    await publisher.renew()
