"""Who holds an endpoint, and what becomes of wake-ups: between processes, within one, and when a clock jumps."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.domain.endpoint import EndpointState
from service.flows import conclude as conclude_flow
from service.flows import deliveries as delivery_flow
from service.flows import endpoints as endpoint_flow
from service.flows import fan_out as fan_out_flow
from service.flows.errors import Conflict, CursorExpired
from service.storage import endpoints, events, retention
from service.storage.database import Tx
from service.storage.postgres import PostgresTx
from tests.paths.delivery_scene import DeliveryScene, Received, deliveries_of
from tests.paths.flow_scene import TENANT

URL = "https://one.example/hook"
HOUR_MS = 3_600_000


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


@pytest.fixture
async def shared(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(postgresql_url, tmp_path, monkeypatch) as there:
        yield there


class Held:
    """A consumer that keeps its first request until it is let go."""

    def __init__(self, there: DeliveryScene) -> None:
        self._there = there
        self._go_on = asyncio.Event()
        there.consumers.scripts[URL] = self._wait

    async def _wait(self, _: Received) -> int:
        self._there.consumers.scripts.pop(URL, None)
        await self._go_on.wait()
        return 200

    async def reached(self) -> None:
        while not self._there.consumers.received:
            await asyncio.sleep(0.005)

    def let_go(self) -> None:
        self._go_on.set()


async def _row(there: DeliveryScene) -> dict[str, Any]:
    (row,) = await there.scene.table("endpoint")
    return row


async def test_what_is_just_being_given_back_is_not_released_by_a_renewal(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await there.endpoint(URL)
    await there.tell("job_1", types=["job.accepted"])
    giving, go_on = asyncio.Event(), asyncio.Event()
    real = there.deliverer._give_back

    async def slowly(drain: Any) -> None:
        giving.set()
        await go_on.wait()
        await real(drain)

    monkeypatch.setattr(there.deliverer, "_give_back", slowly)
    await there.hand_out()
    await there.deliverer.turn()
    await giving.wait()
    there.clock.go(6)
    await there.deliverer.turn()
    # Else it would be claimed again, and given back under the hands of who sends to it then.
    assert (await _row(there))["claim"] == there.runtime.process_id
    go_on.set()
    await there.settle()
    assert (await _row(there))["claim"] is None


async def test_who_claims_again_what_it_still_sends_to_goes_on_alone(there: DeliveryScene) -> None:
    shown = await there.endpoint(URL)
    await there.tell("job_1")
    held = Held(there)
    await there.hand_out()
    await there.deliverer.turn()
    await held.reached()
    mine = there.runtime.process_id
    await there.runtime.door.write(lambda tx: endpoints.release(tx, [shown.endpoint.id], mine=mine))
    again = Held(there)
    await there.deliverer.turn()
    while len(there.consumers.received) < 2:
        await asyncio.sleep(0.005)
    held.let_go()
    while len(there.deliverer._tasks) > 1:
        await asyncio.sleep(0.005)
    assert (await _row(there))["claim"] == mine
    again.let_go()
    await there.settle()
    assert [each.state for each in await there.deliveries()] == ["succeeded"] * 3


async def test_a_clock_that_is_set_back_keeps_what_is_held(
    shared: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = [shared.clock()]
    monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: database[0])
    await shared.endpoint(URL)
    await shared.tell("job_1", types=["job.accepted"])
    held = Held(shared)
    await shared.hand_out()
    await shared.deliverer.turn()
    await held.reached()
    shared.clock.now_ms -= HOUR_MS
    database[0] += 10_000
    await shared.deliverer.turn()
    assert (await _row(shared))["due_ms"] == database[0] + 15_000
    held.let_go()
    await shared.settle()


async def test_a_clock_that_is_set_back_delays_nothing(
    shared: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = [shared.clock()]
    monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: database[0])
    await shared.endpoint(URL)
    shared.consumers.scripts[URL] = lambda _: 500
    await shared.tell("job_1", types=["job.accepted"])
    await shared.settle()
    shared.clock.now_ms -= HOUR_MS
    database[0] += 10_000
    await shared.settle()
    assert len(shared.consumers.received) == 2


async def test_a_hand_out_that_stands_still_before_its_end_loses_no_wake_up(
    shared: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.endpoint(URL)
    await shared.tell("job_1", types=["job.accepted"])
    await shared.hand_out()
    (second,) = await shared.tell("job_2", types=["job.accepted"])
    moving, go_on = threading.Event(), threading.Event()
    real = events.move_fan_out

    def slowly(tx: Tx, seq: int) -> None:
        real(tx, seq)
        moving.set()
        assert go_on.wait(10)

    monkeypatch.setattr(fan_out_flow.events, "move_fan_out", slowly)
    handing = asyncio.create_task(shared.deliverer.hand_out())
    await asyncio.to_thread(moving.wait, 10)
    other = shared.another()
    while (await _row(shared))["due_ms"] is not None:
        await other.deliverer.turn()
        while other.deliverer._tasks:
            await asyncio.wait(other.deliverer._tasks)
        shared.clock.go(1)
    go_on.set()
    await handing
    await other.deliverer.turn()
    while other.deliverer._tasks:
        await asyncio.wait(other.deliverer._tasks)
    assert shared.consumers.ids(URL)[-1] == second.id


async def test_who_disables_waits_for_the_fan_out_though_he_did_not_foresee_it(
    shared: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await shared.endpoint(URL)
    shared.consumers.scripts[URL] = lambda _: 410
    await shared.tell("job_1", types=["job.accepted"])
    await shared.hand_out()
    monkeypatch.setattr(conclude_flow.Conclude, "_hold_before_disabling", lambda *_: None)
    holding, go_on = threading.Event(), threading.Event()

    def hold(tx: Tx) -> None:
        events.hold_fan_out(tx)
        holding.set()
        assert go_on.wait(10)

    held = asyncio.create_task(shared.runtime.door.write(hold))
    await asyncio.to_thread(holding.wait, 10)
    await shared.deliverer.turn()
    await asyncio.sleep(0.3)
    assert (await shared.state(shown)).state is EndpointState.ACTIVE
    go_on.set()
    await held
    while shared.deliverer._tasks:
        await asyncio.wait(shared.deliverer._tasks)
    assert (await shared.state(shown)).state is EndpointState.DISABLED


async def test_what_is_just_being_pruned_can_be_sent_again_no_more(shared: DeliveryScene) -> None:
    """Else it would wait for good: its event would be gone."""
    shown = await shared.endpoint(URL)
    await shared.tell("job_1", types=["job.accepted"])
    await shared.settle()
    (delivery,) = await shared.deliveries()
    pruning, go_on = threading.Event(), threading.Event()

    def prune(tx: Tx) -> int:
        gone = retention.prune_events(tx, before_ms=shared.clock() + 1, most=10)
        pruning.set()
        assert go_on.wait(10)
        return gone

    pruned = asyncio.create_task(shared.runtime.door.write(prune))
    await asyncio.to_thread(pruning.wait, 10)
    asked = [
        asyncio.create_task(delivery_flow.retry(shared.runtime, tenant=TENANT, delivery_id=delivery.id)),
        asyncio.create_task(
            endpoint_flow.replay(shared.runtime, tenant=TENANT, endpoint_id=shown.endpoint.id, after=0)
        ),
    ]
    await asyncio.wait(asked, timeout=0.3)
    go_on.set()
    assert await pruned == 1
    with pytest.raises(Conflict):
        await asked[0]
    with pytest.raises(CursorExpired):
        await asked[1]
