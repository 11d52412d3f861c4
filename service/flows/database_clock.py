"""The database's clock, as far as this process knows it: all processes go by it, and none asks it for every step."""

from service.flows.runtime import Runtime

#: So long the two clocks are taken to be as far apart as they were.
_KNOWN_MS = 5_000
#: An answer that takes longer tells too little: the first one waits for a connection. It is asked again, not for ever.
_QUICK_MS = 3
_MOST_TIMES = 3


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
        began_ms = self._runtime.now_ms()
        # A clock that was set back says nothing of how long ago that was.
        if self._asked_ms is not None and 0 <= began_ms - self._asked_ms < _KNOWN_MS:
            return
        heard: list[tuple[int, int]] = []
        while len(heard) < _MOST_TIMES and (not heard or heard[-1][0] > _QUICK_MS):
            ours_ms = self._runtime.now_ms()
            theirs_ms = await self._runtime.door.read(lambda tx: tx.clock_ms())
            # Ours is of before the asking: that makes it a little late for theirs, and what is due is due.
            heard.append((self._runtime.now_ms() - ours_ms, theirs_ms - ours_ms))
        self._ahead_ms, self._asked_ms = min(heard)[1], began_ms

    def now_ms(self) -> int:
        """This function will tell the database's time."""
        return self._runtime.now_ms() + self._ahead_ms
