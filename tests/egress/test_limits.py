"""No server can hold a request for longer than its time, or make it read more than its size."""

import asyncio
import errno
import socket
from ipaddress import ip_network
from typing import Any

import pytest

from service.egress import Answered, Egress, Kind, Unreachable, client, dial
from service.egress.connection import MOST_HEAD_BYTES
from tests.egress.conftest import MakeEgress
from tests.egress.servers import (
    PUBLIC,
    Authority,
    Behaviour,
    Names,
    Seen,
    answer,
    request_of,
    saying,
    serving,
)

MOST = 1000


async def post(egress: Egress, seen: Seen, **more: Any) -> Answered:
    given = {"headers": {}, "body": b"{}", "timeout_s": 5.0, "max_answer_bytes": MOST}
    return await egress.post(f"http://{PUBLIC}:{seen.port}/", **{**given, **more})


async def trouble(egress: Egress, seen: Seen, **more: Any) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await post(egress, seen, **more)
    assert PUBLIC not in caught.value.message
    assert "://" not in caught.value.message
    return caught.value


async def ended(seen: Seen, count: int = 1) -> None:
    """Wait until connections are gone at the server's side, those that it met: a busy machine may be too slow."""
    async with asyncio.timeout(10):
        while seen.ended < min(count, seen.connections):
            await asyncio.sleep(0.005)


def dripping(first: bytes, drop: bytes, *, pause_s: float = 0.01) -> Behaviour:
    """Begin with something and go on in drops for ever."""

    async def behave(reader: Any, writer: Any) -> None:
        await request_of(reader)
        writer.write(first)
        if not drop:
            await reader.read()
        while drop and not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return behave


HEAD = b"HTTP/1.1 200 OK\r\n"


