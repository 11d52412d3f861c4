"""Deliveries when things go wrong: dead, slow, gone and forbidding consumers, and our own process dying."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from service.domain.endpoint import EndpointState
from service.domain.secrets import KeyRing
from service.egress import Kind, Unreachable, UrlRefused
from service.flows import deliverer as deliverer_flow
from service.flows import endpoints as endpoint_flow
from service.storage import endpoints
from service.storage.postgres import PostgresTx
from tests.paths.delivery_scene import DeliveryScene, Received, answered, deliveries_of, in_job_order
from tests.paths.flow_scene import ON_ONE_DATABASE, TENANT, Outage

URL = "https://one.example/hook"
OTHER = "https://two.example/hook"
MINUTE_MS = 60_000


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def test_three_failures_in_a_row_pause_and_nothing_else_counts_as_tried(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: Unreachable(Kind.CONNECT, "Nobody is there.")
    await there.tell(*(f"job_{number}" for number in range(20)))
    await there.settle()
    assert (await there.state(shown)).state is EndpointState.PAUSED
    assert len(there.consumers.received) == 3
    tried = [each for each in await there.deliveries() if each.tries]
    assert len(tried) == 3
    assert {each.error for each in tried} == {"connect: Nobody is there."}


async def test_a_paused_endpoint_gets_one_probe_a_minute(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 500
    for number in range(30):
        await there.tell(f"job_{number}", f"job_{number}b")
        await there.after(30)
    times = [received.at_ms for received in there.consumers.received]
    for before, after in pairwise(times[2:]):
        assert after - before >= MINUTE_MS
    assert 12 <= len(times) <= 3 + 15
    assert (await there.state(shown)).state is EndpointState.PAUSED
    assert sum(each.tries for each in await there.deliveries()) == len(times)


async def test_after_recovery_all_goes_out_in_order_and_slowly_at_first(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, concurrency=32)
    well = [False]
    widths: list[int] = []

    async def script(_: Received) -> int:
        widths.append(there.consumers.busy[URL])
        await asyncio.sleep(0.002)
        return 200 if well[0] else 500

    there.consumers.scripts[URL] = script
    told = await there.tell(*(f"job_{number}" for number in range(60)))
    await there.after(10 * 60)
    well[0] = True
    widths.clear()
    failed = len(there.consumers.received)
    await there.after(2 * 60)
    taken = there.consumers.received[failed:]
    assert Counter(received.id for received in taken) == Counter(event.id for event in told)
    assert in_job_order(taken)
    assert widths[0] == 1
    assert max(widths[:3]) <= 2
    assert max(widths[:7]) <= 4
    assert max(widths) > 8
    assert (await there.state(shown)).state is EndpointState.ACTIVE


async def test_a_dead_endpoint_holds_up_no_other(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    await there.endpoint(OTHER)
    released = asyncio.Event()

    async def hang(_: Received) -> int:
        await released.wait()
        return 500

    there.consumers.scripts[URL] = hang
    told = await there.tell(*(f"job_{number}" for number in range(30)))
    await there.hand_out()
    await there.deliverer.turn()
    async with asyncio.timeout(10):
        while len(there.consumers.at(OTHER)) < len(told):
            await asyncio.sleep(0.01)
    assert len(there.consumers.at(URL)) <= 2
    released.set()
    await there.settle()


async def test_many_slow_endpoints_leave_room_for_others(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More endpoints than one process sends to at once: who has had its time makes room."""
    monkeypatch.setattr(deliverer_flow, "_MOST_ENDPOINTS", 4)
    slow = [f"https://slow{number}.example/" for number in range(4)]

    async def late(_: Received) -> int:
        there.clock.go(0.5)
        await asyncio.sleep(0.001)
        return 200

    for url in slow:
        await there.endpoint(url)
        there.consumers.scripts[url] = late
    for number in range(30):
        await there.tell(f"job_{number}")
    await there.hand_out()
    await there.deliverer.turn()
    await there.endpoint(OTHER)
    (last,) = await there.tell("job_last", types=["job.accepted"])
    async with asyncio.timeout(20):
        while last.id not in there.consumers.ids(OTHER):
            await there.hand_out()
            await there.deliverer.turn()
            await asyncio.sleep(0.005)
    assert any(len(there.consumers.at(url)) < 91 for url in slow)
    await there.settle()
    assert all(len(set(there.consumers.ids(url))) == 91 for url in slow)


