"""Endpoints: made, changed, rotated, tested, replayed and ended by their tenant alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.endpoint import EndpointState
from service.egress import UrlRefused
from service.flows import endpoints as flow
from service.flows import signing
from service.flows.errors import Conflict, CursorExpired, NotFound
from service.flows.fan_out import MOST
from service.storage import events, stream
from tests.paths.delivery_scene import DeliveryScene, Received, deliveries_of, verified
from tests.paths.flow_scene import TENANT

URL = "https://one.example/hook"
OTHER = "https://two.example/hook"
DAY_S = 86_400


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def test_a_secret_is_told_once_and_kept_sealed(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    assert shown.secret.startswith("whsec_")
    (row,) = await there.scene.table("endpoint")
    assert shown.secret not in str(row)
    assert shown.secret.removeprefix("whsec_") not in str(row)
    again = await flow.one(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)
    assert shown.secret not in str(again)
    assert (await there.endpoint(URL)).secret != shown.secret


async def test_a_url_that_nothing_may_be_sent_to_makes_no_endpoint(there: DeliveryScene) -> None:
    there.consumers.refused.add(URL)
    with pytest.raises(UrlRefused):
        await there.endpoint(URL)
    assert await there.scene.table("endpoint") == []
    shown = await there.endpoint(OTHER)
    with pytest.raises(UrlRefused):
        await _changed(there, shown.endpoint.id, url=URL)
    assert (await there.state(shown)).url == OTHER


async def _changed(there: DeliveryScene, endpoint_id: str, **changes: object) -> None:
    await flow.change(there.runtime, tenant=TENANT, endpoint_id=endpoint_id, changes=changes)


async def test_lists_are_newest_first_and_show_no_urls_of_jobs(there: DeliveryScene) -> None:
    made = [(await there.endpoint(URL)).endpoint.id for _ in range(3)]
    await there.scene.accept("bfl", webhook_url=OTHER)
    await there.settle()
    assert len(await there.scene.table("endpoint")) == 4
    found = await flow.listed(there.runtime, tenant=TENANT, before_id=None, most=10)
    assert [each.id for each in found] == made[::-1]
    rest = await flow.listed(there.runtime, tenant=TENANT, before_id=made[2], most=1)
    assert [each.id for each in rest] == [made[1]]


async def test_an_endpoint_of_another_tenant_or_of_jobs_is_not_there(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.scene.accept("bfl", webhook_url=OTHER)
    await there.settle()
    (hidden,) = [row["id"] for row in await there.scene.table("endpoint") if row["id"] != shown.endpoint.id]
    named = [("stranger", shown.endpoint.id), (TENANT, hidden), (TENANT, "ep_none")]
    for tenant, endpoint_id in named:
        for call in (flow.one, flow.remove, flow.rotate, flow.test):
            with pytest.raises(NotFound):
                await call(there.runtime, tenant=tenant, endpoint_id=endpoint_id)
        with pytest.raises(NotFound):
            await flow.replay(there.runtime, tenant=tenant, endpoint_id=endpoint_id, after=0)
        with pytest.raises(NotFound):
            await flow.change(there.runtime, tenant=tenant, endpoint_id=endpoint_id, changes={})


async def test_only_what_is_named_is_changed(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, types=("job.failed",), description="mine", concurrency=3)
    there.clock.go(5)
    await _changed(there, shown.endpoint.id, types=("job.succeeded",), rate_per_s=7)
    after = await there.state(shown)
    assert (after.types, after.rate_per_s) == (("job.succeeded",), 7)
    assert (after.url, after.description, after.concurrency) == (URL, "mine", 3)
    assert after.updated_ms == after.created_ms + 5000
    there.clock.go(5)
    await _changed(there, shown.endpoint.id, types=("job.succeeded",))
    assert (await there.state(shown)).updated_ms == after.updated_ms


async def test_a_disabled_endpoint_gets_nothing_until_it_is_active_again(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.tell("job_1", types=["job.accepted"])
    await there.hand_out()
    await _changed(there, shown.endpoint.id, state=EndpointState.DISABLED)
    await there.tell("job_2", types=["job.accepted"])
    await there.after(60)
    assert there.consumers.received == []
    disabled = await there.state(shown)
    assert (disabled.state, disabled.disabled_reason) == (EndpointState.DISABLED, "operator")
    assert [each.state for each in await there.deliveries()] == ["dead"]
    await _changed(there, shown.endpoint.id, state=EndpointState.ACTIVE)
    (told,) = await there.tell("job_3", types=["job.accepted"])
    await there.settle()
    assert there.consumers.ids(URL) == [told.id]


async def test_making_a_paused_endpoint_active_sends_what_was_parked_at_once(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 500
    told = await there.tell("job_1", "job_2")
    await there.after(20)
    assert (await there.state(shown)).state is EndpointState.PAUSED
    there.consumers.scripts[URL] = lambda _: 200
    failed = len(there.consumers.received)
    await _changed(there, shown.endpoint.id, state=EndpointState.ACTIVE)
    await there.settle()
    assert sorted(there.consumers.ids(URL)[failed:]) == sorted(event.id for event in told)


async def test_after_a_rotation_both_secrets_sign_for_a_day(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    rotated = await flow.rotate(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)
    assert rotated.secret != shown.secret
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    both = there.consumers.at(URL)[-1]
    assert verified(both, rotated.secret)
    assert verified(both, shown.secret)
    # The newest comes first: some receivers look at the first alone.
    first = both.headers["webhook-signature"].split()[0]
    assert verified(_with_signature(both, first), rotated.secret)
    await there.after(DAY_S)
    await there.tell("job_2", types=["job.accepted"])
    await there.settle()
    later = there.consumers.at(URL)[-1]
    assert verified(later, rotated.secret)
    assert not verified(later, shown.secret)
    assert len(later.headers["webhook-signature"].split()) == 1


def _with_signature(received: Received, signature: str) -> Received:
    return replace(received, headers={**received.headers, "webhook-signature": signature})


async def test_the_job_secret_is_told_when_it_is_made_and_overlaps_when_it_is_rotated(
    there: DeliveryScene,
) -> None:
    first = await signing.rotate_job_secret(there.runtime, tenant=TENANT)
    assert first.previous_until_ms is None
    second = await signing.rotate_job_secret(there.runtime, tenant=TENANT)
    assert second.previous_until_ms == there.clock() + DAY_S * 1000
    (row,) = await there.scene.table("tenant_secret")
    assert first.secret not in str(row)
    await there.scene.accept("bfl", webhook_url=URL)
    await there.settle()
    (received,) = there.consumers.at(URL)
    assert verified(received, first.secret)
    assert verified(received, second.secret)


async def test_a_test_event_goes_to_the_tested_endpoint_alone_whatever_it_chose(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, types=("job.succeeded",))
    await there.endpoint(OTHER)
    event_id = await flow.test(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)
    await there.settle()
    assert there.consumers.ids(URL) == [event_id]
    assert there.consumers.at(OTHER) == []
    event = there.consumers.at(URL)[0].event
    assert (event["type"], event["job_id"], event["data"]["id"]) == (
        "endpoint.test", None, shown.endpoint.id,
    )  # fmt: skip
    await _changed(there, shown.endpoint.id, state=EndpointState.DISABLED)
    with pytest.raises(Conflict):
        await flow.test(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)


async def test_what_was_still_to_be_sent_to_a_deleted_endpoint_is_dead(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.tell("job_1")
    await there.hand_out()
    await flow.remove(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)
    await there.after(60)
    assert there.consumers.received == []
    assert {(each.state, each.error) for each in await there.deliveries()} == {
        ("dead", "the endpoint was deleted")
    }
    with pytest.raises(NotFound):
        await flow.one(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id)


async def test_a_replay_sends_again_what_came_after_the_cursor_under_the_same_ids(
    there: DeliveryScene,
) -> None:
    before = await there.tell("job_0", types=["job.accepted"])
    await there.hand_out()
    shown = await there.endpoint(URL, types=("job.accepted", "job.succeeded"))
    told = await there.tell(*(f"job_{number}" for number in range(1, 400)))
    await there.settle()
    wanted = [event.id for event in told if event.type in shown.endpoint.types]
    assert len(wanted) > MOST
    assert sorted(there.consumers.ids(URL)) == sorted(wanted)
    kept = await there.runtime.door.read(lambda tx: events.feed(tx, tenant=TENANT, after=0, most=5_000))
    after = kept[-11].seq
    there.consumers.received.clear()
    await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=after)
    (new,) = await there.tell("job_new", types=["job.accepted"])
    await there.settle()
    assert sorted(there.consumers.ids(URL)) == sorted([*wanted[-10:], new.id])
    there.consumers.received.clear()
    await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=0)
    with pytest.raises(Conflict):
        await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=0)
    await there.settle()
    # Also what it never got: from before it was there.
    assert sorted(there.consumers.ids(URL)) == sorted([before[0].id, *wanted, new.id])
    deliveries = await there.deliveries()
    assert len(deliveries) == len(wanted) + 2
    assert {each.state for each in deliveries} == {"succeeded"}


async def test_a_replay_sends_no_test_of_another_endpoint(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    other = await there.endpoint(OTHER)
    await flow.test(there.runtime, tenant=TENANT, endpoint_id=other.endpoint.id)
    await there.settle()
    await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=0)
    await there.settle()
    assert there.consumers.at(URL) == []


async def test_a_replay_of_what_is_no_longer_kept_says_from_where_it_is(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await there.endpoint(URL)
    monkeypatch.setattr(stream, "pruned_seq", lambda *_: 7)
    with pytest.raises(CursorExpired) as caught:
        await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=6)
    assert caught.value.oldest == 7
    assert (await there.state(shown)).replay_until is None


async def test_a_replay_of_a_disabled_endpoint_is_a_conflict(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await _changed(there, shown.endpoint.id, state=EndpointState.DISABLED)
    with pytest.raises(Conflict):
        await flow.replay(there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=0)
