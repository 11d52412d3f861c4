"""Endpoints have an end: a tenant has at most so many, however many callers make them at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.flows import endpoints as flow
from service.flows.endpoints import Shown, Wanted
from service.flows.errors import Conflict
from tests.paths.delivery_scene import DeliveryScene, deliveries_of
from tests.paths.flow_scene import TENANT

URL = "https://one.example/hook"


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def test_a_tenant_has_at_most_a_hundred_endpoints(there: DeliveryScene) -> None:
    made = [await there.endpoint(URL) for _ in range(99)]
    await there.scene.accept("bfl", webhook_url=URL)
    await there.settle()
    made.append(await there.endpoint(URL))
    with pytest.raises(Conflict, match="100 endpoints"):
        await there.endpoint(URL)
    await flow.create(there.runtime, tenant="another", wanted=Wanted(url=URL))
    await flow.remove(there.runtime, tenant=TENANT, endpoint_id=made[7].endpoint.id)
    await there.endpoint(URL)
    with pytest.raises(Conflict):
        await there.endpoint(URL)


async def test_callers_at_the_same_time_do_not_pass_the_limit(
    there: DeliveryScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MOST_ENDPOINTS", 5)
    answers = await asyncio.gather(*(there.endpoint(URL) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, Shown) for answer in answers) == 5
    assert sum(isinstance(answer, Conflict) for answer in answers) == 15
    assert len(await there.scene.table("endpoint")) == 5
