"""Deliveries: one for each event and endpoint, in the order of each job, recorded once however often it is told."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from service.domain.endpoint import SCHEDULE_MS, Delivery, DeliveryState, Tried, Try, after_try
from service.storage import deliveries, events
from service.storage.database import Driver, Tx
from service.storage.deliveries import Filters
from service.storage.drivers import open_driver
from tests.storage.going_out import delivery_of, endpoint, event, happen, reread, sendable, tried
from tests.storage.world import NOW, Clock, only, rows_in, walk


def next_ms(driver: Driver, endpoint_id: str = "ep_1") -> int | None:
    told: int | None = driver.read(lambda tx: deliveries.next_ms(tx, endpoint_id))
    return told


def tries(driver: Driver, delivery: Delivery) -> list[Try]:
    found: dict[str, list[Try]] = driver.read(lambda tx: deliveries.tries_of(tx, [delivery.id]))
    return found[delivery.id]


class TestWhatMayBeSent:
    def test_is_the_oldest_of_each_job_and_whatever_has_none(self, driver: Driver) -> None:
        happen(driver, ["job_1", "job_2", "job_1", None, "job_2", None, "job_3"])
        assert sendable(driver) == [1, 2, 4, 6, 7]
        assert sendable(driver, most=3) == [1, 2, 4]
        assert sendable(driver, "ep_of_nobody") == []
        assert sendable(driver, now_ms=NOW - 1) == []

    def test_comes_with_the_delivery_and_its_event(self, driver: Driver) -> None:
        [made] = happen(driver, ["job_1"])
        [found] = driver.read(lambda tx: deliveries.sendable(tx, endpoint_id="ep_1", now_ms=NOW, most=9))
        assert found.delivery == made
        assert found.event == replace(event(1), seq=1)

    def test_does_not_depend_on_another_endpoint(self, driver: Driver) -> None:
        first, *_ = happen(driver, ["job_1", "job_1"], to=["ep_1", "ep_2"])
        assert tried(driver, first, 200).state is DeliveryState.SUCCEEDED
        assert sendable(driver, "ep_1") == [2]
        assert sendable(driver, "ep_2") == [1]

    def test_goes_on_with_the_next_once_the_one_before_has_ended(self, driver: Driver) -> None:
        first, second, third = happen(driver, ["job_1"] * 3)
        tried(driver, first, 200)
        assert sendable(driver) == [2]
        only(driver, lambda tx: deliveries.bury_pending(tx, "ep_1", reason="x", now_ms=NOW, most=0))
        dead = replace(second, state=DeliveryState.DEAD, tries=1, step=1, completed_ms=NOW)
        only(driver, lambda tx: deliveries.record(tx, [(dead, made_try(dead))]))
        assert sendable(driver) == [3]
        tried(driver, third, 204)
        assert sendable(driver) == []
        assert next_ms(driver) is None

    def test_waits_behind_one_that_failed_and_only_within_its_job(self, driver: Driver) -> None:
        first, *_ = happen(driver, ["job_1", "job_1", "job_2", "job_2"])
        again = tried(driver, first, 500)
        assert again.state is DeliveryState.PENDING
        assert again.next_ms == NOW + SCHEDULE_MS[1]
        assert sendable(driver) == [3]
        assert sendable(driver, now_ms=again.next_ms - 1) == [3]
        assert sendable(driver, now_ms=again.next_ms) == [3, 1]
        ended = tried(driver, first, 200, now_ms=again.next_ms)
        assert ended.state is DeliveryState.SUCCEEDED
        assert sendable(driver, now_ms=again.next_ms) == [3, 2]

    def test_is_due_with_the_one_in_front_so_that_nobody_wakes_for_nothing(self, driver: Driver) -> None:
        first, *_ = happen(driver, ["job_1"] * 4)
        assert next_ms(driver) == NOW
        again = tried(driver, first, 500)
        assert next_ms(driver) == again.next_ms
        dues = {row["event_seq"]: row["next_ms"] for row in driver.read(lambda tx: rows_in(tx, "delivery"))}
        assert dues == dict.fromkeys([1, 2, 3, 4], again.next_ms)

    def test_is_found_though_a_later_one_is_due_before_the_one_in_front(self, driver: Driver) -> None:
        first, *_ = happen(driver, ["job_1"])
        again = tried(driver, first, 500)
        behind = event(2)
        only(driver, lambda tx: (events.append(tx, [behind]), deliveries.insert(tx, [delivery_of(behind)])))
        assert sendable(driver) == []
        assert next_ms(driver) == again.next_ms

    def test_is_due_at_once_when_the_one_in_front_ends_before_its_time(self, driver: Driver) -> None:
        """Retried by hand, it need not wait for what its failure had put off."""
        first, *_ = happen(driver, ["job_1", "job_1"])
        tried(driver, first, 500)
        tried(driver, first, 500)
        only(driver, lambda tx: deliveries.retry(tx, first.id, due_ms=NOW + 7))
        assert sendable(driver, now_ms=NOW + 7) == [1]
        tried(driver, first, 200, now_ms=NOW + 7)
        assert sendable(driver, now_ms=NOW + 7) == [2]

    def test_keeps_its_own_schedule_when_an_older_one_comes_back(self, driver: Driver) -> None:
        first, second = happen(driver, ["job_1", "job_1"])
        tried(driver, first, 200)
        waiting = tried(driver, second, 500)
        only(driver, lambda tx: deliveries.retry(tx, first.id, due_ms=NOW + 1))
        assert sendable(driver, now_ms=NOW + 1) == [1]
        tried(driver, first, 200, now_ms=NOW + 1)
        assert reread(driver, second) == waiting

    def test_is_everything_in_the_order_it_came_once_it_is_hastened(self, driver: Driver) -> None:
        made = happen(driver, ["job_1", "job_2", "job_3", "job_4"])
        for each in made[:3]:
            tried(driver, each, 503)
        tried(driver, made[1], 503, now_ms=NOW + 5_000)
        assert sendable(driver) == [4]
        only(driver, lambda tx: deliveries.hasten(tx, "ep_1", due_ms=NOW + 1))
        assert sendable(driver, now_ms=NOW + 1) == [1, 2, 3, 4]
        assert reread(driver, made[1]).step == 2, "its schedule goes on where it was"


def made_try(delivery: Delivery, **fields: Any) -> Try:
    return Try(
        **{
            "delivery_id": delivery.id,
            "number": delivery.tries,
            "at_ms": NOW,
            "took_ms": 3,
            "status": 500,
            "error": None,
            "answer": None,
            **fields,
        }
    )


class TestRecording:
    def test_keeps_each_try_as_it_was(self, driver: Driver) -> None:
        [made] = happen(driver, ["job_1"])
        told = [
            Tried(at_ms=NOW, took_ms=12, status=500, answer="ключ 🦊 " * 300),
            Tried(at_ms=NOW + 9, took_ms=15_000, error="timeout"),
            Tried(at_ms=NOW + 10, took_ms=0, error="the URL must not be private", refused=True),
        ]
        for each in told:
            after = after_try(endpoint(), reread(driver, made), each, now_ms=each.at_ms, jitter=0.0)
            only(driver, lambda tx, after=after: deliveries.record(tx, [(after.delivery, after.made)]))
            assert reread(driver, made) == after.delivery
        kept = tries(driver, made)
        assert [each.number for each in kept] == [1, 2, 3]
        assert [(each.at_ms, each.took_ms, each.status, each.error, each.answer) for each in kept] == [
            (each.at_ms, each.took_ms, each.status, each.error, each.answer) for each in told
        ]

    def test_takes_many_at_once(self, driver: Driver) -> None:
        made = happen(driver, [f"job_{place}" for place in range(60)])
        results = [
            after_try(
                endpoint(),
                each,
                Tried(at_ms=NOW, took_ms=1, status=(200, 500)[place % 2]),
                now_ms=NOW,
                jitter=0,
            )
            for place, each in enumerate(made)
        ]
        only(driver, lambda tx: deliveries.record(tx, [(each.delivery, each.made) for each in results]))
        states = Counter(row["state"] for row in driver.read(lambda tx: rows_in(tx, "delivery")))
        assert states == {"succeeded": 30, "pending": 30}
        assert len(driver.read(lambda tx: rows_in(tx, "delivery_try"))) == 60

    def test_of_nothing_is_nothing(self, driver: Driver) -> None:
        only(driver, lambda tx: deliveries.record(tx, []))
        assert driver.read(lambda tx: deliveries.tries_of(tx, [])) == {}

    @pytest.mark.parametrize("first", [200, 500])
    @pytest.mark.parametrize("second", [200, 500])
    def test_of_one_try_twice_counts_once(self, driver: Driver, first: int, second: int) -> None:
        """A process that lost its lease tells of a delivery that another has tried meanwhile."""
        [seen] = happen(driver, ["job_1"])
        after = {
            status: after_try(
                endpoint(), seen, Tried(at_ms=NOW, took_ms=1, status=status), now_ms=NOW, jitter=0
            )
            for status in (first, second)
        }
        for status in (first, second):
            told = after[status]
            only(driver, lambda tx, told=told: deliveries.record(tx, [(told.delivery, told.made)]))
        assert reread(driver, seen) == after[first].delivery
        assert [each.status for each in tries(driver, seen)] == [first]

    def test_of_a_failure_that_came_too_late_puts_off_nobody(self, driver: Driver) -> None:
        """Another process has delivered it meanwhile: what follows must not wait for a retry that never comes."""
        front, _ = happen(driver, ["job_1", "job_1"])
        late, first = (
            after_try(endpoint(), front, Tried(at_ms=NOW, took_ms=1, status=status), now_ms=NOW, jitter=0)
            for status in (500, 200)
        )
        for after in (first, late):
            only(driver, lambda tx, after=after: deliveries.record(tx, [(after.delivery, after.made)]))
        assert sendable(driver) == [2]

    def test_a_success_counts_for_one_that_was_given_up_on_its_way(self, driver: Driver) -> None:
        first, second = happen(driver, ["job_1", "job_2"])
        assert only(driver, lambda tx: deliveries.bury_pending(tx, "ep_1", reason="gone", now_ms=NOW)) == 2
        for each, status in [(first, 200), (second, 500)]:
            after = after_try(
                endpoint(), each, Tried(at_ms=NOW, took_ms=1, status=status), now_ms=NOW, jitter=0
            )
            only(driver, lambda tx, after=after: deliveries.record(tx, [(after.delivery, after.made)]))
        assert reread(driver, first).state is DeliveryState.SUCCEEDED
        assert (reread(driver, second).state, reread(driver, second).error) == (DeliveryState.DEAD, "gone")

    def test_by_racing_processes_counts_each_try_once(self, database_url: str, clock: Clock) -> None:
        drivers = [open_driver(database_url, clock) for _ in range(4)]
        made = happen(drivers[0], [f"job_{place}" for place in range(20)])
        together = threading.Barrier(len(drivers))

        def record(number: int) -> None:
            results = [
                after_try(
                    endpoint(),
                    each,
                    Tried(at_ms=NOW + number, took_ms=number, status=(500, 200)[number % 2]),
                    now_ms=NOW,
                    jitter=0,
                )
                for each in made
            ]
            turned = results[number * 5 :] + results[: number * 5]
            together.wait(20)
            only(
                drivers[number],
                lambda tx: deliveries.record(tx, [(each.delivery, each.made) for each in turned]),
            )

        with ThreadPoolExecutor(len(drivers)) as pool:
            list(pool.map(record, range(len(drivers))))
        for each in made:
            stored, [kept] = reread(drivers[0], each), tries(drivers[0], each)
            assert stored.tries == 1
            assert stored.status == kept.status
        for driver in drivers:
            driver.close()


class TestWritingDeliveries:
    def test_twice_leaves_the_first_as_it_is(self, driver: Driver) -> None:
        [made] = happen(driver, ["job_1"])
        done = tried(driver, made, 200)
        again = replace(made, id="dlv_again", next_ms=NOW + 5)
        only(driver, lambda tx: deliveries.insert(tx, [again, replace(again, endpoint_id="ep_2")]))
        assert reread(driver, made) == done
        assert len(driver.read(lambda tx: rows_in(tx, "delivery"))) == 2

    def test_for_a_replay_begins_anew_with_all_that_there_was(self, driver: Driver) -> None:
        first, second, third = happen(driver, ["job_1", "job_1", "job_2"])
        tried(driver, first, 200)
        tried(driver, second, 500)
        again = [replace(each, id=f"{each.id}x", next_ms=NOW + 9) for each in (first, second, third)]
        only(driver, lambda tx: deliveries.reopen(tx, again))
        assert sendable(driver, now_ms=NOW + 9) == [1, 3]
        reopened = reread(driver, first)
        assert (reopened.state, reopened.step, reopened.tries) == (DeliveryState.PENDING, 0, 1)
        assert (reopened.completed_ms, reopened.next_ms) == (None, NOW + 9)
        tried(driver, first, 200, now_ms=NOW + 9)
        assert [each.number for each in tries(driver, first)] == [1, 2]

    def test_many_at_once_by_racing_processes_makes_each_once(self, database_url: str, clock: Clock) -> None:
        drivers = [open_driver(database_url, clock) for _ in range(4)]
        told = [event(place, f"job_{place % 7}") for place in range(1, 81)]
        together = threading.Barrier(len(drivers))

        def write(number: int) -> None:
            made = [replace(delivery_of(each), id=f"dlv_{number}_{each.id}") for each in told]
            together.wait(20)
            only(drivers[number], lambda tx: deliveries.insert(tx, made))

        with ThreadPoolExecutor(len(drivers)) as pool:
            list(pool.map(write, range(len(drivers))))
        rows = drivers[0].read(lambda tx: rows_in(tx, "delivery"))
        assert sorted(row["event_id"] for row in rows) == [each.id for each in told]
        for driver in drivers:
            driver.close()


def test_what_is_buried_is_dead_and_frees_nobody_elses(driver: Driver) -> None:
    made = happen(driver, ["job_1", "job_1", "job_2", None], to=["ep_1", "ep_2"])
    tried(driver, made[0], 200)
    done = reread(driver, made[0])

    def bury() -> int:
        buried: int = only(
            driver, lambda tx: deliveries.bury_pending(tx, "ep_1", reason="gone", now_ms=NOW + 3, most=2)
        )
        return buried

    assert [bury(), bury(), bury()] == [2, 1, 0]
    assert sendable(driver, "ep_1", now_ms=NOW * 2) == []
    assert sendable(driver, "ep_2") == [1, 3, 4]
    assert reread(driver, made[0]) == done
    dead = reread(driver, made[2])
    assert (dead.state, dead.completed_ms, dead.error) == (DeliveryState.DEAD, NOW + 3, "gone")


def test_a_retry_begins_the_whole_schedule_anew_whatever_it_came_to(driver: Driver) -> None:
    made = happen(driver, ["job_1", "job_2", "job_3"])
    tried(driver, made[0], 200)
    tried(driver, made[1], 500)
    only(driver, lambda tx: deliveries.bury_pending(tx, "ep_1", reason="gone", now_ms=NOW))
    for each in made:
        assert only(driver, lambda tx, each=each: deliveries.retry(tx, each.id, due_ms=NOW + 5))
        again = reread(driver, each)
        assert (again.state, again.step, again.next_ms) == (DeliveryState.PENDING, 0, NOW + 5)
        assert again.completed_ms is None
    assert sendable(driver, now_ms=NOW + 5) == [1, 2, 3]
    assert not only(driver, lambda tx: deliveries.retry(tx, "dlv_of_nobody", due_ms=1))


def test_the_oldest_that_is_waited_for_is_known(driver: Driver) -> None:
    assert driver.read(deliveries.oldest_pending_seq) is None
    made = happen(driver, ["job_1", "job_2", "job_3"])
    assert driver.read(deliveries.oldest_pending_seq) == 1
    tried(driver, made[0], 200)
    tried(driver, made[1], 500)
    assert driver.read(deliveries.oldest_pending_seq) == 2


class TestAList:
    def listed(self, driver: Driver, *, tenant: str = "default", most: int = 2, **filters: Any) -> list[str]:
        found = walk(
            driver,
            lambda tx, last: deliveries.listed(
                tx, tenant=tenant, filters=Filters(**filters), before_id=last and last.id, most=most
            ),
        )
        ids = [each.id for each in found]
        assert ids == sorted(ids, reverse=True)
        return [f"{each.endpoint_id[3:]}:{each.event_seq}" for each in found[::-1]]

    def test_holds_what_fits_all_filters_newest_first(self, driver: Driver) -> None:
        made = happen(driver, ["job_1", "job_1", "job_2", None], to=["ep_1", "ep_2"])
        foreign = event(9, "job_9", tenant="other")
        only(driver, lambda tx: (events.append(tx, [foreign]), deliveries.insert(tx, [delivery_of(foreign)])))
        tried(driver, made[0], 200)
        only(driver, lambda tx: deliveries.bury_pending(tx, "ep_2", reason="x", now_ms=NOW))
        assert self.listed(driver) == ["1:1", "2:1", "1:2", "2:2", "1:3", "2:3", "1:4", "2:4"]
        assert self.listed(driver, tenant="other") == ["1:9"]
        assert self.listed(driver, tenant="nobody") == []
        assert self.listed(driver, endpoint_id="ep_1") == ["1:1", "1:2", "1:3", "1:4"]
        assert self.listed(driver, state="dead") == ["2:1", "2:2", "2:3", "2:4"]
        assert self.listed(driver, state="succeeded") == ["1:1"]
        assert self.listed(driver, state="pending", endpoint_id="ep_1") == ["1:2", "1:3", "1:4"]
        assert self.listed(driver, event_id=made[2].event_id) == ["1:2", "2:2"]
        assert self.listed(driver, job_id="job_1", endpoint_id="ep_2") == ["2:1", "2:2"]
        assert self.listed(driver, job_id="job_9") == []

    def test_refuses_a_state_that_there_is_not(self, driver: Driver) -> None:
        with pytest.raises(ValueError, match="lost"):
            self.listed(driver, state="lost' OR '1'='1")


def test_deliveries_of_many_jobs_are_given_out_in_the_order_of_each(database_url: str, clock: Clock) -> None:
    """A consumer that fails every third request gets each job's events in order, each once it succeeded."""
    driver = open_driver(database_url, clock)
    happen(driver, [f"job_{place % 5}" for place in range(40)])
    got: list[int] = []
    requests, now_ms = 0, NOW
    while (due_ms := next_ms(driver)) is not None:
        now_ms = max(now_ms, due_ms)
        found = driver.read(
            lambda tx, now_ms=now_ms: deliveries.sendable(tx, endpoint_id="ep_1", now_ms=now_ms, most=4)
        )
        assert found, "what is said to be due is there"
        results = []
        for each in found:
            requests += 1
            status = 500 if requests % 3 == 0 else 200
            results.append(
                after_try(
                    endpoint(),
                    each.delivery,
                    Tried(at_ms=now_ms, took_ms=1, status=status),
                    now_ms=now_ms,
                    jitter=0,
                )
            )
            if status == 200:
                got.append(each.delivery.event_seq)

        def write(tx: Tx, results: list[Any] = results) -> None:
            deliveries.record(tx, [(each.delivery, each.made) for each in results])

        only(driver, write)
    assert sorted(got) == list(range(1, 41))
    for job in range(5):
        of_job = [seq for seq in got if seq % 5 == job]
        assert of_job == sorted(of_job)
    driver.close()
