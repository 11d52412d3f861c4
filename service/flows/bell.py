"""Wake-ups: push for speed. Nobody may rely on one: whoever waits also looks by himself now and then."""

import asyncio
from collections.abc import Callable, Iterable


class Bell:
    """Rings by topic: a kind of work, `feed`, or `job:<id>`."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._relays: list[Callable[[set[str]], None]] = []

    def relay(self, relay: Callable[[set[str]], None]) -> None:
        """This function will also pass rings made here on to other processes."""
        self._relays.append(relay)

    def ring(self, topics: Iterable[str], *, relayed: bool = False) -> None:
        """This function will wake who waits for one of the topics."""
        rung = set(topics)
        for topic in rung:
            for future in self._waiting.pop(topic, ()):
                if not future.done():
                    future.set_result(None)
        if rung and not relayed:
            for relay in self._relays:
                relay(rung)

    def ticket(self, topic: str) -> asyncio.Future[None]:
        """This function will give a future that the next ring resolves; take it before looking, not after."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(topic, set()).add(future)
        return future

    def forget(self, topic: str, ticket: asyncio.Future[None]) -> None:
        """This function will take back a ticket that is no longer waited for."""
        waiting = self._waiting.get(topic)
        if waiting is not None:
            waiting.discard(ticket)
            if not waiting:
                self._waiting.pop(topic, None)

    async def wait(self, topic: str, ticket: asyncio.Future[None], timeout_s: float) -> bool:
        """This function will wait for a ticket, at most `timeout_s`; tells whether it rang."""
        try:
            # Not wait_for: on Python 3.11 it swallows a cancellation that comes in the same turn as the ring.
            async with asyncio.timeout(max(0.0, timeout_s)):
                await ticket
        except TimeoutError:
            return False
        finally:
            self.forget(topic, ticket)
        return True
