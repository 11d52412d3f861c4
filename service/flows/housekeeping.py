"""Housekeeping: what is done once an hour: old rows are pruned, and half-written files swept away."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.flows.prune import prune
from service.flows.runtime import Runtime
from service.storage.database import DatabaseUnavailable

_EVERY_S = 3_600.0
#: The first time soon after the start, but not with everything else of the start.
_FIRST_S = 60.0
#: A download takes minutes at most: what is older than this was left behind by a process that died.
_LEFT_BEHIND_S = 86_400.0

_log = structlog.get_logger("fluxgate.housekeeping")


class Housekeeper:
    """The hourly work of one process; several processes doing it do no harm."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """This function will begin to wait for the first hour."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """This function will end; what is half done is done the next time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        # Processes that were started together do not do it together.
        await self._runtime.sleep(_FIRST_S * (1 + self._runtime.chance()))
        while True:
            await self.once()
            await self._runtime.sleep(_EVERY_S)

    async def once(self) -> None:
        """This function will prune and sweep; what fails is tried again in an hour."""
        await self._safely("prune", lambda: prune(self._runtime))
        await self._safely("sweep", self._sweep)

    async def _sweep(self) -> None:
        await asyncio.to_thread(
            self._runtime.files.sweep,
            now_s=self._runtime.now_ms() / 1000,
            older_than_s=_LEFT_BEHIND_S,
            log=lambda left: _log.warning("file_not_swept", file=left),
        )

    async def _safely(self, name: str, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except DatabaseUnavailable as error:
            _log.warning("database_unavailable", loop=name, reason=str(error))
        except Exception:  # noqa: BLE001 - the other one is done all the same
            _log.exception("loop_failed", loop=name)
