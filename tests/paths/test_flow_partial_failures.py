"""A consumer that fails for some events alone: they keep their schedule, and the others do not wait for them."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.paths.delivery_scene import DeliveryScene, Received, deliveries_of

URL = "https://one.example/hook"
MINUTE_S, HOUR_S = 60, 3_600


@pytest.fixture
async def there(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeliveryScene]:
    async with deliveries_of(database_url, tmp_path, monkeypatch) as there:
        yield there


async def test_events_that_a_consumer_cannot_take_keep_their_schedule(there: DeliveryScene) -> None:
    def refuses_some(received: Received) -> int:
        return 500 if received.event["job_id"].startswith("bad") else 200

    await there.endpoint(URL)
    there.consumers.scripts[URL] = refuses_some
    await there.tell(*(f"bad_{number}" for number in range(4)), types=["job.accepted"])
    for number in range(60):
        await there.tell(f"good_{number}", types=["job.accepted"])
        await there.after(MINUTE_S / 2)
    found = await there.deliveries()
    bad = [each for each in found if each.job_id is not None and each.job_id.startswith("bad")]
    assert [each.state for each in bad] == ["pending"] * 4
    # At once, after 5 s and after 5 minutes, the next one after 30 more; and a pause is not one more try each.
    assert max(each.tries for each in bad) <= 5
    waits = Counter(each.state for each in found if each not in bad)
    assert waits["pending"] <= 3
    there.consumers.scripts[URL] = lambda _: 200
    await there.after(3 * HOUR_S)
    assert {each.state for each in await there.deliveries()} == {"succeeded"}