async def test_gone_disables_and_tells_the_tenants_other_endpoints_only(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.endpoint(OTHER)
    await there.endpoint("https://few.example/", types=("job.succeeded",))
    there.consumers.scripts[URL] = lambda _: 410
    await there.tell("job_1", "job_2", types=["job.accepted"])
    await there.settle()
    gone = await there.state(shown)
    assert (gone.state, gone.disabled_reason) == (EndpointState.DISABLED, "gone")
    told = [each.event for each in there.consumers.at(OTHER) if each.event["type"] == "endpoint.disabled"]
    assert [event["job_id"] for event in told] == [None]
    assert told[0]["data"]["id"] == gone.id
    assert "secret" not in told[0]["data"]
    assert there.consumers.at("https://few.example/") == []
    assert "endpoint.disabled" not in [each.event["type"] for each in there.consumers.at(URL)]
    states = {each.state for each in await there.deliveries(endpoint_id=gone.id)}
    assert states == {"dead"}
    before = len(there.consumers.at(URL))
    await there.tell("job_3")
    await there.after(3600)
    assert len(there.consumers.at(URL)) == before


async def test_five_days_of_failure_disable(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 500
    for day in range(6):
        await there.tell(*(f"job_{day}_{number}" for number in range(2)))
        await there.after(86_400)
        state = (await there.state(shown)).state
        assert state is (EndpointState.PAUSED if day < 5 else EndpointState.DISABLED)
    assert (await there.state(shown)).disabled_reason == "failing"
    assert {each.state for each in await there.deliveries()} == {"dead"}


async def test_retry_after_is_honoured(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    answers = [answered(503, retry_after="90"), answered(200)]
    there.consumers.scripts[URL] = lambda _: answers.pop(0)
    await there.tell("job_1", types=["job.accepted"])
    await there.after(89)
    assert len(there.consumers.received) == 1
    await there.after(10)
    assert len(there.consumers.received) == 2


async def test_an_endpoint_that_says_too_many_is_left_alone_for_so_long(there: DeliveryScene) -> None:
    await there.endpoint(URL, concurrency=1)
    limited = [True]
    there.consumers.scripts[URL] = lambda _: answered(429, retry_after="30") if limited[0] else 200
    told = await there.tell(*(f"job_{number}" for number in range(10)), types=["job.accepted"])
    await there.settle()
    tried = len(there.consumers.received)
    assert tried <= 2
    limited[0] = False
    await there.after(29)
    assert len(there.consumers.received) == tried
    await there.after(60)
    assert set(there.consumers.ids(URL)) == {event.id for event in told}


@ON_ONE_DATABASE
@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500])
async def test_everything_but_success_is_a_failure(there: DeliveryScene, status: int) -> None:
    await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: answered(status, location=OTHER)
    await there.tell("job_1", types=["job.accepted"])
    await there.settle()
    (delivery,) = await there.deliveries()
    assert (delivery.state, delivery.tries, delivery.status) == ("pending", 1, status)
    assert there.consumers.at(OTHER) == []
    there.consumers.scripts[URL] = lambda _: 201
    await there.after(6)
    (delivery,) = await there.deliveries()
    assert delivery.state == "succeeded"


async def test_a_url_that_leads_inside_is_dead_at_once(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: UrlRefused("must not lead to an address that is private")
    (told,) = await there.tell("job_1", types=["job.accepted"])
    await there.after(60)
    (delivery,) = await there.deliveries()
    assert (delivery.state, delivery.tries) == ("dead", 1)
    assert delivery.error == "The URL must not lead to an address that is private."
    assert there.consumers.ids(URL) == [told.id]


async def test_a_deliverer_that_dies_behind_the_sending_sends_again_and_loses_nothing(
    there: DeliveryScene,
) -> None:
    await there.endpoint(URL)
    told = await there.tell("job_1", "job_2")
    sent = asyncio.Event()

    async def never(_: object, __: object) -> None:
        sent.set()
        await asyncio.sleep(3600)

    there.deliverer._conclude = never  # type: ignore[assignment]
    await there.hand_out()
    await there.deliverer.turn()
    await sent.wait()
    # As a killed process would: nothing is recorded, nothing given back.
    for task in list(there.deliverer._tasks):
        task.cancel()
    await asyncio.gather(*there.deliverer._tasks, return_exceptions=True)
    lost = Counter(there.consumers.ids(URL))
    assert lost
    other = there.another()
    await other.settle()
    assert Counter(there.consumers.ids(URL)) == lost
    await other.after(16)
    counted = Counter(there.consumers.ids(URL))
    assert set(counted) == {event.id for event in told}
    assert all(counted[event_id] == 2 for event_id in lost)
    assert in_job_order(there.consumers.at(URL))


async def test_a_process_that_lost_its_lease_leaves_the_endpoint_to_who_has_it(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    held = asyncio.Event()

    async def wait(_: Received) -> int:
        await held.wait()
        return 200

    there.consumers.scripts[URL] = wait
    told = await there.tell("job_1", types=["job.accepted", "job.submitted", "job.succeeded"])
    await there.hand_out()
    await there.deliverer.turn()
    while not there.consumers.received:
        await asyncio.sleep(0.005)
    there.consumers.scripts[URL] = lambda _: 200
    there.clock.go(16)
    other = there.another()
    await other.deliverer.turn()
    assert list(other.deliverer._drains)
    await there.deliverer.turn()
    held.set()
    await there.settle()
    await other.settle()
    counted = Counter(there.consumers.ids(URL))
    assert set(counted) == {event.id for event in told}
    assert max(counted.values()) <= 2
    assert in_job_order(there.consumers.received)
    assert [each.tries for each in await there.deliveries()] == [1, 1, 1]


async def test_what_a_lost_answer_had_claimed_is_given_back(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.tell("job_1")
    await there.hand_out()
    mine = there.runtime.process_id
    claimed = await there.runtime.door.write(
        lambda tx: endpoints.claim(tx, mine=mine, lease_ms=15_000, most=5)
    )
    assert [each.id for each in claimed] == [shown.endpoint.id]
    await there.after(6)
    assert len(there.consumers.received) == 3


async def test_an_outage_of_the_database_behind_the_sending_records_late_and_sends_once(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.endpoint(URL)
    outage = Outage(there.scene, monkeypatch)

    async def cut_off(_: Received) -> int:
        outage.gone = True
        return 200

    there.consumers.scripts[URL] = cut_off
    (told,) = await there.tell("job_1", types=["job.accepted"])
    await there.hand_out()
    await there.deliverer.turn()
    while not outage.refused:
        await asyncio.sleep(0.005)
    outage.gone = False
    there.consumers.scripts[URL] = lambda _: 200
    await there.after(20)
    assert there.consumers.ids(URL) == [told.id]
    (delivery,) = await there.deliveries()
    assert (delivery.state, delivery.tries) == ("succeeded", 1)


async def test_without_the_key_of_its_secret_nothing_leaves_and_nothing_is_lost(there: DeliveryScene) -> None:
    await there.endpoint(URL)
    (told,) = await there.tell("job_1", types=["job.accepted"])
    strange = DeliveryScene(there.scene.changed(keys=KeyRing([b"k" * 32])), there.consumers)
    await strange.after(90)
    assert there.consumers.received == []
    (delivery,) = await there.deliveries()
    assert (delivery.state, delivery.tries) == ("pending", 0)
    await there.after(31)
    assert there.consumers.ids(URL) == [told.id]


async def test_a_change_by_a_caller_counts_for_what_is_still_to_be_sent(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    there.consumers.scripts[URL] = lambda _: 500
    told = await there.tell("job_1")
    await there.settle()
    await endpoint_flow.change(
        there.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, changes={"url": OTHER}
    )
    await there.after(120)
    assert there.consumers.ids(OTHER) == [event.id for event in told]


async def test_an_endpoint_that_is_disabled_while_it_is_sent_to_gets_no_more(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, concurrency=1)
    told = await there.tell(*(f"job_{number}" for number in range(10)), types=["job.accepted"])

    async def disable(_: Received) -> int:
        await endpoint_flow.change(
            there.runtime,
            tenant=TENANT,
            endpoint_id=shown.endpoint.id,
            changes={"state": EndpointState.DISABLED},
        )
        return 200

    there.consumers.scripts[URL] = disable
    await there.settle()
    assert there.consumers.ids(URL) == [told[0].id]
    states = Counter(each.state for each in await there.deliveries())
    # What was on its way arrived, and is known to have.
    assert states == {"succeeded": 1, "dead": 9}


async def test_a_stop_lets_what_is_on_its_way_finish_and_gives_the_rest_back(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL, concurrency=1)
    told = await there.tell(*(f"job_{number}" for number in range(5)), types=["job.accepted"])
    begun = asyncio.Event()

    async def slow(_: Received) -> int:
        begun.set()
        await asyncio.sleep(0.05)
        return 200

    there.consumers.scripts[URL] = slow
    there.deliverer.start()
    await begun.wait()
    await there.deliverer.stop()
    assert len(there.consumers.received) == 1
    assert Counter(each.state for each in await there.deliveries()) == {"succeeded": 1, "pending": 4}
    assert (await there.state(shown)).due_ms == there.clock()
    there.consumers.scripts[URL] = lambda _: 200
    await there.another().settle()
    assert there.consumers.ids(URL) == [event.id for event in told]


async def test_a_stop_cuts_off_what_does_not_end_and_another_sends_it_again(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer_flow, "FINISH_S", 0.1)
    await there.endpoint(URL)
    (told,) = await there.tell("job_1", types=["job.accepted"])
    begun = asyncio.Event()

    async def hang(_: Received) -> int:
        begun.set()
        await asyncio.sleep(3600)
        return 200

    there.consumers.scripts[URL] = hang
    there.deliverer.start()
    await begun.wait()
    await there.deliverer.stop()
    there.consumers.scripts[URL] = lambda _: 200
    await there.another().settle()
    assert there.consumers.ids(URL) == [told.id, told.id]


async def test_a_clock_of_the_database_behind_ours_does_not_keep_the_deliverer_spinning(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deliveries_of(postgresql_url, tmp_path, monkeypatch) as there:
        monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: there.clock() - 30_000)
        await there.endpoint(URL)
        there.consumers.scripts[URL] = lambda _: 500
        await there.tell("job_1", types=["job.accepted"])
        slow = DeliveryScene(there.scene.changed(sleep=asyncio.sleep), there.consumers)
        counted = [0]
        driver = there.runtime.door._driver
        for name in ("read", "write"):
            real = getattr(driver, name)

            def run(asked: object, real: object = real) -> object:
                counted[0] += 1
                return real(asked)  # type: ignore[operator]

            monkeypatch.setattr(driver, name, run)
        slow.deliverer.start()
        await asyncio.sleep(1.5)
        await slow.deliverer.stop()
        assert len(there.consumers.received) == 1
        assert counted[0] < 60
