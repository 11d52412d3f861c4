"""Endpoints: kept as they are, held by one process at a time, woken by whoever brings them something."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from service.domain.endpoint import Disabled, Endpoint, EndpointState, Format, disabled
from service.storage import endpoints
from service.storage.database import Driver, Tx, WriteConflict
from service.storage.drivers import open_driver
from tests.storage.going_out import endpoint, happen, insert
from tests.storage.world import NOW, Clock, only, rows_in, walk

LEASE_MS = 15_000
FULL = endpoint(
    "ep_full",
    types=("job.succeeded", "endpoint.disabled"),
    description="ключ 🦊",
    state=EndpointState.DISABLED,
    disabled_reason=Disabled.GONE,
    format=Format.CLOUDEVENTS,
    signatures=("v1", "v1a"),
    concurrency=64,
    rate_per_s=1000,
    previous_secret="s1.older",
    previous_until_ms=NOW + 1,
    failures=7,
    failing_since_ms=NOW - 5,
    not_before_ms=NOW + 2,
    throttled_until_ms=NOW + 3,
    slow_start=3,
    replay_after=0,
    replay_until=2**60,
    due_ms=NOW + 4,
)


def database_now_ms(driver: Driver) -> int:
    now: int = driver.read(lambda tx: tx.clock_ms())
    return now


def row_of(driver: Driver, endpoint_id: str = "ep_1") -> dict[str, Any]:
    return next(row for row in driver.read(lambda tx: rows_in(tx, "endpoint")) if row["id"] == endpoint_id)


def claim(driver: Driver, mine: str, most: int = 100, lease_ms: int = LEASE_MS) -> list[str]:
    claimed = only(driver, lambda tx: endpoints.claim(tx, mine=mine, lease_ms=lease_ms, most=most))
    return sorted(each.id for each in claimed)


def wake(driver: Driver, due_ms: int, *ids: str) -> None:
    only(driver, lambda tx: endpoints.wake(tx, dict.fromkeys(ids or ("ep_1",), due_ms)))


def give_back(driver: Driver, mine: str, due_ms: int | None, now_ms: int) -> bool:
    given: bool = only(
        driver, lambda tx: endpoints.give_back(tx, "ep_1", mine=mine, due_ms=due_ms, now_ms=now_ms)
    )
    return given


def due(driver: Driver, count: int) -> None:
    """Make endpoints that have something to send, the first for longest."""
    now = database_now_ms(driver) - 1_000
    insert(driver, *[endpoint(f"ep_{place:03d}", due_ms=now + place) for place in range(count)])


def pass_time(driver: Driver, clock: Clock, ms: int) -> None:
    """Let time pass for the leases: on SQLite by our clock, on PostgreSQL by moving what is due."""
    clock.now_ms += ms
    if driver.dialect == "postgresql":
        column = endpoints.ENDPOINT.c.due_ms
        only(driver, lambda tx: tx.run(endpoints.ENDPOINT.update().values(due_ms=column - ms)))


@pytest.mark.parametrize("made", [endpoint(), FULL, endpoint("ep_jobs", for_jobs=True)])
def test_an_endpoint_is_read_as_it_was_written(driver: Driver, made: Endpoint) -> None:
    insert(driver, made)
    assert driver.read(lambda tx: endpoints.load(tx, [made.id, "ep_of_nobody"])) == {made.id: made}
    assert only(driver, lambda tx: endpoints.load(tx, [made.id], lock=True)) == {made.id: made}


def test_a_change_is_written_whole_and_counts(driver: Driver) -> None:
    before = endpoint("ep_full")
    insert(driver, before, endpoint("ep_other"))
    changed = replace(FULL, due_ms=None)
    only(driver, lambda tx: endpoints.save_many(tx, [changed]))
    found = driver.read(lambda tx: endpoints.load(tx, ["ep_full", "ep_other"]))
    assert found == {"ep_full": replace(changed, version=2), "ep_other": endpoint("ep_other")}


def test_a_change_of_what_was_read_too_long_ago_is_refused(driver: Driver) -> None:
    insert(driver, endpoint())
    only(driver, lambda tx: endpoints.save_many(tx, [endpoint(description="first")]))
    [outcome] = driver.write([lambda tx: endpoints.save_many(tx, [endpoint(description="second")])])
    assert isinstance(outcome.error, WriteConflict)
    assert row_of(driver)["description"] == "first"
    [outcome] = driver.write([lambda tx: endpoints.save_many(tx, [endpoint("ep_of_nobody")])])
    assert isinstance(outcome.error, WriteConflict)


def test_a_tenant_sees_its_own_and_none_that_jobs_made(driver: Driver) -> None:
    own = [endpoint(f"ep_{place}") for place in range(5)]
    insert(driver, *own, endpoint("ep_8", tenant="other"), endpoint("ep_9", for_jobs=True))
    newest_first = walk(
        driver,
        lambda tx, last: endpoints.listed(tx, tenant="default", before_id=last and last.id, most=2),
    )
    assert newest_first == own[::-1]

    def seen(tenant: str, endpoint_id: str) -> bool:
        return driver.read(lambda tx: endpoints.one(tx, tenant=tenant, endpoint_id=endpoint_id)) is not None

    assert seen("default", "ep_1")
    assert not seen("other", "ep_1")
    assert not seen("default", "ep_9")
    assert not seen("default", "ep_of_nobody")


def test_deliveries_are_made_for_active_and_paused_ones(driver: Driver) -> None:
    insert(
        driver,
        endpoint("ep_1"),
        endpoint("ep_2", state=EndpointState.PAUSED),
        disabled(endpoint("ep_3"), Disabled.OPERATOR),
        endpoint("ep_4", for_jobs=True),
        endpoint("ep_5", tenant="b"),
        endpoint("ep_6", tenant="c"),
    )
    found = driver.read(lambda tx: endpoints.active_of(tx, ["default", "b", "nobody"]))
    assert sorted(each.id for each in found) == ["ep_1", "ep_2", "ep_5"]


def test_an_endpoint_that_is_deleted_is_gone(driver: Driver) -> None:
    insert(driver, endpoint("ep_1"), endpoint("ep_2"))
    only(driver, lambda tx: endpoints.remove(tx, "ep_1"))
    assert [row["id"] for row in driver.read(lambda tx: rows_in(tx, "endpoint"))] == ["ep_2"]


class TestTheEndpointsOfJobs:
    def test_are_one_for_each_tenant_and_url(self, driver: Driver) -> None:
        def ensure(*wanted: tuple[str, str, str]) -> dict[tuple[str, str], str]:
            made = [endpoint(each, tenant=tenant, url=url, for_jobs=True) for each, tenant, url in wanted]
            found = only(driver, lambda tx: endpoints.ensure_for_jobs(tx, made))
            return {key: each.id for key, each in found.items()}

        assert ensure() == {}
        assert ensure(("ep_1", "a", "https://x/1"), ("ep_2", "b", "https://x/1")) == {
            ("a", "https://x/1"): "ep_1",
            ("b", "https://x/1"): "ep_2",
        }
        assert ensure(("ep_3", "a", "https://x/1"), ("ep_4", "b", "https://x/2")) == {
            ("a", "https://x/1"): "ep_1",
            ("b", "https://x/2"): "ep_4",
        }
        assert len(driver.read(lambda tx: rows_in(tx, "endpoint"))) == 3

    def test_may_have_urls_longer_than_an_index_takes(self, driver: Driver) -> None:
        url = "https://x/" + "é🦊" * 5_000
        made = endpoint("ep_1", url=url, for_jobs=True)
        for _ in range(2):
            found = only(driver, lambda tx: endpoints.ensure_for_jobs(tx, [made]))
            assert found == {("default", url): made}

    def test_are_made_once_however_many_make_them(self, database_url: str, clock: Clock) -> None:
        drivers = [open_driver(database_url, clock) for _ in range(6)]
        together = threading.Barrier(len(drivers))

        def ensure(number: int) -> list[dict[tuple[str, str], Endpoint]]:
            found = []
            for turn in range(10):
                urls = [f"https://x/{turn}/{place}" for place in range(5)]
                made = [
                    endpoint(f"ep_{number}_{turn}_{place}", url=url, for_jobs=True)
                    for place, url in enumerate(urls)
                ]
                # Each in another order: they must not wait for each other for good.
                turned = made[number % 5 :] + made[: number % 5]
                together.wait(20)
                found.append(
                    only(drivers[number], lambda tx, turned=turned: endpoints.ensure_for_jobs(tx, turned))
                )
            return found

        with ThreadPoolExecutor(len(drivers)) as pool:
            seen = list(pool.map(ensure, range(len(drivers))))
        assert all(each == seen[0] for each in seen)
        assert len(drivers[0].read(lambda tx: rows_in(tx, "endpoint"))) == 50
        for driver in drivers:
            driver.close()

    def test_are_deleted_once_no_delivery_is_kept_of_them(self, driver: Driver) -> None:
        made = [
            endpoint(f"ep_{place}", for_jobs=True, url=f"https://x/{place}", created_ms=NOW + place)
            for place in range(1, 9)
        ]
        insert(driver, *made[:2], replace(made[2], due_ms=NOW), *made[3:], endpoint("ep_0"))
        happen(driver, ["job_1"], to=["ep_1", "ep_5"])
        pruned, after_id = 0, ""
        while True:
            gone, following = only(
                driver,
                lambda tx, after_id=after_id: endpoints.prune_for_jobs(
                    tx, after_id=after_id, before_ms=NOW + 7, most=2
                ),
            )
            pruned += gone
            if following is None:
                break
            assert following > after_id
            after_id = following
        left = {row["id"] for row in driver.read(lambda tx: rows_in(tx, "endpoint"))}
        assert left == {"ep_0", "ep_1", "ep_3", "ep_5", "ep_7", "ep_8"}
        assert pruned == 3


class TestAClaim:
    def test_takes_what_is_due_once_the_longest_first(self, driver: Driver) -> None:
        due(driver, 5)
        insert(driver, endpoint("ep_idle"), endpoint("ep_later", due_ms=database_now_ms(driver) + 60_000))
        assert claim(driver, "a", 2) == ["ep_000", "ep_001"]
        assert claim(driver, "b", 2) == ["ep_002", "ep_003"]
        assert claim(driver, "a", 9) == ["ep_004"]
        assert claim(driver, "a", 9) == []

    def test_tells_the_endpoint_as_it_is(self, driver: Driver) -> None:
        insert(driver, replace(FULL, due_ms=1))
        [told] = only(driver, lambda tx: endpoints.claim(tx, mine="a", lease_ms=LEASE_MS, most=1))
        assert replace(told, due_ms=None) == replace(FULL, due_ms=None)

    def test_is_never_given_to_two(self, database_url: str, clock: Clock) -> None:
        first = open_driver(database_url, clock)
        due(first, 100)
        drivers = [open_driver(database_url, clock) for _ in range(8)]
        together = threading.Barrier(len(drivers))

        def claimer(number: int) -> list[str]:
            got: list[str] = []
            together.wait(20)
            for _ in range(200):
                taken = claim(drivers[number], f"p{number}", 5)
                got += taken
                if not taken and not claim(first, "nobody", 0) and _held(first) == 100:
                    return got
            raise AssertionError("not everything was claimed in 200 turns")

        with ThreadPoolExecutor(len(drivers)) as pool:
            got = list(pool.map(claimer, range(len(drivers))))
        counted = Counter(each for taken in got for each in taken)
        assert len(counted) == 100
        assert set(counted.values()) == {1}
        for driver in (first, *drivers):
            driver.close()

    def test_of_a_dead_process_ends_with_its_lease(self, driver: Driver, clock: Clock) -> None:
        due(driver, 1)
        claim(driver, "dead")
        wake(driver, database_now_ms(driver), "ep_000")
        pass_time(driver, clock, LEASE_MS - 2_000)
        assert claim(driver, "alive") == []
        pass_time(driver, clock, 3_000)
        assert claim(driver, "alive") == ["ep_000"]

    def test_is_renewed_for_those_who_hold_it(self, driver: Driver, clock: Clock) -> None:
        due(driver, 3)
        claim(driver, "a", 2)
        claim(driver, "b", 1)
        pass_time(driver, clock, LEASE_MS - 2_000)
        assert only(driver, lambda tx: endpoints.renew(tx, mine="a", lease_ms=LEASE_MS)) == {
            "ep_000",
            "ep_001",
        }
        assert only(driver, lambda tx: endpoints.renew(tx, mine="nobody", lease_ms=LEASE_MS)) == set()
        pass_time(driver, clock, 3_000)
        assert claim(driver, "c") == ["ep_002"]
        assert only(driver, lambda tx: endpoints.renew(tx, mine="b", lease_ms=LEASE_MS)) == set()

    def test_is_renewed_though_the_row_is_being_changed(self, postgresql_url: str, clock: Clock) -> None:
        """Who sends to an endpoint changes its row all the time: passed over, it would be lost to its holder."""
        driver, other = open_driver(postgresql_url, clock), open_driver(postgresql_url, clock)
        due(driver, 1)
        claim(driver, "a")
        before = row_of(driver, "ep_000")["due_ms"]
        held, go_on = threading.Event(), threading.Event()

        def recording(tx: Tx) -> None:
            endpoints.load(tx, ["ep_000"], lock=True)
            held.set()
            assert go_on.wait(10)

        with ThreadPoolExecutor(2) as pool:
            recorded = pool.submit(only, driver, recording)
            assert held.wait(10)
            renewed = pool.submit(only, other, lambda tx: endpoints.renew(tx, mine="a", lease_ms=60_000))
            go_on.set()
            recorded.result(10)
            assert renewed.result(10) == {"ep_000"}
        assert row_of(driver, "ep_000")["due_ms"] > before
        driver.close()
        other.close()

    def test_is_released_due_at_once_by_its_holder_alone(self, driver: Driver) -> None:
        due(driver, 3)
        claim(driver, "a", 2)
        claim(driver, "b", 1)
        every = ["ep_000", "ep_001", "ep_002"]
        assert only(driver, lambda tx: endpoints.release(tx, every[1:], mine="a")) == 1
        assert claim(driver, "c") == ["ep_001"]


class TestWaking:
    def test_makes_it_due_and_only_sooner(self, driver: Driver) -> None:
        insert(driver, endpoint("ep_1"), endpoint("ep_2"))
        for due_ms, expected in [(500, 500), (700, 500), (300, 300)]:
            wake(driver, due_ms, "ep_1", "ep_of_nobody")
            assert row_of(driver)["due_ms"] == expected
        assert row_of(driver, "ep_2")["due_ms"] is None
        assert driver.read(endpoints.next_due_ms) == 300

    def test_waits_as_long_as_the_endpoint_asked_for(self, driver: Driver) -> None:
        insert(driver, endpoint(state=EndpointState.PAUSED, not_before_ms=1_000))
        wake(driver, 300)
        assert row_of(driver)["due_ms"] == 1_000
        wake(driver, 200)
        assert row_of(driver)["due_ms"] == 1_000

    def test_leaves_a_disabled_one_alone(self, driver: Driver) -> None:
        insert(driver, disabled(endpoint(), Disabled.GONE))
        wake(driver, 300)
        assert row_of(driver)["due_ms"] is None
        assert driver.read(endpoints.next_due_ms) is None

    def test_does_not_end_a_lease(self, driver: Driver) -> None:
        due(driver, 1)
        claim(driver, "a")
        before = row_of(driver, "ep_000")["due_ms"]
        wake(driver, 5, "ep_000")
        assert row_of(driver, "ep_000")["due_ms"] == before
        assert claim(driver, "b") == []

    @pytest.mark.parametrize(
        ("woken", "wanted", "due_ms"),
        [
            ([], 900, 900),
            ([], None, None),
            ([400], None, 500),
            ([700], None, 700),
            ([700, 600, 650], None, 600),
            ([700], 900, 700),
            ([700], 600, 600),
            ([400], 500, 500),
            ([400], 300, 300),
        ],
    )
    def test_is_heard_when_a_held_one_is_given_back(
        self, driver: Driver, woken: list[int], wanted: int | None, due_ms: int | None
    ) -> None:
        insert(driver, endpoint(due_ms=1))
        assert claim(driver, "a") == ["ep_1"]
        for at_ms in woken:
            wake(driver, at_ms)
        assert give_back(driver, "a", wanted, now_ms=500)
        row = row_of(driver)
        assert (row["due_ms"], row["claim"], row["woken_ms"]) == (due_ms, None, None)

    def test_is_forgotten_by_the_next_claim(self, driver: Driver) -> None:
        """Whoever claims it looks for everything anyway."""
        insert(driver, endpoint(due_ms=1))
        claim(driver, "a")
        wake(driver, 5)
        only(driver, lambda tx: endpoints.release(tx, ["ep_1"], mine="a"))
        claim(driver, "b")
        assert give_back(driver, "b", None, now_ms=500)
        assert row_of(driver)["due_ms"] is None

    def test_of_a_paused_one_that_is_held_waits_for_the_probe(self, driver: Driver) -> None:
        insert(driver, endpoint(due_ms=1))
        claim(driver, "a")
        wake(driver, 400)
        paused = endpoint(state=EndpointState.PAUSED, not_before_ms=60_500)
        only(driver, lambda tx: endpoints.save_many(tx, [paused]))
        assert give_back(driver, "a", None, now_ms=500)
        assert row_of(driver)["due_ms"] == 60_500

    def test_is_never_lost_between_the_last_look_and_giving_back(
        self, postgresql_url: str, clock: Clock
    ) -> None:
        driver, other = open_driver(postgresql_url, clock), open_driver(postgresql_url, clock)
        insert(driver, endpoint(due_ms=1))
        claim(driver, "a")
        looked, go_on = threading.Event(), threading.Event()

        def giving_back(tx: Tx) -> None:
            endpoints.load(tx, ["ep_1"], lock=True)
            looked.set()
            assert go_on.wait(10)
            endpoints.give_back(tx, "ep_1", mine="a", due_ms=None, now_ms=500)

        with ThreadPoolExecutor(2) as pool:
            given = pool.submit(only, driver, giving_back)
            assert looked.wait(10)
            woken = pool.submit(wake, other, 700)
            go_on.set()
            given.result(10)
            woken.result(10)
        assert row_of(driver)["due_ms"] == 700
        driver.close()
        other.close()


def test_only_the_holder_gives_back(driver: Driver) -> None:
    insert(driver, endpoint(due_ms=1))
    claim(driver, "a")
    before = row_of(driver)
    assert not give_back(driver, "b", None, now_ms=500)
    assert row_of(driver) == before
    assert give_back(driver, "a", None, now_ms=500)
    assert not give_back(driver, "a", 7, now_ms=500)
    assert row_of(driver)["due_ms"] is None


def test_one_that_was_disabled_meanwhile_is_given_back_for_good(driver: Driver) -> None:
    insert(driver, endpoint(due_ms=1))
    claim(driver, "a")
    wake(driver, 5)
    only(driver, lambda tx: endpoints.save_many(tx, [disabled(endpoint(), Disabled.OPERATOR)]))
    assert give_back(driver, "a", 500, now_ms=500)
    assert row_of(driver)["due_ms"] is None


def test_those_to_be_replayed_are_found(driver: Driver) -> None:
    made = [endpoint(f"ep_{place}", replay_after=0, replay_until=place) for place in range(3)]
    insert(driver, *made, endpoint("ep_9"))
    assert driver.read(lambda tx: endpoints.replaying(tx, most=2)) == made[:2]


def _held(driver: Driver) -> int:
    return sum(row["claim"] is not None for row in driver.read(lambda tx: rows_in(tx, "endpoint")))
