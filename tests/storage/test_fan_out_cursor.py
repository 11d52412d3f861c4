"""Events on their way to endpoints: read behind one cursor, by one process at a time; and the secrets for jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import delete

from service.storage import events, tenant_secrets
from service.storage.database import Driver, Tx
from service.storage.drivers import open_driver
from service.storage.events import EVENT, Event, Passing
from service.storage.statements import Statement
from service.storage.tenant_secrets import TenantSecret
from tests.storage.going_out import event
from tests.storage.world import NOW, Clock, insert_jobs, new_job, only, rows_in

HOOK = "https://consumer.example/of/this/job?" + "x" * 3_000


def test_events_pass_in_commit_order_with_the_url_of_their_job(driver: Driver) -> None:
    made = [new_job("job_1"), new_job("job_2", webhook_url=HOOK), new_job("job_3", tenant="other")]
    told = [
        event(1, "job_1"),
        event(2, "job_2"),
        event(3, "job_3", tenant="other"),
        event(4, None, type="endpoint.test"),
        event(5, "job_that_is_gone"),
    ]
    only(driver, lambda tx: (insert_jobs(tx, made), events.append(tx, told)))
    passing = driver.read(lambda tx: events.after(tx, 0, most=9))
    assert [(each.seq, each.id, each.tenant, each.type, each.job_id) for each in passing] == [
        (place, each.id, each.tenant, each.type, each.job_id) for place, each in enumerate(told, start=1)
    ]
    assert [each.webhook_url for each in passing] == [None, HOOK, None, None, None]
    assert all(isinstance(each, Passing) and isinstance(each, Event) for each in passing)
    # The job's own object is large and not looked at here; what an event without a job is about, is.
    assert [each.data for each in passing] == ["", "", "", '{"n":4}', ""]
    assert [each.seq for each in driver.read(lambda tx: events.after(tx, 2, most=2))] == [3, 4]


def test_events_behind_pruned_ones_pass_too(driver: Driver) -> None:
    only(driver, lambda tx: events.append(tx, [event(place, None) for place in range(1, 31)]))
    only(driver, lambda tx: tx.run(Statement(delete(EVENT).where(EVENT.c.seq < 25))))
    assert [each.seq for each in driver.read(lambda tx: events.after(tx, 3, most=2))] == [25, 26]
    assert [each.seq for each in driver.read(lambda tx: events.after(tx, 23, most=4))] == [25, 26, 27]
    assert driver.read(lambda tx: events.after(tx, 30, most=4)) == []


def test_the_cursor_stands_where_it_was_moved_to(driver: Driver) -> None:
    assert driver.read(events.fan_out_cursor) == 0
    only(driver, lambda tx: events.move_fan_out(tx, 7))
    assert driver.read(events.fan_out_cursor) == 7
    assert only(driver, lambda tx: events.fan_out_cursor(tx, lock=True)) == 7
    assert driver.read(events.latest_seq) == 0, "it is another counter"


def test_of_two_who_would_hand_out_one_finds_the_other_at_it(postgresql_url: str, clock: Clock) -> None:
    driver, other = open_driver(postgresql_url, clock), open_driver(postgresql_url, clock)
    taken, go_on = threading.Event(), threading.Event()

    def handing_out(tx: Tx) -> None:
        assert events.fan_out_cursor(tx, lock=True) == 0
        taken.set()
        assert go_on.wait(10)
        events.move_fan_out(tx, 5)

    def disabling(tx: Tx) -> int | None:
        events.hold_fan_out(tx)
        return events.fan_out_cursor(tx)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(only, driver, handing_out)
        assert taken.wait(10)
        assert only(other, lambda tx: events.fan_out_cursor(tx, lock=True)) is None
        assert other.read(events.fan_out_cursor) == 0
        waiting = pool.submit(only, other, disabling)
        go_on.set()
        first.result(10)
        assert waiting.result(10) == 5, "who holds it has waited for the other's commit"
    driver.close()
    other.close()


class TestTheSecretForJobs:
    def test_is_made_once(self, driver: Driver) -> None:
        assert driver.read(lambda tx: tenant_secrets.one(tx, "a")) is None
        for sealed in ("first", "second"):
            only(
                driver,
                lambda tx, sealed=sealed: tenant_secrets.ensure(tx, tenant="a", sealed=sealed, now_ms=NOW),
            )
        made = TenantSecret(tenant="a", secret="first", created_ms=NOW, updated_ms=NOW)
        assert driver.read(lambda tx: tenant_secrets.one(tx, "a")) == made
        assert driver.read(lambda tx: tenant_secrets.one(tx, "b")) is None

    def test_is_rotated_with_an_overlap(self, driver: Driver) -> None:
        def rotate(sealed: str, now_ms: int, until_ms: int | None) -> TenantSecret:
            rotated = only(
                driver,
                lambda tx: tenant_secrets.rotate(
                    tx, tenant="a", sealed=sealed, now_ms=now_ms, until_ms=until_ms
                ),
            )
            assert rotated == driver.read(lambda tx: tenant_secrets.one(tx, "a"))
            assert isinstance(rotated, TenantSecret)
            return rotated

        first = rotate("s1", NOW, NOW + 10)
        assert (first.secret, first.previous_secret, first.previous_until_ms) == ("s1", None, None)
        second = rotate("s2", NOW + 1, NOW + 11)
        assert (second.secret, second.previous_secret, second.previous_until_ms) == ("s2", "s1", NOW + 11)
        assert (second.created_ms, second.updated_ms) == (NOW, NOW + 1)
        third = rotate("s3", NOW + 2, None)
        assert (third.secret, third.previous_secret, third.previous_until_ms) == ("s3", None, None)
        assert len(driver.read(lambda tx: rows_in(tx, "tenant_secret"))) == 1
