"""How requests leave: closed (each connection sends its next one at once) or open (at a fixed rate, whatever comes).

Rule: in the open loop a request's time counts from when it was due, not from when a connection was free for it;
otherwise a server that stalls is not charged for those who would have come meanwhile.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.load.connection import Connection

_TICK_S = 0.001


@dataclass(kw_only=True)
class Plan:
    """What to send: `rate` requests a second, or as many as `connections` can when it is None."""

    connections: int
    seconds: float
    warm_s: float
    rate: float | None = None


@dataclass
class Seen:
    """What came back."""

    sent: int = 0
    answered: int = 0
    #: Answers within the counted window.
    counted: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    first_at: float = 0.0
    last_at: float = 0.0
    window_s: float = 0.0


class Loop:
    """One run of the generator."""

    def __init__(self, plan: Plan, requests: Iterator[bytes]) -> None:
        self._plan = plan
        self._requests = requests
        self._clock = asyncio.get_running_loop().time
        self._done = asyncio.Event()
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._busy = 0
        self._exhausted = False
        self._broken = False
        self.seen = Seen()

    async def run(self, host: str, port: int) -> Seen:
        """This function will send until the time is over or nothing is left, and wait for the last answer.

        :raises ConnectionError: if the server closed a connection.
        """
        loop = asyncio.get_running_loop()
        for _ in range(self._plan.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._lost), host, port
            )
            self._idle.append(connection)
        everyone = list(self._idle)
        self._begin = self._clock()
        self._from = self._begin + self._plan.warm_s
        self._until = self._from + self._plan.seconds
        self.seen.first_at = time.time()
        ticking = None
        if self._plan.rate is None:
            for connection in self._idle[:]:
                self._next(connection)
        else:
            ticking = asyncio.create_task(self._tick(self._plan.rate))
        await self._done.wait()
        if ticking is not None:
            ticking.cancel()
        if self._broken:
            raise ConnectionError("the server closed a connection")
        self.seen.window_s = max(1e-9, min(self._clock(), self._until) - self._from)
        for connection in everyone:
            connection.close()
        return self.seen

    def _take(self) -> bytes | None:
        if self._exhausted or self._clock() >= self._until:
            self._exhausted = True
            return None
        request = next(self._requests, None)
        self._exhausted = request is None
        return request

    def _send(self, connection: Connection, request: bytes, due: float) -> None:
        self._busy += 1
        self.seen.sent += 1
        connection.send(request, due)

    def _next(self, connection: Connection) -> None:
        request = self._take()
        if request is not None:
            self._send(connection, request, self._clock())
        elif self._busy == 0:
            self._done.set()

    def _answered(self, connection: Connection, status: int) -> None:
        now, seen = self._clock(), self.seen
        self._busy -= 1
        seen.answered += 1
        seen.statuses[status] += 1
        seen.last_at = time.time()
        if self._from <= now <= self._until:
            seen.counted += 1
        if connection.due >= self._from:
            seen.took_s.append(now - connection.due)
        if self._plan.rate is None:
            self._next(connection)
        elif self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)
            if self._exhausted and self._busy == 0:
                self._done.set()

    async def _tick(self, rate: float) -> None:
        number = 0
        while not self._exhausted:
            due = self._begin + number / rate
            late = self._clock() - due
            if late < 0:
                await asyncio.sleep(max(_TICK_S, -late))
                continue
            request = self._take()
            if request is None:
                break
            number += 1
            if self._idle:
                self._send(self._idle.pop(), request, due)
            else:
                self._waiting.append((request, due))
        if self._busy == 0 and not self._waiting:
            self._done.set()

    def _lost(self) -> None:
        if not self._done.is_set():
            self._broken = True
            self._done.set()
