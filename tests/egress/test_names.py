"""Look-ups by the system's resolver: shared by all who ask, apart from everything else, and never in the way."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from service.egress import names
from service.egress.names import SystemNames


class Resolver:
    """Stands for the system's resolver: each look-up waits until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def __call__(self, host: str, port: None, **_more: Any) -> list[Any]:
        self.asked.append(host)
        assert self.go.wait(10)
        if host == "unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "odd.example":
            raise UnicodeError("label too long")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(names.socket, "getaddrinfo", made)
    return made


async def test_all_addresses_of_a_name_are_given(resolver: Resolver) -> None:
    resolver.go.set()
    assert await SystemNames()("a.example") == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize("host", ["unknown.example", "odd.example"])
async def test_a_name_without_an_address_is_an_error(resolver: Resolver, host: str) -> None:
    resolver.go.set()
    with pytest.raises(OSError, match="name"):
        await SystemNames()(host)


async def test_a_name_is_looked_up_once_for_all_who_ask_at_the_same_time(resolver: Resolver) -> None:
    look_up = SystemNames()
    asking = [asyncio.create_task(look_up("a.example")) for _ in range(10)]
    await asyncio.sleep(0.02)
    asking[0].cancel()
    await asyncio.sleep(0)
    resolver.go.set()
    assert await asyncio.gather(*asking[1:]) == [["192.0.2.1", "2001:db8::1"]] * 9
    assert asking[0].cancelled()
    assert resolver.asked == ["a.example"]
    await look_up("a.example")
    assert len(resolver.asked) == 2


async def test_a_slow_name_server_holds_up_no_other_name_and_no_other_thread(resolver: Resolver) -> None:
    look_up = SystemNames()
    slow = [asyncio.create_task(look_up(f"{number}.example")) for number in range(20)]
    await asyncio.sleep(0.05)
    assert len(resolver.asked) == 20
    assert await asyncio.to_thread(lambda: 1) == 1
    resolver.go.set()
    await asyncio.gather(*slow)


async def test_there_is_a_limit_to_look_ups_also_when_nobody_waits_for_them_any_more(
    resolver: Resolver,
) -> None:
    look_up = SystemNames(most=2)
    slow = [asyncio.create_task(look_up(f"{number}.example")) for number in range(4)]
    await asyncio.sleep(0.05)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    late = asyncio.create_task(look_up("late.example"))
    await asyncio.sleep(0.05)
    assert sorted(resolver.asked) == ["0.example", "1.example"]
    resolver.go.set()
    assert await late == ["192.0.2.1", "2001:db8::1"]


async def test_a_machine_without_a_free_thread_finds_no_name_now(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread:
        def __init__(self, **_more: Any) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(names.threading, "Thread", NoThread)
    with pytest.raises(OSError, match="thread"):
        await SystemNames()("a.example")


async def test_the_end_waits_for_no_name_server(resolver: Resolver) -> None:
    look_up = SystemNames()
    slow = asyncio.create_task(look_up("slow.example"))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        await look_up.aclose()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "fluxgate-name")
    resolver.go.set()
