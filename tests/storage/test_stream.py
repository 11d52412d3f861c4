"""The stream as readers see it: pages that say where to go on, and the newest events of everybody."""

from typing import Any

import pytest

from service.storage import events, stream
from service.storage.database import Driver, Tx
from service.storage.events import Event
from tests.storage.test_plans import plans_of, whole_tables_read
from tests.storage.world import NOW, only


def told(driver: Driver, *kinds: tuple[str, str, str | None]) -> None:
    """Write events of (tenant, type, job), in this order."""
    made = [
        Event(
            id=f"evt_{tenant}_{place}",
            tenant=tenant,
            type=kind,
            job_id=job_id,
            job_seq=None if job_id is None else place,
            at_ms=NOW,
            data="{}",
        )
        for place, (tenant, kind, job_id) in enumerate(kinds, start=1)
    ]
    only(driver, lambda tx: events.append(tx, made))


def page(driver: Driver, **asked: Any) -> tuple[list[int], int]:
    found = driver.read(lambda tx: stream.page(tx, **{"tenant": "a", "after": 0, "most": 10, **asked}))
    return [event.seq for event in found.events], found.following


@pytest.fixture
def filled(driver: Driver) -> Driver:
    """Give a stream of two tenants: a has 1, 2 and 4 (of two jobs), b has 3 and 5."""
    told(
        driver,
        ("a", "job.accepted", "job_1"),
        ("a", "job.accepted", "job_2"),
        ("b", "job.accepted", "job_3"),
        ("a", "job.succeeded", "job_1"),
        ("b", "job.succeeded", "job_3"),
    )
    return driver


def test_a_full_page_goes_on_behind_its_last_event(filled: Driver) -> None:
    assert page(filled, most=2) == ([1, 2], 2)
    assert page(filled, after=2, most=1) == ([4], 4)


def test_a_page_that_is_not_full_goes_on_behind_the_newest_event_of_all(filled: Driver) -> None:
    assert page(filled) == ([1, 2, 4], 5)
    assert page(filled, after=4) == ([], 5)
    assert page(filled, tenant="c") == ([], 5)


def test_a_cursor_never_goes_back(filled: Driver) -> None:
    assert page(filled, after=900) == ([], 900)


def test_types_choose_and_what_was_left_out_is_passed(filled: Driver) -> None:
    assert page(filled, types=["job.succeeded"], most=1) == ([4], 4)
    assert page(filled, types=["job.failed"], most=1) == ([], 5)


def test_a_page_of_one_job_holds_its_events_alone(filled: Driver) -> None:
    assert page(filled, job_id="job_1") == ([1, 4], 5)
    assert page(filled, job_id="job_1", most=1) == ([1], 1)
    assert page(filled, job_id="job_1", most=1, types=["job.succeeded"]) == ([], 1), "it looked at one event"
    assert page(filled, job_id="job_1", after=1, types=["job.succeeded"]) == ([4], 5)
    assert page(filled, job_id="job_3") == ([], 5), "it is another tenant's"


def test_the_newest_are_those_of_every_tenant(filled: Driver) -> None:
    found = filled.read(lambda tx: stream.newest(tx, after=2, most=2))
    assert [(event.seq, event.tenant, event.job_id) for event in found] == [
        (3, "b", "job_3"),
        (4, "a", "job_1"),
    ]


def test_nothing_is_pruned_at_first(filled: Driver) -> None:
    assert filled.read(lambda tx: stream.pruned_seq(tx, "a")) == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda tx: stream.page(tx, tenant="a", after=1, most=2),
        lambda tx: stream.page(tx, tenant="a", after=1, most=2, job_id="job_1"),
        lambda tx: stream.newest(tx, after=1, most=500),
    ],
    ids=["page", "page of a job", "newest"],
)
def test_a_reader_reads_by_an_index(filled: Driver, act: Any) -> None:
    def work(tx: Tx) -> None:
        act(tx)

    plans = plans_of(filled, work)
    assert plans
    for plan in plans:
        assert whole_tables_read(filled, plan) == [], plan
