"""Connections are used again when that is safe, and gone when it is not."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.egress import Answered, Egress, Kind, Unreachable, kept
from tests.egress.conftest import MakeEgress
from tests.egress.servers import PUBLIC, Authority, Names, Seen, answer, request_of, saying, serving

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


async def post(egress: Egress, seen: Seen, body: bytes = b"{}") -> Answered:
    return await egress.post(
        f"http://{PUBLIC}:{seen.port}/", headers={}, body=body, timeout_s=5.0, max_answer_bytes=4096
    )


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not true():
            await asyncio.sleep(0.005)


class TestAKeptConnection:
    @pytest.mark.parametrize(
        "whole",
        [
            answer(),
            answer(b""),
            CHUNKED,
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" + answer(),
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer(status="500 Oh"),
        ],
        ids=["length", "empty", "chunked", "204", "continue", "hints"],
    )
    async def test_is_used_again_after_a_complete_answer(self, egress_with: MakeEgress, whole: bytes) -> None:
        egress = egress_with()
        async with serving(saying(whole)) as seen:
            for _ in range(3):
                came = await post(egress, seen)
                assert came.status in (200, 204, 500)
                assert "link" not in came.headers
            assert (seen.connections, len(seen.requests)) == (1, 3)

    @pytest.mark.parametrize(
        "whole",
        [
            answer(headers=["Connection: close"]),
            HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 2\r\n\r\nok",
            answer() + b"more",
            answer() + answer(b"another"),
            answer() + HEAD,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nok",
        ],
        ids=["close", "1.0", "garbage", "second answer", "half an answer", "upgrade"],
    )
    async def test_is_not_used_again_when_its_server_wants_or_says_more(
        self, egress_with: MakeEgress, whole: bytes
    ) -> None:
        egress = egress_with()
        async with serving(saying(whole)) as seen:
            for _ in range(2):
                came = await post(egress, seen)
                assert came.body in (b"ok", b"")
            assert seen.connections == 2

    async def test_that_speaks_unasked_is_dropped(self, egress_with: MakeEgress) -> None:
        async def blurt(reader: Any, writer: Any) -> None:
            await request_of(reader)
            writer.write(answer())
            await asyncio.sleep(0.02)
            writer.write(answer(b"for the next request"))
            await reader.read()

        egress = egress_with()
        async with serving(blurt) as seen:
            await post(egress, seen)
            await until(lambda: seen.ended == 1)
            assert (await post(egress, seen)).body == b"ok"
            assert seen.connections == 2

    async def test_that_was_closed_meanwhile_costs_nothing(self, egress_with: MakeEgress) -> None:
        async def once(reader: Any, writer: Any) -> None:
            await saying(answer(), close=True)(reader, writer)

        egress = egress_with()
        async with serving(once) as seen:
            for _ in range(3):
                assert (await post(egress, seen)).status == 200
                await asyncio.sleep(0.02)
            assert seen.connections == 3

    async def test_that_is_closed_with_the_request_in_hand_sends_it_again_once(
        self, egress_with: MakeEgress
    ) -> None:
        async def leave_at_the_second(reader: Any, writer: Any) -> None:
            await saying(answer(), close=True)(reader, writer)
            await request_of(reader)

        egress = egress_with()
        async with serving(leave_at_the_second) as seen:
            assert (await post(egress, seen, b"first")).status == 200
            assert (await post(egress, seen, b"second")).status == 200
            assert [body for _, body in seen.requests] == [b"first", b"second", b"second"]

    async def test_that_ends_within_an_answer_does_not_send_again(self, egress_with: MakeEgress) -> None:
        async def half(reader: Any, writer: Any) -> None:
            await saying(answer(), close=True)(reader, writer)
            await saying(HEAD, close=True)(reader, writer)

        egress = egress_with()
        async with serving(half) as seen:
            assert (await post(egress, seen)).status == 200
            with pytest.raises(Unreachable) as caught:
                await post(egress, seen)
            assert caught.value.kind is Kind.RESET
            assert len(seen.requests) == 2

    async def test_is_ended_when_nobody_uses_it(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "KEEP_ALIVE_S", 0.05)
        egress = egress_with()
        async with serving(saying(answer())) as seen:
            await asyncio.gather(post(egress, seen), post(egress, seen))
            await until(lambda: seen.ended == 2)
            await post(egress, seen)
            assert seen.connections == 3

    async def test_is_ended_after_its_time_even_if_it_is_never_idle(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "LIFE_S", 0.1)
        egress = egress_with()
        async with serving(saying(answer())) as seen:
            async with asyncio.timeout(2):
                while seen.connections == 1 or not seen.connections:
                    await post(egress, seen)

    async def test_is_one_of_a_bounded_number(
        self, egress_with: MakeEgress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "_MOST_IDLE", 2)
        egress = egress_with()
        async with serving(saying(answer())) as seen:
            await asyncio.gather(*(post(egress, seen) for _ in range(5)))
            await until(lambda: seen.ended == 3)

    async def test_is_used_by_as_many_requests_as_come_one_after_the_other_only(
        self, egress_with: MakeEgress
    ) -> None:
        egress = egress_with()
        async with serving(saying(answer())) as seen:
            await asyncio.gather(*(post(egress, seen, str(number).encode()) for number in range(20)))
            await asyncio.gather(*(post(egress, seen) for _ in range(20)))
            assert (seen.connections, len(seen.requests)) == (20, 40)

    async def test_keeps_tls_for_the_next_request(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        names = Names(hook_example=[PUBLIC])
        egress = egress_with(names)
        async with serving(saying(answer()), tls=authority.serving("hook.example")) as seen:
            for _ in range(3):
                came = await egress.post(
                    f"https://hook.example:{seen.port}/x",
                    headers={},
                    body=b"{}",
                    timeout_s=5,
                    max_answer_bytes=4096,
                )
                assert came.status == 200
            assert (seen.connections, seen.server_names, names.asked) == (
                1,
                ["hook.example"],
                ["hook.example"],
            )


class TestAnAnswer:
    async def test_without_a_length_ends_with_its_connection(self, egress_with: MakeEgress) -> None:
        async with serving(saying(HEAD + b"\r\nall of it", close=True)) as seen:
            came = await post(egress_with(), seen)
        assert (came.body, came.cut) == (b"all of it", False)

    async def test_has_its_headers_by_lower_case_name(self, egress_with: MakeEgress) -> None:
        lines = ["Retry-After: 7", "X-Twice: a", "x-twice: b", "X-Empty:", "X-Latin: \xfc"]
        whole = answer(status="503 Later", headers=[])
        whole = whole.replace(b"\r\n", b"\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n", 1)
        async with serving(saying(whole)) as seen:
            came = await post(egress_with(), seen)
        assert came.status == 503
        assert came.headers["retry-after"] == "7"
        assert came.headers["x-twice"] == "a, b"
        assert came.headers["x-empty"] == ""
        assert came.headers["x-latin"] == "\xfc"

    async def test_has_no_headers_behind_its_body(self, egress_with: MakeEgress) -> None:
        trailed = CHUNKED[:-2] + b"Retry-After: 9\r\n\r\n"
        egress = egress_with()
        async with serving(saying(trailed)) as seen:
            for _ in range(2):
                came = await post(egress, seen)
                assert came.body == b"ok"
                assert "retry-after" not in came.headers
            assert seen.connections == 1

    async def test_may_come_in_any_pieces(self, egress_with: MakeEgress) -> None:
        async def piecemeal(reader: Any, writer: Any) -> None:
            await request_of(reader)
            for byte in CHUNKED:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()

        async with serving(piecemeal) as seen:
            assert (await post(egress_with(), seen)).body == b"ok"

    async def test_may_come_before_the_request_was_read(self, egress_with: MakeEgress) -> None:
        async def hasty(reader: Any, writer: Any) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"no", status="413 Too Large", headers=["Connection: close"]))
            await writer.drain()
            await reader.read()

        async with serving(hasty) as seen:
            assert (await post(egress_with(), seen, bytes(3_000_000))).status == 413

    async def test_tells_how_long_it_took(self, egress_with: MakeEgress) -> None:
        async def slow(reader: Any, writer: Any) -> None:
            await request_of(reader)
            await asyncio.sleep(0.05)
            writer.write(answer())
            await reader.read()

        async with serving(slow) as seen:
            assert 45 <= (await post(egress_with(), seen)).took_ms < 2000


class TestTheEnd:
    async def test_ends_idle_connections_and_those_in_use(
        self, egress_with: MakeEgress, authority: Authority
    ) -> None:
        async def hang(reader: Any, _writer: Any) -> None:
            await request_of(reader)
            await reader.read()

        egress = egress_with(Names(hook_example=[PUBLIC]))
        tls = authority.serving("hook.example")
        async with (
            serving(saying(answer())) as idle,
            serving(hang) as busy,
            serving(saying(answer()), tls=tls) as secure,
        ):
            await post(egress, idle)
            await egress.post(
                f"https://hook.example:{secure.port}/", headers={}, body=b"", timeout_s=5, max_answer_bytes=9
            )
            under_way = asyncio.create_task(post(egress, busy))
            await until(lambda: bool(busy.requests))
            assert len(egress._open) == 3
            await egress.aclose()
            assert egress._open == set()
            with pytest.raises(Unreachable) as caught:
                await under_way
            assert caught.value.kind is Kind.RESET
            await until(lambda: idle.ended + busy.ended + secure.ended == 3)

    async def test_may_come_twice_and_before_anything_was_sent(self, egress_with: MakeEgress) -> None:
        egress = egress_with()
        await egress.aclose()
        await egress.aclose()
