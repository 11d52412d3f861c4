"""The parser of server-sent events: the same events, however the bytes are cut and the lines end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import sse
from service.client.sse import Frame, Parser, TooLong

WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
IDS = WORDS.filter(lambda text: "\0" not in text)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """Write a stream line by line, and say which events are in it."""
    frames: list[Frame] = []
    text = draw(st.sampled_from(["", "\ufeff"]))
    last_id = ""

    def line(said: str) -> str:
        # An empty line that ends with LF, behind a line that ends with CR, is no line: the two are one CRLF.
        joins = not said and text.endswith("\r")
        return said + draw(st.sampled_from(["\r", "\r\n"] if joins else ["\n", "\r", "\r\n"]))

    for _ in range(draw(st.integers(0, 6))):
        type_, data = "", draw(st.lists(WORDS, max_size=3))
        for comment in draw(st.lists(WORDS, max_size=2)):
            text += line(f":{comment}")
        if draw(st.booleans()):
            last_id = draw(IDS)
            text += line(f"id: {last_id}")
        if draw(st.booleans()):
            type_ = draw(WORDS)
            text += line(f"event: {type_}")
        if draw(st.booleans()):
            text += line("retry: 100")
        text += "".join(line(f"data: {part}") for part in data)
        text += line("")
        if data:
            frames.append(Frame(type=type_ or "message", data="\n".join(data), id=last_id))
    return text.encode(), frames


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


def parsed(chunks: list[bytes]) -> list[Frame]:
    parser = Parser()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=30))
def test_every_event_is_found_however_the_bytes_are_cut(
    stream: tuple[bytes, list[Frame]], places: list[int]
) -> None:
    text, frames = stream
    # A CR at the very end may be half of a CRLF, so it ends a line at once, as the standard says.
    assert parsed(cut(text, places)) == frames


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=20))
def test_any_bytes_give_the_same_in_one_piece_and_in_many(text: bytes, places: list[int]) -> None:
    assert parsed(cut(text, places)) == parsed([text])


@given(st.text(alphabet="id:dataevnt \r\n\0\ufeffä€😀", max_size=200), st.integers(1, 4))
def test_what_looks_like_a_stream_gives_the_same_byte_by_byte(text: str, size: int) -> None:
    raw = text.encode()
    assert parsed([raw[at : at + size] for at in range(0, len(raw), size)]) == parsed([raw])


def test_a_character_cut_in_two_is_whole_again() -> None:
    raw = 'data: {"prompt":"ein Füchslein 😀"}\r\n\r\n'.encode()
    for at in range(len(raw)):
        (frame,) = parsed([raw[:at], raw[at:]])
        assert frame.data == '{"prompt":"ein Füchslein 😀"}'


def test_an_event_that_was_not_ended_is_not_given_out() -> None:
    assert parsed([b"id: 1\ndata: whole\n\nid: 2\ndata: half\n"]) == [
        Frame(type="message", data="whole", id="1")
    ]


def test_separators_that_are_no_line_ends_stay_in_the_text() -> None:
    (frame,) = parsed(["data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode()])
    assert frame.data == "a\u2028b\u0085c\x0bd\x0ce"


def test_an_id_stays_until_another_one_comes_and_one_with_nul_is_ignored() -> None:
    frames = parsed([b"id: 7\ndata: a\n\ndata: b\n\nid: 8\x00\ndata: c\n\nid\ndata: d\n\n"])
    assert [frame.id for frame in frames] == ["7", "7", "7", ""]


def test_fields_nobody_knows_and_comments_change_nothing() -> None:
    text = b": hello\nfoo: bar\ndata:x\n: still here\ndata: y\nDATA: z\n\n"
    assert parsed([text]) == [Frame(type="message", data="x\ny", id="")]


def test_an_event_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 1000)
    with pytest.raises(TooLong):
        parsed([b"data: " + b"x" * 50] * 21)
    with pytest.raises(TooLong):
        parsed([b"data: " + b"x" * 50 + b"\n"] * 21)


def test_heartbeats_can_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 1000)
    chunks = [b": still", b" here\n"] * 5000
    assert parsed([*chunks, b"data: x\n\n", *chunks, b"data: y\n\n"]) == [
        Frame(type="message", data=text, id="") for text in "xy"
    ]