class TestTime:
    @pytest.mark.parametrize(
        ("first", "drop"),
        [
            (b"", b""),
            (HEAD, b"x"),
            (HEAD, b"X-A: b\r\n"),
            (HEAD + b"Content-Length: 900\r\n\r\n", b"x"),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            (HEAD + b"\r\n", b"x"),
            (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ],
        ids=[
            "silence",
            "one header",
            "many headers",
            "body",
            "chunks",
            "body without length",
            "interim",
        ],
    )
    async def test_an_answer_in_drops_is_given_up_when_the_time_is_over(
        self, egress_with: MakeEgress, first: bytes, drop: bytes
    ) -> None:
        loop = asyncio.get_running_loop()
        async with serving(dripping(first, drop, pause_s=0.02)) as seen:
            begun = loop.time()
            found = await trouble(egress_with(), seen, timeout_s=0.2)
            assert 0.19 < loop.time() - begun < 2
            assert found.kind is Kind.TIMEOUT
            await ended(seen)

    async def test_a_look_up_counts(self, egress_with: MakeEgress) -> None:
        async def never(_host: str) -> list[str]:
            await asyncio.sleep(60)
            return []

        egress = egress_with(never)
        with pytest.raises(Unreachable) as caught:
            await egress.post(
                "https://hook.example/", headers={}, body=b"", timeout_s=0.1, max_answer_bytes=1
            )
        assert caught.value.kind is Kind.TIMEOUT

    async def test_a_look_up_has_a_time_of_its_own(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(_host: str) -> list[str]:
            await asyncio.sleep(60)
            return []

        monkeypatch.setattr(client, "RESOLVE_S", 0.05)
        with pytest.raises(Unreachable) as caught:
            await egress_with(never).post(
                "https://hook.example/", headers={}, body=b"", timeout_s=20, max_answer_bytes=1
            )
        assert caught.value.kind is Kind.DNS

    async def test_a_tls_greeting_counts(self, egress_with: MakeEgress) -> None:
        async def hang(reader: Any, _writer: Any) -> None:
            await reader.read()

        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(hang) as seen:
            with pytest.raises(Unreachable) as caught:
                await egress.post(
                    f"https://hook.example:{seen.port}/",
                    headers={},
                    body=b"",
                    timeout_s=0.2,
                    max_answer_bytes=1,
                )
            assert caught.value.kind is Kind.TIMEOUT

    async def test_a_server_that_takes_no_request_is_given_up(self, egress_with: MakeEgress) -> None:
        async def deaf(_reader: Any, _writer: Any) -> None:
            await asyncio.sleep(60)

        async with serving(deaf) as seen:
            found = await trouble(egress_with(), seen, body=bytes(20_000_000), timeout_s=0.3)
            assert found.kind is Kind.TIMEOUT

    async def test_somebody_who_gives_up_takes_the_connection_with_him(self, egress_with: MakeEgress) -> None:
        egress = egress_with()
        async with serving(dripping(b"", b"")) as seen:
            task = asyncio.create_task(post(egress, seen))
            while not seen.requests:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with serving(saying(answer()), port=seen.port) as next_one:
            assert (await post(egress, next_one)).body == b"ok"


class TestSize:
    @pytest.mark.parametrize(
        ("first", "drop"),
        [
            (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"x" * 5000),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1388\r\n" + b"x" * 5000 + b"\r\n"),
            (HEAD + b"\r\n", b"x" * 5000),
        ],
        ids=["length", "chunks", "neither"],
    )
    async def test_an_endless_body_is_cut_and_the_connection_dropped(
        self, egress_with: MakeEgress, first: bytes, drop: bytes
    ) -> None:
        async with serving(dripping(first, drop)) as seen:
            came = await post(egress_with(), seen)
            assert (came.status, came.body, came.cut) == (200, b"x" * MOST, True)
            await ended(seen)

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize(
        ("size", "cut", "connections"), [(MOST - 1, False, 1), (MOST, False, 1), (MOST + 1, True, 2)]
    )
    async def test_a_body_is_cut_only_above_the_limit(
        self, egress_with: MakeEgress, size: int, cut: bool, connections: int, chunked: bool
    ) -> None:
        whole = answer(b"x" * size)
        if chunked:
            whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
        egress = egress_with()
        async with serving(saying(whole)) as seen:
            for _ in range(2):
                came = await post(egress, seen)
                assert (len(came.body), came.cut) == (min(size, MOST), cut)
            assert seen.connections == connections

    async def test_what_was_wanted_is_not_kept_waiting_for_the_rest(self, egress_with: MakeEgress) -> None:
        async def stall(reader: Any, writer: Any) -> None:
            await request_of(reader)
            writer.write(HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * (MOST + 1))
            await reader.read()

        async with serving(stall) as seen:
            came = await post(egress_with(), seen, timeout_s=20)
            assert (len(came.body), came.cut) == (MOST, True)
            assert came.took_ms < 5000

    async def test_nothing_of_a_body_is_read_where_nothing_is_wanted(self, egress_with: MakeEgress) -> None:
        async with serving(saying(answer(b"much"))) as seen:
            came = await post(egress_with(), seen, max_answer_bytes=0)
        assert (came.body, came.cut) == (b"", True)

    @pytest.mark.parametrize(
        ("first", "drop"),
        [
            (HEAD, b"X-A: b\r\n" * 100),
            (HEAD + b"X-A: ", b"b" * 1000),
            (HEAD, b"x" * 1000),
            (b"HTTP/1.1 200 ", b"O" * 1000),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
            (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 50),
        ],
        ids=["many", "long value", "long name", "long reason", "continue", "hints"],
    )
    async def test_an_endless_head_is_given_up(
        self, egress_with: MakeEgress, first: bytes, drop: bytes
    ) -> None:
        async with serving(dripping(first, drop, pause_s=0)) as seen:
            found = await trouble(egress_with(), seen)
            assert found.kind is Kind.TOO_LARGE
            await ended(seen)

    @pytest.mark.parametrize(
        ("first", "drop"),
        [
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-A: b\r\n" * 100),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-A: ", b"b" * 1000),
            (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1;", b"a=b;" * 300),
        ],
        ids=["trailers", "one trailer", "extension"],
    )
    async def test_what_surrounds_a_body_is_bounded_too(
        self, egress_with: MakeEgress, first: bytes, drop: bytes
    ) -> None:
        async with serving(dripping(first, drop, pause_s=0)) as seen:
            came = await post(egress_with(), seen)
            assert (came.status, came.body, came.cut) == (200, b"x", True)
            await ended(seen)

    async def test_a_head_of_decent_size_is_fine(self, egress_with: MakeEgress) -> None:
        big = "X-Big: " + "b" * (MOST_HEAD_BYTES - 200)
        async with serving(saying(answer(headers=[big]))) as seen:
            came = await post(egress_with(), seen)
        assert (came.status, came.cut) == (200, False)

    async def test_a_small_answer_cannot_become_large(self, egress_with: MakeEgress) -> None:
        packed = answer(b"\x1f\x8b packed", headers=["Content-Encoding: gzip"])
        async with serving(saying(packed)) as seen:
            came = await post(egress_with(), seen)
        assert came.body == b"\x1f\x8b packed"
        assert seen.header("accept-encoding") == "identity"


class TestHowItFails:
    async def test_nobody_listens(self, egress_with: MakeEgress) -> None:
        async with serving(saying(answer())) as seen:
            pass
        assert (await trouble(egress_with(), seen)).kind is Kind.CONNECT

    async def test_the_next_address_is_tried_when_nobody_listens_at_the_first(
        self, egress_with: MakeEgress
    ) -> None:
        egress = egress_with(Names(hook_example=[["127.0.0.9", PUBLIC]]), allowed=[ip_network("127.0.0.0/8")])
        async with serving(saying(answer())) as seen:
            came = await egress.post(
                f"http://hook.example:{seen.port}/", headers={}, body=b"", timeout_s=5, max_answer_bytes=9
            )
        assert came.status == 200

    @pytest.mark.parametrize("addresses", [["2606:4700::1111", PUBLIC], [f"::ffff:{PUBLIC}"]])
    async def test_a_machine_without_ipv6_uses_the_other_addresses(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
    ) -> None:
        class NoIpv6:
            def __getattr__(self, name: str) -> Any:
                return getattr(socket, name)

            def socket(self, family: int, kind: int) -> socket.socket:
                if family == socket.AF_INET6:
                    raise OSError(errno.EAFNOSUPPORT, "not supported")
                return socket.socket(family, kind)

        monkeypatch.setattr(dial, "socket", NoIpv6())
        allowed = [ip_network("127.0.0.1/32"), ip_network("2606:4700::/32")]
        egress = egress_with(Names(hook_example=[addresses]), allowed=allowed)
        async with serving(saying(answer())) as seen:
            came = await egress.post(
                f"http://hook.example:{seen.port}/", headers={}, body=b"", timeout_s=5, max_answer_bytes=9
            )
        assert came.status == 200

    @pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nhalf"])
    async def test_it_hangs_up_before_the_end(self, egress_with: MakeEgress, said: bytes) -> None:
        async with serving(saying(said, close=True)) as seen:
            assert (await trouble(egress_with(), seen)).kind is Kind.RESET
        assert seen.connections == 1

    @pytest.mark.parametrize(
        "said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nA\x00: b\r\n\r\n"]
    )
    async def test_it_speaks_no_http(self, egress_with: MakeEgress, said: bytes) -> None:
        async with serving(saying(said)) as seen:
            assert (await trouble(egress_with(), seen)).kind is Kind.NOT_HTTP
            await ended(seen)

    async def test_it_speaks_no_tls(self, egress_with: MakeEgress) -> None:
        async def babble(_reader: Any, writer: Any) -> None:
            writer.write(b"220 this is no TLS\r\n" * 20)
            await writer.drain()

        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(babble) as seen:
            with pytest.raises(Unreachable) as caught:
                await egress.post(
                    f"https://hook.example:{seen.port}/",
                    headers={},
                    body=b"",
                    timeout_s=5,
                    max_answer_bytes=9,
                )
        assert caught.value.kind is Kind.TLS

    async def test_it_hangs_up_during_the_tls_greeting(self, egress_with: MakeEgress) -> None:
        async def leave(reader: Any, _writer: Any) -> None:
            await reader.read(1)

        egress = egress_with(Names(hook_example=[PUBLIC]))
        async with serving(leave) as seen:
            with pytest.raises(Unreachable) as caught:
                await egress.post(
                    f"https://hook.example:{seen.port}/",
                    headers={},
                    body=b"",
                    timeout_s=5,
                    max_answer_bytes=9,
                )
        assert caught.value.kind is Kind.TLS

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-a": "b\r\nx-evil: 1"},
            {"x-a": "b\0"},
            {"x-a": "ü€"},
            {"x a": "b"},
            {"x-a:": "b"},
            {"": "b"},
            {"Host": "other.example"},
            {"content-length": "0"},
            {"Transfer-Encoding": "chunked"},
        ],
    )
    async def test_a_header_that_would_change_the_request_is_our_own_mistake(
        self, egress_with: MakeEgress, headers: dict[str, str]
    ) -> None:
        async with serving(saying(answer())) as seen:
            with pytest.raises(ValueError, match="cannot be sent"):
                await post(egress_with(), seen, headers=headers)
        assert seen.connections == 0

    async def test_a_secure_answer_is_bounded_like_any_other(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        egress = egress_with(Names(hook_example=[PUBLIC]))
        endless = dripping(HEAD + b"\r\n", b"x" * 5000)
        async with serving(endless, tls=authority.serving("hook.example")) as seen:
            came = await egress.post(
                f"https://hook.example:{seen.port}/", headers={}, body=b"", timeout_s=5, max_answer_bytes=10
            )
            assert (came.body, came.cut) == (b"x" * 10, True)
            await ended(seen)
