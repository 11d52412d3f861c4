"""The database's clock, as far as this process knows it: all processes go by it, and none asks it for every step."""

from service.flows.runtime import Runtime

#: So long the two clocks are taken to be as far apart as they were.
_KNOWN_MS = 5_000


class DatabaseClock:
    """Ours, corrected by what the database's was ahead of it when it was last asked."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ahead_ms = 0
        self._asked_ms: int | None = None

    async def ask(self) -> None:
        """This function will ask the database what time it is, unless it did so a moment ago.

        :raises DatabaseUnavailable: if it does not answer.
        """
        ours_ms = self._runtime.now_ms()
        if self._asked_ms is None or ours_ms - self._asked_ms >= _KNOWN_MS:
            theirs_ms = await self._runtime.door.read(lambda tx: tx.clock_ms())
            # Taken before the asking: a little early for ours is a little late for theirs, and what is due is due.
            self._ahead_ms, self._asked_ms = theirs_ms - ours_ms, ours_ms

    def now_ms(self) -> int:
        """This function will tell the database's time."""
        return self._runtime.now_ms() + self._ahead_ms
