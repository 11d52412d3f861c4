"""Look names up with the system's resolver, without letting a slow name server hold up anything else.

The loop's own look-up shares a few threads with the whole process (four in uvloop, for the providers' names too),
and a thread that waits for a name server cannot be stopped. So each look-up has a thread of its own that nobody waits
for at the end, a name is looked up once however many ask for it, and there is a limit to how many run.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

#: From a host to its addresses as text.
#: :raises OSError: if it has none.
Resolve = Callable[[str], Awaitable[Sequence[str]]]

_MOST_AT_ONCE = 64


class SystemNames:
    """The look-ups of one process; to be used in one event loop."""

    def __init__(self, *, most: int = _MOST_AT_ONCE) -> None:
        self._free = asyncio.Semaphore(most)
        self._under_way: dict[str, asyncio.Task[list[str] | OSError]] = {}

    async def __call__(self, host: str) -> list[str]:
        """This function will give the addresses of a host.

        :raises OSError: if it has none.
        """
        task = self._under_way.get(host)
        if task is None:
            task = asyncio.create_task(self._look_up(host))
            self._under_way[host] = task
            task.add_done_callback(lambda _: self._under_way.pop(host, None))
        # Whoever gives up gives up alone: others may wait for the same name.
        found = await asyncio.shield(task)
        if isinstance(found, OSError):
            raise OSError(*found.args) from found
        return found

    async def aclose(self) -> None:
        """This function will give up all look-ups."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, host: str) -> list[str] | OSError:
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str] | OSError] = loop.create_future()
        # Freed when the thread ends, not when nobody waits for it any more.
        answer.add_done_callback(lambda _: self._free.release())

        def tell(found: list[str] | OSError) -> None:
            if not answer.done():
                answer.set_result(found)

        def ask() -> None:
            found = _addresses(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(tell, found)

        try:
            threading.Thread(target=ask, name="fluxgate-name", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread left
            tell(OSError(str(error)))
        return await answer


def _addresses(host: str) -> list[str] | OSError:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    except UnicodeError:
        return OSError("the name cannot be looked up")
    return [str(address[0]) for *_, address in found]
