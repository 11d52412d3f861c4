"""Money is decimal, and nothing that a provider says of it can break anything."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.money import parse_usd, total, usd_text

amounts = st.decimals(min_value=0, max_value=999_999_999, places=9)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Decimal("0.03"), "0.03"),
        (Decimal("0.0300"), "0.03"),
        (Decimal("100"), "100"),
        (Decimal("1E+2"), "100"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("10.00"), "10"),
        (Decimal("-0.00"), "0"),
        (Decimal(0), "0"),
        (None, None),
    ],
)
def test_an_amount_is_written_plainly(amount: Decimal | None, text: str | None) -> None:
    assert usd_text(amount) == text


@given(amounts)
def test_what_is_written_reads_as_the_same_amount(amount: Decimal) -> None:
    assert parse_usd(usd_text(amount)) == amount


@pytest.mark.parametrize(
    ("value", "amount"), [(0.1, "0.1"), (3, "3"), ("0.055", "0.055"), (0, "0"), (1e-07, "1E-7")]
)
def test_a_number_is_read_as_its_shortest_decimal(value: object, amount: str) -> None:
    assert parse_usd(value) == Decimal(amount)


@pytest.mark.parametrize(
    "value",
    [
        *("", "a lot", "NaN", "sNaN", "Infinity", "-1", "1e999999", "1e-999999", "1" * 10),
        *(-0.01, float("nan"), float("inf"), 1e300, 10**5000, True, None, [], {}, Decimal(1)),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_is_no_sensible_amount_is_unknown_and_never_an_error(value: object) -> None:
    assert parse_usd(value) is None


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.from_regex(r"-?\d*\.?\d*(e-?\d+)?")
)
def test_whatever_is_read_can_be_written_in_a_short_line(value: object) -> None:
    amount = parse_usd(value)
    assert amount is None or (amount >= 0 and len(usd_text(amount) or "") <= 40)


def test_the_total_is_of_what_is_known() -> None:
    assert total([Decimal("0.1"), None, Decimal("0.2")]) == Decimal("0.3")
    assert total([Decimal(0), None]) == 0
    assert total([None]) is None
    assert total([]) is None
