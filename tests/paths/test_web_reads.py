"""Reading jobs: lists with filters and cursors, and waiting for the end."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from service.domain.facts import CancelRequested
from service.flows import pages
from tests.paths.visitors import BFL_JOB, FAL_JOB, House, paths_of, problem, submit


async def walked(visitor: httpx.AsyncClient, url: str, **query: Any) -> list[dict[str, Any]]:
    """Follow a list to its end."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await visitor.get(url, params={**query, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        rows += page.json()["data"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return rows
        assert page.json()["data"]


async def test_a_walk_by_cursor_meets_every_job_once_newest_first(house: House) -> None:
    visitor = await house.visitor()
    made = [await submit(visitor) for _ in range(7)]
    for limit in (1, 3, 7, 8):
        seen = [job["id"] for job in await walked(visitor, "/v1/jobs", limit=limit)]
        assert seen == made[::-1]


async def test_jobs_that_come_during_a_walk_do_not_disturb_it(house: House) -> None:
    visitor = await house.visitor()
    made = [await submit(visitor) for _ in range(4)]
    first = (await visitor.get("/v1/jobs", params={"limit": 2})).json()
    await submit(visitor)
    second = (await visitor.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None


async def test_filters_narrow_the_list(house: House) -> None:
    visitor = await house.visitor()
    fal = await submit(visitor, FAL_JOB, metadata={"order": "7", "a.b": "x"})
    bfl = await submit(visitor, BFL_JOB, metadata={"order": "8"})
    gone = await submit(visitor, BFL_JOB, metadata={"order": "7"})
    await visitor.post(f"/v1/jobs/{gone}/cancel")
    created = (await visitor.get(f"/v1/jobs/{bfl}")).json()["created_at"]

    async def found(**query: str) -> set[str]:
        return {job["id"] for job in await walked(visitor, "/v1/jobs", limit=1, **query)}

    assert await found(state="accepted") == {fal, bfl}
    assert await found(state="canceled,accepted") == {fal, bfl, gone}
    assert await found(provider="fal") == {fal}
    assert await found(model="flux-2-pro") == {bfl, gone}
    assert await found(**{"metadata.order": "7"}) == {fal, gone}
    assert await found(**{"metadata.order": "7", "metadata.a.b": "x"}) == {fal}
    assert await found(**{"metadata.order": "7", "state": "canceled"}) == {gone}
    assert await found(**{"metadata.other": "7"}) == set()
    assert await found(created_after="2020-01-01T00:00:00Z") == {fal, bfl, gone}
    assert await found(created_before="2020-01-01T00:00:00Z") == set()
    assert bfl not in await found(created_after=created)
    assert bfl not in await found(created_before=created)
    assert fal in await found(created_before="2100-01-01T00:00:00.000+05:00")


WRONG_FILTERS = [
    ("stat=accepted", "stat"),
    ("state=done", "state"),
    ("state=", "state"),
    ("state=accepted,", "state"),
    ("state=accepted&state=queued", "state"),
    ("provider=nobody", "provider"),
    ("model=", "model"),
    ("model=a%00b", "model"),
    ("limit=0", "limit"),
    ("limit=201", "limit"),
    ("limit=-1", "limit"),
    ("limit=1.0", "limit"),
    ("limit=%D9%A1", "limit"),
    ("limit=99999999999999999999", "limit"),
    ("cursor=", "cursor"),
    ("cursor=x", "cursor"),
    ("cursor=%FF", "cursor"),
    ("cursor=aGlzdG9yeTox", "cursor"),
    ("created_after=yesterday", "created_after"),
    ("created_after=2026-11-20", "created_after"),
    ("created_after=2026-11-20T12:00:00", "created_after"),
    ("created_before=9999999999", "created_before"),
    ("metadata.=x", "metadata."),
    ("metadata.k=%00", "metadata.k"),
    ("metadata.k%00=v", "metadata.k\0"),
    ("metadata." + "k" * 41 + "=v", "metadata." + "k" * 41),
    ("metadata.k=" + "v" * 501, "metadata.k"),
    ("metadata=x", "metadata"),
    ("wait=1", "wait"),
]


async def test_a_wrong_filter_is_refused_by_its_name(house: House) -> None:
    visitor = await house.visitor()
    for query, path in WRONG_FILTERS:
        assert paths_of(problem(await visitor.get(f"/v1/jobs?{query}"), 422, "invalid_input")) == [path]


async def test_more_parameters_than_anybody_needs_are_refused(house: House) -> None:
    visitor = await house.visitor()
    response = await visitor.get("/v1/jobs?" + "&".join(f"metadata.k{n}=v" for n in range(200)))
    problem(response, 422, "invalid_input")


async def test_a_wait_outside_its_bounds_is_refused(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    for wait in ("61", "-1", "1e1", "nan", "", "60.0001", "١"):
        for url in (f"/v1/jobs/{job_id}", "/v1/events"):
            response = await visitor.get(url, params={"wait": wait})
            assert paths_of(problem(response, 422, "invalid_input")) == ["wait"]


async def test_a_page_of_large_jobs_is_cut_short_and_nothing_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = await house.visitor()
    made = [await submit(visitor, model="m", input={"text": "x" * 1000}) for _ in range(5)]
    monkeypatch.setattr(pages, "PAGE_BYTES", 2_500)
    first = (await visitor.get("/v1/jobs")).json()
    assert len(first["data"]) == 2
    assert first["next_cursor"] is not None
    assert [job["id"] for job in await walked(visitor, "/v1/jobs")] == made[::-1]
    monkeypatch.setattr(pages, "PAGE_BYTES", 1)
    assert [job["id"] for job in await walked(visitor, "/v1/jobs")] == made[::-1]


async def test_a_waiting_reader_hears_of_the_end_at_once(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    started = time.monotonic()
    reading = asyncio.create_task(visitor.get(f"/v1/jobs/{job_id}", params={"wait": "30"}))
    await asyncio.sleep(0.05)
    await house.tell(job_id, CancelRequested(cause="operator"))
    assert (await reading).json()["state"] == "canceled"
    assert time.monotonic() - started < 5


async def test_a_reader_who_waits_in_vain_gets_the_job_as_it_is(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    started = time.monotonic()
    response = await visitor.get(f"/v1/jobs/{job_id}", params={"wait": "0.2"})
    assert response.json()["state"] == "accepted"
    assert 0.15 < time.monotonic() - started < 5


async def test_a_final_job_is_not_waited_for(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    await house.succeeded(job_id)
    started = time.monotonic()
    assert (await visitor.get(f"/v1/jobs/{job_id}?wait=60")).json()["state"] == "succeeded"
    assert time.monotonic() - started < 5


async def test_waiting_ends_when_the_service_stops(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    readings = [
        asyncio.create_task(visitor.get(url, params={"wait": "60"}))
        for url in (f"/v1/jobs/{job_id}", "/v1/events?types=job.failed")
    ]
    await asyncio.sleep(0.05)
    house.service.stop()
    async with asyncio.timeout(5):
        assert [answer.status_code for answer in await asyncio.gather(*readings)] == [200, 200]


async def test_waiting_ends_when_the_caller_goes_away(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    sent: list[str] = []

    async def receive() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    key = visitor.headers["authorization"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/v1/jobs/{job_id}",
        "query_string": b"wait=60",
        "headers": [(b"authorization", key)],
    }
    async with asyncio.timeout(5):
        await house.app(scope, receive, send)
