"""Connections that wait for the next request to the same scheme, host and port."""

import asyncio

from service.egress.connection import Connection

Place = tuple[bool, str, int]

#: Servers commonly hang up after 5 s of silence (uvicorn, Node).
KEEP_ALIVE_S = 4.0
#: Then the name is looked up and checked anew, also for a server that is never silent.
LIFE_S = 60.0
_MOST_IDLE = 512


class Kept:
    """The idle connections of one process."""

    def __init__(self) -> None:
        self._idle: dict[Place, list[Connection]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, place: Place) -> Connection | None:
        """This function will give the connection that was used last, or None."""
        waiting = self._idle.get(place)
        while waiting:
            connection = waiting.pop()
            self._count -= 1
            if not waiting:
                del self._idle[place]
            if _usable(connection, asyncio.get_running_loop().time()):
                return connection
            connection.abort()
        return None

    def give(self, place: Place, connection: Connection) -> None:
        """This function will keep a connection for a while, or end it if it may not carry another request."""
        loop = asyncio.get_running_loop()
        connection.used_s = loop.time()
        if self._count >= _MOST_IDLE or not _usable(connection, connection.used_s):
            connection.abort()
            return
        self._idle.setdefault(place, []).append(connection)
        self._count += 1
        if self._timer is None:
            self._timer = loop.call_later(KEEP_ALIVE_S, self._sweep)

    def close(self) -> None:
        """This function will end them all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._idle.values():
            for connection in waiting:
                connection.abort()
        self._idle.clear()
        self._count = 0

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._timer = None
        for place, waiting in list(self._idle.items()):
            left = []
            for connection in waiting:
                if _usable(connection, now_s):
                    left.append(connection)
                else:
                    connection.abort()
            self._count -= len(waiting) - len(left)
            if left:
                self._idle[place] = left
            else:
                del self._idle[place]
        if self._idle:
            self._timer = loop.call_later(KEEP_ALIVE_S, self._sweep)


def _usable(connection: Connection, now_s: float) -> bool:
    fresh = now_s - connection.used_s < KEEP_ALIVE_S and now_s - connection.made_s < LIFE_S
    return connection.reusable and fresh
