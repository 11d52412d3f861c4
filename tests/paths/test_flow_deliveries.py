"""Deliveries: every event reaches every endpoint that wants it, under one id, in the order of each job."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.domain import webhook
from service.domain.endpoint import Format
from service.domain.event_object import event_text
from service.flows import deliveries as delivery_flow
from service.flows import signing
from service.flows.errors import Conflict, NotFound
from service.storage import events
from tests.paths.delivery_scene import (
    LIFE,
    DeliveryScene,
    Received,
    answered,
    deliveries_of,
    in_job_order,
    verified,
)
from tests.paths.flow_scene import ON_ONE_DATABASE, PUBLIC_URL, TENANT

URL = "https://one.example/hook"
OTHER = "https://two.example/hook"


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def test_an_endpoint_gets_every_event_once_and_signed(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    told = await there.tell("job_1", "job_2")
    await there.settle()
    assert sorted(there.consumers.ids(URL)) == sorted(event.id for event in told)
    assert all(verified(received, shown.secret) for received in there.consumers.at(URL))
    assert in_job_order(there.consumers.at(URL))
    assert {each.state for each in await there.deliveries()} == {"succeeded"}
    await there.after(3600)
    assert len(there.consumers.received) == len(told)


async def test_the_body_holds_the_event_byte_by_byte_as_the_feed_does(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (event,) = await there.scene.events()
    text = event_text(
        id=event.id, seq=event.seq, type=event.type, at_ms=event.at_ms, job_id=event.job_id,
        job_seq=event.job_seq, data=event.data,
    )  # fmt: skip
    (received,) = there.consumers.at(URL)
    assert received.body.endswith(b'"data":' + text + b"}")
    assert orjson.loads(received.body)["type"] == "job.accepted"
    assert received.headers["content-type"] == "application/json"
    assert received.id == event.id
    assert int(received.headers["webhook-timestamp"]) == there.clock() // 1000


async def test_only_chosen_types_and_only_the_tenants_own_events_are_sent(there: DeliveryScene) -> None:
    await there.endpoint(URL, types=("job.succeeded",))
    await there.tell("job_1")
    await there.tell("job_2", tenant="stranger")
    await there.settle()
    assert [received.event["type"] for received in there.consumers.received] == ["job.succeeded"]


async def test_an_endpoint_gets_nothing_from_before_it_was_there(there: DeliveryScene) -> None:
    await there.tell("job_1")
    await there.settle()
    await there.endpoint(URL)
    (later,) = await there.tell("job_2", types=["job.accepted"])
    await there.settle()
    assert there.consumers.ids(URL) == [later.id]


async def test_a_cloudevents_endpoint_is_sent_structured_events(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, format=Format.CLOUDEVENTS)
    (told,) = await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (received,) = there.consumers.at(URL)
    assert received.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = from_http_event(
        HTTPMessage(headers={"content-type": received.headers["content-type"]}, body=received.body),
        JSONFormat(),
    )
    assert event.get_id() == received.id == told.id
    assert event.get_type() == "dev.fluxgate.job.accepted"
    assert event.get_source() == PUBLIC_URL
    assert event.get_subject() == "job_1"
    assert verified(received, shown.secret)


async def test_an_endpoint_that_asks_for_it_is_signed_with_the_tenants_public_key_too(
    there: DeliveryScene,
) -> None:
    shown = await there.endpoint(URL, signatures=("v1", "v1a"))
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (received,) = there.consumers.at(URL)
    (published,) = signing.public_keys(there.runtime, tenant=TENANT)
    key = Ed25519PublicKey.from_public_bytes(published.raw)
    now_s = there.clock() // 1000
    webhook.verify(headers=received.headers, body=received.body, public_keys=[key], now_s=now_s)
    webhook.verify(headers=received.headers, body=received.body, secrets=[shown.secret], now_s=now_s)
    (strangers,) = signing.public_keys(there.runtime, tenant="stranger")
    other = Ed25519PublicKey.from_public_bytes(strangers.raw)
    with pytest.raises(webhook.InvalidSignature):
        webhook.verify(headers=received.headers, body=received.body, public_keys=[other], now_s=now_s)


async def test_a_consumer_that_was_down_for_an_hour_gets_everything_in_job_order(
    there: DeliveryScene,
) -> None:
    await there.endpoint(URL)
    began_ms = there.clock()
    there.consumers.scripts[URL] = lambda _: 500 if there.clock() < began_ms + 3_600_000 else 200
    told = []
    for number in range(40):
        told += await there.tell(f"job_{number}", f"job_{number}b")
        await there.after(120)
    down = [received for received in there.consumers.received if received.at_ms < began_ms + 3_600_000]
    # Three to pause it, and then about one a minute, however much there was to send.
    assert 55 <= len(down) <= 3 + 60
    await there.after(3600)
    taken = [received for received in there.consumers.received if received.at_ms >= began_ms + 3_600_000]
    assert Counter(received.id for received in taken) == Counter(event.id for event in told)
    assert in_job_order(taken)
    assert {each.state for each in await there.deliveries()} == {"succeeded"}


async def test_a_consumer_that_fails_every_third_request_gets_everything_in_job_order(
    there: DeliveryScene,
) -> None:
    await there.endpoint(URL)
    counted = [0]
    taken: list[Received] = []

    def script(received: Received) -> int:
        counted[0] += 1
        if counted[0] % 3 == 0:
            return 503
        taken.append(received)
        return 200

    there.consumers.scripts[URL] = script
    told = await there.tell(*(f"job_{number}" for number in range(30)))
    await there.after(4 * 3600)
    assert Counter(received.id for received in taken) == Counter(event.id for event in told)
    assert in_job_order(taken)


async def test_a_dead_delivery_frees_the_next_of_its_job_and_can_be_retried_by_hand(
    there: DeliveryScene,
) -> None:
    await there.endpoint(URL)
    first, second = await there.tell("job_1", types=["job.accepted", "job.submitted"])
    bad = [first.id]
    there.consumers.scripts[URL] = lambda received: 500 if received.id in bad else 200
    await there.after(60)
    assert second.id not in there.consumers.ids(URL)
    # Others keep the endpoint well meanwhile.
    for _ in range(60):
        await there.tell(f"job_{there.clock()}", types=["job.accepted"])
        await there.after(2 * 3600)
    dead, freed = await there.deliveries(job_id="job_1")
    assert (dead.state, dead.tries, freed.state) == ("dead", 10, "succeeded")
    assert there.consumers.ids(URL).count(first.id) == 10
    assert [each.number for each in await there.tries(dead.id)] == list(range(1, 11))
    bad.clear()
    retried = await delivery_flow.retry(there.runtime, tenant=TENANT, delivery_id=dead.id)
    assert retried.delivery.state == "pending"
    await there.settle()
    assert there.consumers.ids(URL)[-1] == first.id
    (again, _) = await there.deliveries(job_id="job_1")
    assert (again.state, again.tries) == ("succeeded", 11)


async def test_tries_follow_the_schedule_of_the_standard(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    (told,) = await there.tell("job_1", types=["job.accepted"])
    there.consumers.scripts[URL] = lambda received: 500 if received.id == told.id else 200
    wanted_s = [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    for wait_s in wanted_s:
        # Another event succeeds before each try, so that the endpoint is not paused.
        await there.tell(f"job_{there.clock()}", types=["job.accepted"])
        await there.after(wait_s * 1.1 + 1)
    times = [received.at_ms for received in there.consumers.at(URL) if received.id == told.id]
    waits_s = [(after - before) / 1000 for before, after in pairwise(times)]
    assert len(waits_s) == len(wanted_s)
    for waited_s, wait_s in zip(waits_s, wanted_s, strict=True):
        assert wait_s <= waited_s <= wait_s * 1.1 + 1


async def test_every_try_is_kept_with_the_first_of_the_answer(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    await there.tell("job_1", types=["job.accepted"])
    answers = [answered(500, b"no\x00 \xff" + b"x" * 9000), answered(200, b"thanks")]
    there.consumers.scripts[URL] = lambda _: answers.pop(0)
    await there.after(10)
    (delivery,) = await there.deliveries()
    failed, succeeded = await there.tries(delivery.id)
    assert (failed.number, failed.status, failed.error) == (1, 500, None)
    assert failed.answer.startswith("no \ufffdxxx")
    assert len(failed.answer.encode()) <= 4096 + 8
    assert (succeeded.number, succeeded.status, succeeded.answer) == (2, 200, "thanks")
    assert succeeded.at_ms - failed.at_ms >= 5000


async def test_deliveries_of_others_are_not_there_to_see_or_to_retry(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (delivery,) = await there.deliveries()
    for call in (delivery_flow.one, delivery_flow.retry):
        with pytest.raises(NotFound):
            await call(there.runtime, tenant="stranger", delivery_id=delivery.id)
        with pytest.raises(NotFound):
            await call(there.runtime, tenant=TENANT, delivery_id="dlv_none")


async def test_a_job_tells_its_own_url_and_signs_with_the_tenants_job_secret(there: DeliveryScene) -> None:
    await there.endpoint(OTHER)
    job = await there.scene.accept("bfl", webhook_url=URL)
    plain = await there.scene.accept("bfl")
    await there.settle()
    secret = (await signing.rotate_job_secret(there.runtime, tenant=TENANT)).secret
    await there.scene.cancel(job.id)
    await there.scene.cancel(plain.id)
    await there.settle()
    received = there.consumers.at(URL)
    assert [each.event["type"] for each in received] == ["job.accepted", "job.canceled"]
    assert {each.event["job_id"] for each in received} == {job.id}
    assert not verified(received[0], secret)
    assert verified(received[1], secret)
    # The one that was made by itself signs too for a day.
    assert len(received[1].headers["webhook-signature"].split()) == 2
    assert len(there.consumers.at(OTHER)) == 4


async def test_a_new_job_makes_its_own_url_active_again_that_was_gone(there: DeliveryScene) -> None:
    there.consumers.scripts[URL] = lambda _: 410
    first = await there.scene.accept("bfl", webhook_url=URL)
    await there.settle()
    await there.scene.cancel(first.id)
    await there.settle()
    assert len(there.consumers.at(URL)) == 1
    there.consumers.scripts[URL] = lambda _: 200
    second = await there.scene.accept("bfl", webhook_url=URL)
    await there.settle()
    assert there.consumers.at(URL)[-1].event["job_id"] == second.id
    assert len(there.consumers.at(URL)) == 2


async def test_handing_out_goes_on_where_it_was_and_hands_nothing_out_twice(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    await there.endpoint(OTHER, types=("job.succeeded",))
    told = await there.tell(*(f"job_{number}" for number in range(500)))
    assert len(told) > 2 * 500
    await there.hand_out()
    await there.another().hand_out()
    made = await there.deliveries()
    assert len(made) == len(told) + 500
    assert len({(each.event_id, each.endpoint_id) for each in made}) == len(made)
    cursor = await there.runtime.door.read(events.fan_out_cursor)
    assert cursor == max(each.event_seq for each in made)


async def test_racing_processes_hand_each_event_out_exactly_once(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deliveries_of(postgresql_url, tmp_path, monkeypatch) as there:
        shown = await there.endpoint(URL)
        others = [there, there.another(), there.another()]
        telling = True
        told = []

        async def tell() -> None:
            nonlocal telling
            for number in range(60):
                told.extend(await there.tell(f"job_{number}", f"job_{number}b"))
            telling = False

        async def hand_out(each: DeliveryScene) -> None:
            while telling or await each.deliverer.hand_out():
                await each.deliverer.hand_out()
                await asyncio.sleep(0)

        await asyncio.gather(tell(), *(hand_out(each) for each in others))
        await there.hand_out()
        made = await there.deliveries(endpoint_id=shown.endpoint.id)
        assert Counter(each.event_id for each in made) == Counter(event.id for event in told)


@ON_ONE_DATABASE
async def test_a_hand_out_that_fails_leaves_the_cursor_where_it_was(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.endpoint(URL)
    told = await there.tell("job_1")
    with monkeypatch.context() as broken:
        broken.setattr(events, "move_fan_out", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await there.deliverer.hand_out()
    assert await there.deliveries() == []
    await there.settle()
    assert sorted(there.consumers.ids(URL)) == sorted(event.id for event in told)


async def test_no_more_than_its_concurrency_is_on_the_way_to_an_endpoint(there: DeliveryScene) -> None:
    await there.endpoint(URL, concurrency=3)
    await there.tell(*(f"job_{number}" for number in range(40)))

    async def slow(_: Received) -> int:
        await asyncio.sleep(0.002)
        return 200

    there.consumers.scripts[URL] = slow
    await there.settle()
    assert there.consumers.busiest[URL] == 3
    assert len(there.consumers.at(URL)) == 40 * len(LIFE)


async def test_an_endpoint_gets_no_more_a_second_than_its_rate(there: DeliveryScene) -> None:
    await there.endpoint(URL, rate_per_s=2)
    await there.tell(*(f"job_{number}" for number in range(20)), types=["job.accepted"])
    began_ms = there.clock()
    await there.after(4)
    assert 7 <= len(there.consumers.at(URL)) <= 10
    await there.after(20)
    times = [received.at_ms for received in there.consumers.at(URL)]
    assert len(times) == 20
    for place, at_ms in enumerate(times):
        assert at_ms - began_ms >= place * 500 - 60


async def test_a_retry_of_a_disabled_endpoints_delivery_is_a_conflict(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 410
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (delivery,) = await there.deliveries()
    assert delivery.state == "dead"
    with pytest.raises(Conflict):
        await delivery_flow.retry(there.runtime, tenant=TENANT, delivery_id=delivery.id)
