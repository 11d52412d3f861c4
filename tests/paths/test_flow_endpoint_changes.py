"""Endpoints that change while they are sent to: what was said of the old URL or by an old key counts no more."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from service.domain.endpoint import EndpointState
from service.domain.secrets import KeyRing
from service.flows import endpoints as flow
from tests.paths.delivery_scene import DeliveryScene, Received, answered, deliveries_of, verified
from tests.paths.flow_scene import TENANT

URL = "https://one.example/hook"
OTHER = "https://two.example/hook"


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def _moved(there: DeliveryScene, endpoint_id: str) -> None:
    await flow.change(there.runtime, tenant=TENANT, endpoint_id=endpoint_id, changes={"url": OTHER})


@pytest.mark.parametrize("status", [410, 500])
async def test_what_the_old_url_still_answers_says_nothing_of_the_new_one(
    there: DeliveryScene, status: int
) -> None:
    shown = await there.endpoint(URL, concurrency=1)
    told = await there.tell("job_1", "job_2", types=["job.accepted"])

    async def moves(_: Received) -> int:
        await _moved(there, shown.endpoint.id)
        return status

    there.consumers.scripts[URL] = moves
    await there.after(10)
    after = await there.state(shown)
    assert (after.state, after.failures) == (EndpointState.ACTIVE, 0)
    assert sorted(there.consumers.ids(OTHER)) == sorted(event.id for event in told)
    assert {each.state for each in await there.deliveries()} == {"succeeded"}


async def test_a_new_url_need_not_wait_out_what_the_old_one_asked_for(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: answered(429, retry_after="86400")
    told = await there.tell("job_1", types=["job.accepted"])
    await there.after(10)
    assert len(there.consumers.received) == 1
    await _moved(there, shown.endpoint.id)
    await there.settle()
    assert there.consumers.ids(OTHER) == [event.id for event in told]


async def test_who_is_made_active_need_not_wait_out_what_it_asked_for(there: DeliveryScene) -> None:
    """A consumer may have asked for a day by mistake."""
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: answered(429, retry_after="86400")
    await there.tell("job_1", types=["job.accepted"])
    await there.after(10)
    assert len(there.consumers.received) == 1
    there.consumers.scripts[URL] = lambda _: 200
    await flow.change(
        there.runtime,
        tenant=TENANT,
        endpoint_id=shown.endpoint.id,
        changes={"state": EndpointState.ACTIVE},
    )
    await there.settle()
    assert [each.state for each in await there.deliveries()] == ["succeeded"]


async def test_a_url_that_was_gone_stays_disabled_until_somebody_enables_the_new_one(
    there: DeliveryScene,
) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 410
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    await _moved(there, shown.endpoint.id)
    assert (await there.state(shown)).state is EndpointState.DISABLED


async def test_a_replaced_secret_that_signs_no_more_may_lose_its_key(there: DeliveryScene) -> None:
    first, second = b"1" * 32, b"2" * 32
    before = DeliveryScene(there.scene.changed(keys=KeyRing([first])), there.consumers)
    shown = await before.endpoint(URL)
    both = DeliveryScene(there.scene.changed(keys=KeyRing([second, first])), there.consumers)
    rotated = await flow.rotate(both.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)
    there.clock.go(25 * 3600)
    after = DeliveryScene(there.scene.changed(keys=KeyRing([second])), there.consumers)
    await after.tell("job_1", types=["job.accepted"])
    await after.after(60)
    (received,) = there.consumers.at(URL)
    assert verified(received, rotated.secret)
    assert not verified(received, shown.secret)


async def test_a_rate_holds_though_events_keep_coming(there: DeliveryScene) -> None:
    await there.endpoint(URL, rate_per_s=2)
    for number in range(40):
        await there.tell(f"job_{number}", types=["job.accepted"])
        await there.after(0.1)
    assert 7 <= len(there.consumers.at(URL)) <= 10
    await there.after(30)
    times = [received.at_ms for received in there.consumers.at(URL)]
    assert len(times) == 40
    assert all(later - sooner >= 440 for sooner, later in pairwise(times))


async def test_a_secret_that_cannot_be_opened_is_not_tried_again_with_every_event(
    there: DeliveryScene,
) -> None:
    await there.endpoint(URL)
    strange = DeliveryScene(there.scene.changed(keys=KeyRing([b"k" * 32])), there.consumers)
    looked = 0
    for number in range(40):
        await there.tell(f"job_{number}", types=["job.accepted"])
        await strange.hand_out()
        await strange.deliverer.turn()
        looked += len(strange.deliverer._tasks)
        while strange.deliverer._tasks:
            await asyncio.wait(strange.deliverer._tasks)
        there.clock.go(0.5)
    assert looked <= 2
