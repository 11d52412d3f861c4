"""When to ask, and when to try again."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.domain.schedule import (
    LAST_QUESTION_MS,
    SAMPLES_NEEDED,
    Pace,
    backoff_ms,
    first_ask_ms,
    learned_first_ms,
    next_ask_ms,
)

NOW = 1_800_000_000_000
FAL = Pace(first_cap_ms=120_000, interval_ms=5_000, interval_cap_ms=60_000)
BFL = Pace(first_cap_ms=60_000, interval_ms=2_000, interval_cap_ms=30_000)
TEN_MINUTES = 600_000

paces = st.sampled_from([FAL, BFL])
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
delays = st.integers(min_value=0, max_value=10**8)
lefts = st.integers(min_value=-(10**6), max_value=86_400_000)


def first(
    left_ms: int,
    pace: Pace = FAL,
    *,
    set_ms: int | None = None,
    learned_ms: int | None = None,
    jitter: float = 0.0,
) -> int:
    at = first_ask_ms(
        now_ms=NOW, deadline_ms=NOW + left_ms, pace=pace, set_ms=set_ms, learned_ms=learned_ms, jitter=jitter
    )
    return at - NOW


def later(
    left_ms: int, asked: int, pace: Pace = FAL, *, retry_after_ms: int | None = None, jitter: float = 0.5
) -> int:
    at = next_ask_ms(
        now_ms=NOW,
        deadline_ms=NOW + left_ms,
        pace=pace,
        asked=asked,
        retry_after_ms=retry_after_ms,
        jitter=jitter,
    )
    return at - NOW


class TestTheFirstQuestion:
    @pytest.mark.parametrize(
        ("pace", "left_ms", "learned_ms", "expected"),
        [
            (FAL, 3_600_000, None, 30_000),
            (FAL, 3_600_000, 7_000, 7_000),
            (FAL, 3_600_000, 500_000, 120_000),
            (BFL, 3_600_000, 500_000, 60_000),
            (FAL, 40_000, None, 20_000),
            (FAL, 10_000, 500_000, 5_000),
            (FAL, 3_000, 500_000, 1_000),
        ],
    )
    def test_comes_when_the_contract_says(
        self, pace: Pace, left_ms: int, learned_ms: int | None, expected: int
    ) -> None:
        assert first(left_ms, pace, learned_ms=learned_ms) == expected

    @given(paces, lefts, st.none() | delays, jitters)
    def test_never_waits_beyond_the_cap_nor_half_of_what_is_left(
        self, pace: Pace, left_ms: int, learned_ms: int | None, jitter: float
    ) -> None:
        wait = first(left_ms, pace, learned_ms=learned_ms, jitter=jitter)
        assert 0 <= wait <= min(pace.first_cap_ms, max(0, left_ms / 2))
        assert left_ms <= LAST_QUESTION_MS or wait <= left_ms - LAST_QUESTION_MS

    @given(paces, lefts, delays, delays, jitters)
    def test_never_comes_earlier_for_a_slower_model(
        self, pace: Pace, left_ms: int, one_ms: int, other_ms: int, jitter: float
    ) -> None:
        quick, slow = sorted((one_ms, other_ms))
        assert first(left_ms, pace, learned_ms=quick, jitter=jitter) <= first(
            left_ms, pace, learned_ms=slow, jitter=jitter
        )

    @given(delays, jitters)
    def test_is_spread_by_at_most_a_tenth(self, learned_ms: int, jitter: float) -> None:
        assume(learned_ms * 1.1 <= FAL.first_cap_ms)
        wait = first(10**9, learned_ms=learned_ms, jitter=jitter)
        assert learned_ms <= wait <= learned_ms * 1.1

    @given(delays, st.integers(min_value=10_000, max_value=86_400_000), jitters)
    def test_set_by_the_operator_counts_as_it_is_save_for_the_last_question(
        self, set_ms: int, left_ms: int, jitter: float
    ) -> None:
        wait = first(left_ms, BFL, set_ms=set_ms, learned_ms=1, jitter=jitter)
        assert wait == min(set_ms, left_ms - 2_000)


class TestTheNextQuestion:
    @given(paces, st.integers(min_value=0, max_value=10**6), jitters)
    def test_comes_within_a_quarter_of_its_interval_and_never_beyond_the_cap(
        self, pace: Pace, asked: int, jitter: float
    ) -> None:
        interval = min(pace.interval_ms * pace.growth ** min(asked, 100), pace.interval_cap_ms)
        assert interval * 0.75 - 1 <= later(10**9, asked, pace, jitter=jitter) <= interval * 1.25

    @given(paces, st.integers(min_value=0, max_value=1_000), jitters)
    def test_never_comes_sooner_after_more_questions(self, pace: Pace, asked: int, jitter: float) -> None:
        assert later(10**9, asked, pace, jitter=jitter) <= later(10**9, asked + 1, pace, jitter=jitter)

    @given(lefts, st.integers(min_value=0, max_value=100), jitters, st.none() | delays)
    def test_is_never_after_the_last_one_that_is_possible(
        self, left_ms: int, asked: int, jitter: float, retry_after_ms: int | None
    ) -> None:
        wait = later(left_ms, asked, jitter=jitter, retry_after_ms=retry_after_ms)
        assert wait >= 0
        assert left_ms <= LAST_QUESTION_MS or wait <= left_ms - LAST_QUESTION_MS

    def test_is_the_last_one_two_seconds_before_the_deadline(self) -> None:
        assert later(4_000, 30) == 2_000
        assert later(2_000, 30) > 2_000

    def test_waits_as_long_as_the_provider_wishes_but_at_most_ten_minutes(self) -> None:
        assert later(10**9, 0, retry_after_ms=90_000) == 90_000
        assert later(10**9, 0, retry_after_ms=10**9) == TEN_MINUTES
        assert later(10**9, 0, retry_after_ms=-5) == later(10**9, 0)


class TestTheLearnedDelay:
    def test_needs_twenty_samples(self) -> None:
        assert learned_first_ms([5_000] * (SAMPLES_NEEDED - 1)) is None
        assert learned_first_ms([5_000] * SAMPLES_NEEDED) is not None
        assert SAMPLES_NEEDED == 20

    @given(st.lists(st.integers(min_value=0, max_value=10**7), min_size=20, max_size=100))
    def test_is_longer_than_most_took_and_bounded_by_the_longest(self, durations_ms: list[int]) -> None:
        learned = learned_first_ms(durations_ms)
        assert learned is not None
        sooner = sum(took < learned for took in durations_ms)
        assert sooner >= 0.9 * len(durations_ms)
        assert learned <= max(durations_ms) * 1.25 + 1_000

    def test_does_not_hang_on_one_slow_job(self) -> None:
        assert learned_first_ms([4_000] * 99 + [10**7]) == 6_000


class TestBackoff:
    @given(
        st.integers(min_value=0, max_value=10**6),
        st.integers(min_value=1, max_value=10**5),
        st.integers(min_value=1, max_value=10**7),
        jitters,
    )
    def test_doubles_up_to_its_cap_and_jitters_downwards_by_at_most_half(
        self, tries: int, base_ms: int, cap_ms: int, jitter: float
    ) -> None:
        full = min(base_ms * 2 ** min(tries, 64), cap_ms)
        wait = backoff_ms(tries=tries, base_ms=base_ms, cap_ms=cap_ms, jitter=jitter)
        assert full // 2 - 1 <= wait <= full
        assert wait <= backoff_ms(tries=tries + 1, base_ms=base_ms, cap_ms=cap_ms, jitter=jitter)

    @given(st.integers(min_value=0, max_value=30), st.integers(min_value=-1, max_value=10**9), jitters)
    def test_waits_as_long_as_the_other_side_wishes_but_at_most_ten_minutes(
        self, tries: int, retry_after_ms: int, jitter: float
    ) -> None:
        own = backoff_ms(tries=tries, base_ms=1_000, cap_ms=60_000, jitter=jitter)
        asked = backoff_ms(
            tries=tries, base_ms=1_000, cap_ms=60_000, jitter=jitter, retry_after_ms=retry_after_ms
        )
        assert asked == max(own, min(retry_after_ms, TEN_MINUTES))
