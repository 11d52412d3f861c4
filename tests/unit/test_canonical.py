"""The canonical form: RFC 8785, with integers that doubles cannot hold as text."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from service.domain.canonical import VERSION, canonical, digest

SAFE = 2**53 - 1
characters = st.characters(exclude_categories=["Cs"])
#: Keys whose order differs by UTF-16 units and by code points, and characters that are written escaped.
texts = st.text(characters) | st.text(
    st.sampled_from('a\x00\x1f\x7f"\\/\b\t\n\f\r\u2028é\ue000\ufb33\U0001f600')
)
numbers = st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


def prepared(value: Any) -> Any:
    """Say the rule a second time: integers beyond what a double holds become text."""
    match value:
        case dict():
            return {key: prepared(item) for key, item in value.items()}
        case list():
            return [prepared(item) for item in value]
        case bool():
            return value
        case int() if abs(value) > SAFE:
            return str(value)
    return value


def shuffled(value: Any) -> Any:
    match value:
        case dict():
            return {key: shuffled(value[key]) for key in reversed(value)}
        case list():
            return [shuffled(item) for item in value]
    return value


@given(values)
def test_it_is_rfc_8785_of_the_prepared_value(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(prepared(value))


@given(values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert digest(shuffled(value)) == digest(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        (SAFE, "9007199254740991"),
        (-SAFE, "-9007199254740991"),
        (SAFE + 1, '"9007199254740992"'),
        (-SAFE - 1, '"-9007199254740992"'),
        (15860307465884635512, '"15860307465884635512"'),
        (1.0, "1"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (333333333.33333329, "333333333.3333333"),
        ("\x00\x1f\x7f\u2028é", '"\\u0000\\u001f\x7f\u2028é"'),
        ({"\U0001f600": 1, "\ufb33": 2, "é": 3}, '{"é":3,"\U0001f600":1,"\ufb33":2}'),
        ((1, 2), "[1,2]"),
    ],
)
def test_it_is_written_so(value: Any, text: str) -> None:
    assert canonical(value) == text.encode()


@pytest.mark.parametrize(
    "value",
    [
        *("\ud800", ["\udfff", 0.5], {"\ud800": 1}, {"a": float("nan")}, float("inf"), [-float("inf")]),
        *(b"bytes", {1: 2}, {None: 1}, {True: 0.5}, object(), {1, 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


@pytest.mark.parametrize("leaf", [1, 0.5])
def test_what_is_too_deep_is_refused(leaf: float) -> None:
    value: Any = leaf
    for _ in range(5_000):
        value = [value]
    with pytest.raises(ValueError, match="ecursion"):
        canonical(value)


def test_digests_of_the_first_rule_stay_as_they_are() -> None:
    assert VERSION == 1
    assert digest({"seed": 2**64, "b": "é"}) == (
        "f0a91899e748ec636853d5843a5fc40eab92e9933f8e6c4ceecf09c8b0410315"
    )
