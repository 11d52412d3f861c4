"""What a try makes of a delivery and of its endpoint's health, over everything that may come."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.endpoint import (
    FAILING_TO_DISABLE_MS,
    FAILURES_TO_PAUSE,
    PROBE_EVERY_MS,
    RETRY_AFTER_CAP_MS,
    SCHEDULE_MS,
    THROTTLING,
    AfterTry,
    Delivery,
    DeliveryState,
    Disabled,
    Endpoint,
    EndpointState,
    Tried,
    after_try,
    begun_anew,
    disabled,
    enabled,
    failure_of,
    retry_in_ms,
)

NOW = 1_800_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
ACTIVE, PAUSED, DISABLED = EndpointState.ACTIVE, EndpointState.PAUSED, EndpointState.DISABLED


def endpoint(**fields: Any) -> Endpoint:
    given_fields = {
        "id": "ep_1",
        "tenant": "default",
        "url": "https://consumer.example/",
        "created_ms": NOW,
        "updated_ms": NOW,
        "secret": "sealed",
        **fields,
    }
    if given_fields.get("state") is DISABLED:
        given_fields.setdefault("disabled_reason", Disabled.OPERATOR)
    return Endpoint(**given_fields)


def delivery(**fields: Any) -> Delivery:
    return Delivery(
        **{
            "id": "dlv_1",
            "tenant": "default",
            "endpoint_id": "ep_1",
            "event_id": "evt_1",
            "event_seq": 1,
            "event_type": "job.queued",
            "job_id": "job_1",
            "created_ms": NOW,
            "next_ms": NOW,
            **fields,
        }
    )


def answered(status: int | None = None, **fields: Any) -> Tried:
    return Tried(**{"at_ms": NOW - 20, "took_ms": 20, "status": status, **fields})


def after(
    tried: Tried,
    before: Endpoint | None = None,
    of: Delivery | None = None,
    *,
    now_ms: int = NOW,
    jitter: float = 0.0,
) -> AfterTry:
    return after_try(before or endpoint(), of or delivery(), tried, now_ms=now_ms, jitter=jitter)


OUTCOMES = [
    answered(200),
    answered(204),
    answered(301),
    answered(302, retry_after_ms=5_000),
    answered(400),
    answered(410),
    answered(429),
    answered(429, retry_after_ms=90_000),
    answered(500),
    answered(502),
    answered(503, retry_after_ms=7_000),
    answered(504),
    answered(error="timeout"),
    answered(error="the URL must not be private", refused=True),
]
ENDPOINTS = [
    endpoint(
        state=state,
        failures=failures,
        failing_since_ms=since and NOW - since,
        slow_start=slow_start,
        concurrency=concurrency,
        not_before_ms=throttled and NOW + throttled,
        throttled_until_ms=throttled and NOW + throttled,
    )
    for state, failures, since, slow_start, concurrency, throttled in itertools.product(
        EndpointState,
        (0, 1, FAILURES_TO_PAUSE - 1, FAILURES_TO_PAUSE, 9),
        (None, 1, FAILING_TO_DISABLE_MS - 1, FAILING_TO_DISABLE_MS),
        (None, 1, 15, 16),
        (1, 16),
        (None, 30_000),
    )
]
DELIVERIES = [delivery(step=step, tries=step + more) for step in range(len(SCHEDULE_MS)) for more in (0, 10)]


def test_whatever_comes_both_stay_within_their_rules() -> None:
    few = [endpoint(state=state) for state in EndpointState]
    met = [
        *itertools.product(ENDPOINTS, DELIVERIES[:1], OUTCOMES),
        *itertools.product(few, DELIVERIES, OUTCOMES),
    ]
    for before, of, tried in met:
        told = after(tried, before, of, jitter=0.5)
        check(before, of, tried, told)


def check(before: Endpoint, of: Delivery, tried: Tried, told: AfterTry) -> None:
    now, then = told.endpoint, told.delivery
    assert then.tries == of.tries + 1 == told.made.number
    assert then.step == of.step + 1
    assert (then.state is DeliveryState.PENDING) == (then.completed_ms is None)
    assert then.status == tried.status
    assert (then.error is None) == tried.succeeded
    assert (now.disabled_reason is not None) == (now.state is DISABLED)
    assert (told.paused, told.recovered, told.disabled) == tuple(
        now.state is state and before.state is not state for state in (PAUSED, ACTIVE, DISABLED)
    )
    if before.state is DISABLED:
        assert now is before
    elif tried.succeeded:
        assert (now.state, now.failures, now.failing_since_ms) == (ACTIVE, 0, None)
    else:
        assert now.failures == before.failures + 1
        assert now.failing_since_ms == (before.failing_since_ms or NOW)
        assert (now.state is DISABLED) == (tried.gone or NOW - now.failing_since_ms >= FAILING_TO_DISABLE_MS)
        if now.state is not DISABLED:
            assert (now.state is PAUSED) == (before.state is PAUSED or now.failures >= FAILURES_TO_PAUSE)
    if tried.succeeded:
        assert then.state is DeliveryState.SUCCEEDED
    elif tried.refused or now.state is DISABLED or of.step == len(SCHEDULE_MS) - 1:
        assert then.state is DeliveryState.DEAD
    else:
        assert then.state is DeliveryState.PENDING
        assert then.next_ms >= NOW + SCHEDULE_MS[then.step]
        assert then.next_ms >= NOW + (tried.retry_after_ms or 0)
    if now.state is PAUSED:
        assert now.not_before_ms is not None
        assert now.not_before_ms >= NOW + PROBE_EVERY_MS
        assert now.at_once == 1
    assert 0 <= now.at_once <= now.concurrency
    assert now.slow_start is None or now.slow_start >= 1


class TestADelivery:
    def test_is_tried_ten_times_within_the_hours_that_the_specification_names(self) -> None:
        of, now_ms, at = delivery(), NOW, []
        while of.state is DeliveryState.PENDING:
            at.append(now_ms - NOW)
            of = after(answered(500), of=of, now_ms=now_ms).delivery
            now_ms = of.next_ms
        minutes = [0, 5_000, 305_000, 2_105_000, 9_305_000]
        assert at[:5] == minutes
        assert len(at) == 10
        assert at[-1] == ((75 * 60 + 35) * 60 + 5) * 1000
        assert (of.state, of.tries, of.error) == (DeliveryState.DEAD, 10, "answered 500")

    @given(st.integers(1, 9), st.floats(0, 1, exclude_max=True))
    def test_waits_up_to_a_tenth_longer_and_never_shorter(self, step: int, jitter: float) -> None:
        assert SCHEDULE_MS[step] <= retry_in_ms(step, None, jitter) <= SCHEDULE_MS[step] * 1.1

    @given(st.integers(1, 9), st.integers(-(10**6), 10**12))
    def test_waits_as_long_as_it_is_asked_to_but_at_most_a_day(self, step: int, asked_ms: int) -> None:
        assert retry_in_ms(step, asked_ms, 0) == max(SCHEDULE_MS[step], min(asked_ms, RETRY_AFTER_CAP_MS))

    def test_of_a_refused_url_is_dead_at_once(self) -> None:
        told = after(answered(error="the URL must not be private", refused=True))
        assert (told.delivery.state, told.delivery.error) == (
            DeliveryState.DEAD,
            "the URL must not be private",
        )
        assert told.endpoint.failures == 1

    def test_to_an_endpoint_that_is_disabled_meanwhile_is_dead_unless_it_arrived(self) -> None:
        gone = disabled(endpoint(), Disabled.GONE)
        assert after(answered(500), gone).delivery.state is DeliveryState.DEAD
        assert after(answered(200), gone).delivery.state is DeliveryState.SUCCEEDED
        assert after(answered(200), gone).endpoint is gone

    def test_says_what_was_answered_or_why_nothing_was(self) -> None:
        assert failure_of(answered(503)) == "answered 503"
        assert failure_of(answered(301)) == "answered 301"
        assert failure_of(answered(error="timeout")) == "timeout"
        assert failure_of(answered(204)) is None
        assert not answered(200, refused=True).succeeded
        assert not answered().succeeded

    def test_keeps_each_try_as_it_was(self) -> None:
        made = after(answered(500, answer="no", error=None), of=delivery(tries=4, step=1)).made
        assert (made.delivery_id, made.number, made.at_ms, made.took_ms) == ("dlv_1", 5, NOW - 20, 20)
        assert (made.status, made.answer) == (500, "no")

    def test_begins_anew_with_its_whole_schedule_and_counts_on(self) -> None:
        dead = delivery(state=DeliveryState.DEAD, step=10, tries=10, completed_ms=NOW, status=500)
        again = begun_anew(dead, now_ms=NOW + 5)
        assert (again.state, again.step, again.tries) == (DeliveryState.PENDING, 0, 10)
        assert (again.next_ms, again.completed_ms) == (NOW + 5, None)


class TestAnEndpoint:
    def test_that_is_well_is_not_even_touched_by_a_success(self) -> None:
        before = endpoint()
        assert after(answered(200), before).endpoint is before

    def test_is_paused_by_the_third_failure_in_a_row_and_not_by_three_in_all(self) -> None:
        health = endpoint()
        for status, expected in [(500, ACTIVE), (500, ACTIVE), (200, ACTIVE), (500, ACTIVE), (500, ACTIVE)]:
            health = after(answered(status), health).endpoint
            assert health.state is expected
        told = after(answered(error="reset"), health)
        assert told.paused
        assert told.endpoint.not_before_ms == NOW + PROBE_EVERY_MS

    def test_that_is_paused_gets_a_probe_a_minute_and_nothing_else(self) -> None:
        health, now_ms, probes = endpoint(state=PAUSED, failures=3, failing_since_ms=NOW), NOW, 0
        while now_ms < NOW + HOUR:
            told = after(answered(500), health, now_ms=now_ms)
            assert (told.endpoint.state, told.endpoint.at_once, told.paused) == (PAUSED, 1, False)
            health, probes = told.endpoint, probes + 1
            due_ms = health.next_due_ms(0)
            assert due_ms is not None
            now_ms = due_ms
        assert probes == 60

    def test_recovers_with_one_success_and_starts_slowly(self) -> None:
        told = after(answered(200), endpoint(state=PAUSED, failures=9, failing_since_ms=NOW - DAY))
        assert told.recovered
        health = told.endpoint
        assert (health.state, health.not_before_ms, health.at_once) == (ACTIVE, None, 1)
        rounds = []
        while health.slow_start is not None:
            rounds.append(health.at_once)
            for _ in range(health.at_once):
                health = after(answered(200), health).endpoint
        assert rounds == [1, 2, 4, 8], "doubling with each round"
        assert health.at_once == 16

    @pytest.mark.parametrize("concurrency", [1, 2, 64])
    def test_is_back_at_its_full_concurrency_after_as_many_successes(self, concurrency: int) -> None:
        health = after(answered(200), endpoint(state=PAUSED, failures=3, concurrency=concurrency)).endpoint
        for _ in range(concurrency):
            health = after(answered(200), health).endpoint
        assert (health.slow_start, health.at_once) == (None, concurrency)

    def test_that_answers_410_is_disabled(self) -> None:
        told = after(answered(410))
        assert told.disabled
        assert (told.endpoint.state, told.endpoint.disabled_reason) == (DISABLED, Disabled.GONE)
        assert told.endpoint.at_once == 0
        assert told.endpoint.next_due_ms(NOW) is None

    def test_that_fails_for_five_days_is_disabled_and_not_before(self) -> None:
        health, now_ms = endpoint(), NOW
        while True:
            told = after(answered(503), health, now_ms=now_ms)
            if told.disabled:
                break
            health, now_ms = told.endpoint, now_ms + HOUR
        assert now_ms - NOW == FAILING_TO_DISABLE_MS == 5 * DAY
        assert told.endpoint.disabled_reason is Disabled.FAILING

    def test_that_had_one_success_fails_anew(self) -> None:
        failing = endpoint(state=PAUSED, failures=99, failing_since_ms=NOW - 5 * DAY + 1)
        well = after(answered(200), failing).endpoint
        assert after(answered(500), well, now_ms=NOW + DAY).endpoint.failing_since_ms == NOW + DAY

    @pytest.mark.parametrize("status", sorted(THROTTLING))
    def test_is_slower_after_an_answer_that_asks_for_it(self, status: int) -> None:
        slower = after(answered(status)).endpoint
        assert slower.at_once == 8
        assert after(answered(status), slower).endpoint.at_once == 4
        assert after(answered(500)).endpoint.at_once == 16

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_is_left_alone_for_as_long_as_it_asks(self, status: int) -> None:
        told = after(answered(status, retry_after_ms=90_000))
        assert told.endpoint.not_before_ms == NOW + 90_000
        assert told.endpoint.next_due_ms(NOW) == NOW + 90_000
        assert after(answered(status, retry_after_ms=10**12)).endpoint.not_before_ms == NOW + DAY

    def test_that_does_too_much_waits_longer_each_time(self) -> None:
        health, waits = endpoint(concurrency=4), []
        for _ in range(2):
            health = after(answered(429), health).endpoint
            assert health.not_before_ms is not None
            waits.append(health.not_before_ms - NOW)
        assert waits == [1_000, 2_000]

    @pytest.mark.parametrize("status", [400, 500, 302])
    def test_is_not_kept_waiting_by_what_one_delivery_is_asked(self, status: int) -> None:
        told = after(answered(status, retry_after_ms=90_000))
        assert told.endpoint.not_before_ms is None
        assert told.delivery.next_ms == NOW + 90_000

    def test_that_asked_for_silence_keeps_it_through_a_success_of_another_request(self) -> None:
        asked = endpoint(failures=2, failing_since_ms=NOW)
        paused = after(answered(429, retry_after_ms=600_000), asked).endpoint
        assert (paused.state, paused.not_before_ms) == (PAUSED, NOW + 600_000)
        recovered = after(answered(200), paused, now_ms=NOW + 1).endpoint
        assert (recovered.state, recovered.not_before_ms) == (ACTIVE, NOW + 600_000)
        assert after(answered(200), paused, now_ms=NOW + 600_000).endpoint.not_before_ms is None

    def test_that_is_enabled_begins_as_if_nothing_had_been(self) -> None:
        gone = disabled(
            endpoint(failures=50, failing_since_ms=1, replay_after=1, replay_until=2), Disabled.FAILING
        )
        assert (gone.replay_after, gone.replay_until) == (None, None)
        again = enabled(gone)
        assert (again.state, again.disabled_reason, again.failures) == (ACTIVE, None, 0)
        assert (again.failing_since_ms, again.not_before_ms, again.at_once) == (None, None, 1)
        assert enabled(endpoint(failures=1)) == endpoint(failures=1)
        assert after(answered(500), again, now_ms=NOW + 30 * DAY).endpoint.state is ACTIVE

    def test_wants_the_types_it_chose_or_all(self) -> None:
        assert endpoint().wants("job.queued")
        chosen = endpoint(types=("job.succeeded", "job.failed"))
        assert chosen.wants("job.failed")
        assert not chosen.wants("job.queued")

    def test_is_due_with_its_next_delivery_but_not_before_it_may_be(self) -> None:
        assert endpoint().next_due_ms(None) is None
        assert endpoint().next_due_ms(7) == 7
        assert endpoint(not_before_ms=9).next_due_ms(7) == 9
        assert endpoint(not_before_ms=5).next_due_ms(7) == 7


@given(
    st.lists(
        st.tuples(st.sampled_from(OUTCOMES), st.integers(0, 2 * DAY), st.floats(0, 1, exclude_max=True)),
        max_size=60,
    )
)
def test_any_story_of_tries_keeps_the_rules(story: list[tuple[Tried, int, float]]) -> None:
    health, of, now_ms = endpoint(), delivery(), NOW
    for tried, passed_ms, jitter in story:
        now_ms += passed_ms
        told = after_try(health, of, tried, now_ms=now_ms, jitter=jitter)
        if health.state is DISABLED:
            assert told.endpoint is health
        assert told.endpoint.failures == 0 or told.endpoint.failing_since_ms is not None
        if told.endpoint.state is not DISABLED and not tried.succeeded:
            assert now_ms - (told.endpoint.failing_since_ms or now_ms) < FAILING_TO_DISABLE_MS
        if told.delivery.state is DeliveryState.PENDING:
            waits_ms = told.delivery.next_ms - now_ms
            assert SCHEDULE_MS[told.delivery.step] <= waits_ms <= max(DAY * 1.1, RETRY_AFTER_CAP_MS)
            of = told.delivery
        else:
            of = replace(begun_anew(told.delivery, now_ms=now_ms))
        health = told.endpoint
