"""JSON in and out without losing a digit, whatever is sent."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import exact_json
from service.domain.canonical import canonical
from service.domain.exact_json import MAX_DEPTH, NotJson, dumps, loads

integers = st.integers() | st.integers(min_value=-(10**300), max_value=10**300)
texts = st.text(st.characters(exclude_categories=["Cs"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | integers | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
#: Both ways of reading: the second is taken because of a number beside the rest.
WAYS = [
    pytest.param("%s", id="fast"),
    pytest.param("[%s, 1234567890123456789]", id="exact within 64 bits"),
    pytest.param("[%s, 123456789012345678901234567890]", id="exact beyond"),
]


def same(one: Any, other: Any) -> bool:
    """Compare with types: 1 is not 1.0, and not True."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(values)
def test_what_is_written_reads_as_the_same_value(value: Any) -> None:
    assert same(loads(dumps(value)), value)
    assert same(loads(dumps(value).encode()), value)


@given(values)
def test_what_is_written_is_what_the_standard_library_reads(value: Any) -> None:
    assert same(json.loads(dumps(value)), value)


@pytest.mark.parametrize(
    "number",
    [2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 15860307465884635512, 10**3999],
    ids=lambda number: f"{len(str(number))} digits",
)
def test_every_integer_is_kept_exactly(number: int) -> None:
    read = loads(b'{"seed": %d}' % number)
    assert read == {"seed": number}
    assert type(read["seed"]) is int
    assert dumps(read) == f'{{"seed":{number}}}'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "-1e400",
            "1" * 400 + "e400",
            "01",
            "1.",
            ".5",
            "+1",
            "0x1",
            "- 1",
        ),
        *(
            '"\\ud800"',
            '"\\udc00x"',
            '"\\u12"',
            '"\x01"',
            '"\n"',
            "'a'",
            '"a',
            "nul",
            "[1,]",
            "{'a':1}",
            '{"a":1,}',
        ),
        *("[1 2]", "{1:2}", "/*a*/1", "\u0660", "\u00a01", "1" * 4001),
    ],
)
def test_what_is_not_json_is_refused(text: str, way: str) -> None:
    with pytest.raises(NotJson):
        loads((way % text).encode())


@pytest.mark.parametrize(
    "text", [b"", b" ", b"{} {}", b"\xff", b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}"]
)
@pytest.mark.parametrize("more", [b"", b" 123456789012345678901234567890"])
def test_bytes_that_are_no_json_text_are_refused(text: bytes, more: bytes) -> None:
    with pytest.raises(NotJson):
        loads(text + more if more and text.strip() else text)


def test_text_with_a_lone_surrogate_is_refused_and_never_written() -> None:
    for text in ('"\ud800"', '["\ud800", 123456789012345678901234567890]'):
        with pytest.raises(NotJson):
            loads(text)
    for value in ("\ud800", {"\ud800": 1}, ["\ud800", 10**30]):
        with pytest.raises(ValueError, match="surrogates"):
            dumps(value)


@pytest.mark.parametrize("way", WAYS)
def test_ordinary_oddities_are_read_alike(way: str) -> None:
    for text, value in (
        ('{"a":1,"a":2}', {"a": 2}),
        ("-0", 0),
        ("1e2", 100.0),
        ("1E+2", 100.0),
        ("1e-400", 0.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\u0000"', "\x00"),
        (' {"a" :\t[ ] }\r\n', {"a": []}),
    ):
        read = loads(way % text)
        assert same(read if way == "%s" else read[0], value)
    minus_zero = loads(way % "-0.0")
    assert math.copysign(1, minus_zero if way == "%s" else minus_zero[0]) == -1


@pytest.mark.parametrize("leaf", ["1", "123456789012345678901234567890"])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded_so_that_what_was_read_can_be_written_and_hashed(
    left: str, right: str, leaf: str
) -> None:
    deepest = loads(left * MAX_DEPTH + leaf + right * MAX_DEPTH)
    assert same(loads(dumps(deepest)), deepest)
    assert canonical(deepest)
    for depth in (MAX_DEPTH + 1, 300, 1_000, 1_024, 5_000, 200_000):
        with pytest.raises(NotJson):
            loads(left * depth + leaf + right * depth)


def test_the_deepest_that_is_read_may_have_siblings() -> None:
    text = "[" * MAX_DEPTH + "]" * (MAX_DEPTH - 1) + ",[]" * MAX_DEPTH + "]"
    assert loads(dumps(loads(text))) == loads(text)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    wide = "[" + ",".join(["[{}]"] * 1_000) + "]"
    assert loads(wide) == [[{}]] * 1_000
    assert loads(dumps("[" * 1_000)) == "[" * 1_000


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_whatever_is_sent_is_read_or_refused_by_one_error(sent: bytes | str) -> None:
    try:
        value = loads(sent)
    except NotJson:
        return
    assert same(loads(dumps(value)), value)


def test_the_reason_for_the_exact_way_is_still_there() -> None:
    assert orjson.loads(b"18446744073709551616") == 2.0**64
    assert type(orjson.loads(b"18446744073709551616")) is float
    assert exact_json.loads(b"18446744073709551616") == 2**64
