"""Times as callers see and send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.timestamps import maybe_rfc3339, parse_rfc3339, rfc3339


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000_007, "2027-01-15T08:00:00.007Z"),
        (1_800_000_000_999, "2027-01-15T08:00:00.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == text


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_what_is_written_reads_as_the_same_time(at_ms: int) -> None:
    assert parse_rfc3339(rfc3339(at_ms)) == at_ms


@pytest.mark.parametrize(
    "text", ["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.0004Z"]
)
def test_other_zones_and_precisions_are_read(text: str) -> None:
    assert parse_rfc3339(text) == 0


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1970-01-01T00:00:00", "1970-01-01", "1970-13-01T00:00:00Z"]
)
def test_what_is_no_time_or_has_no_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_rfc3339(text)


def test_a_missing_time_stays_missing() -> None:
    assert maybe_rfc3339(None) is None
    assert maybe_rfc3339(0) == rfc3339(0)
