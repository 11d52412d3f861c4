"""Whatever bytes a server sends, in whatever pieces, there is one outcome, and it holds no more than it may."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.egress import Unreachable
from service.egress.connection import Connection, Reply

MOST = 8


class Wire:
    """Stands for the transport of a connection."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


async def outcome_of(pieces: list[bytes]) -> tuple[Any, bool]:
    """Give what came of a request that is answered in these pieces, and whether the connection may go on."""
    connection = Connection()
    wire: Any = Wire()
    connection.connection_made(wire)
    exchange = asyncio.create_task(connection.exchange(b"POST / HTTP/1.1\r\n\r\n", most_body_bytes=MOST))
    await asyncio.sleep(0)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    reusable = connection.reusable and not wire.closed
    connection.connection_lost(None)
    try:
        return await exchange, reusable
    except Unreachable as error:
        return error.kind, reusable


FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 204 No\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 X\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"X-A:\r\n",
    b"\r\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"0\r\nX-T: a\r\n\r\n",
    b"f" * 20,
    b"\n",
    b"\0",
]
answers = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join) | st.binary(max_size=60)


@given(answers, st.data())
async def test_the_pieces_that_an_answer_comes_in_make_no_difference(
    answer: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[first:last] for first, last in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    whole, _ = await outcome_of([answer])
    parts, _ = await outcome_of([piece for piece in pieces if piece])
    assert parts == whole


@given(answers)
async def test_an_outcome_is_bounded_and_leaves_nothing_for_the_next_request(answer: bytes) -> None:
    outcome, reusable = await outcome_of([answer])
    if isinstance(outcome, Reply):
        assert len(outcome.body) <= MOST
        assert 100 < outcome.status < 1000
    if reusable:
        assert isinstance(outcome, Reply)
        assert not outcome.cut
        _, still = await outcome_of([answer + b"HTTP/1.1 200 OK\r\n"])
        assert not still
