"""The feed: exact, in order, without gaps, and patient."""

import asyncio
import time
from typing import Any

import httpx

from service.domain.cursors import cursor
from service.storage import retention
from service.storage.database import Tx
from tests.paths.visitors import House, paths_of, problem, submit


async def follow(
    visitor: httpx.AsyncClient, *, after: str | None = None, **query: Any
) -> tuple[list[Any], str]:
    """Read from a cursor until there is nothing new."""
    seen: list[Any] = []
    while True:
        params = {**query, **({"after": after} if after else {})}
        page = (await visitor.get("/v1/events", params=params)).json()
        after = page["next_cursor"]
        assert after
        if not page["data"]:
            return seen, after
        seen += page["data"]


async def test_a_reader_meets_every_event_once_and_in_order(house: House) -> None:
    visitor = await house.visitor()
    jobs = [await submit(visitor) for _ in range(4)]
    for job_id in jobs:
        await house.succeeded(job_id)
    for limit in (1, 5, 200):
        events, _ = await follow(visitor, limit=limit)
        assert len(events) == 12
        assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
        for job_id in jobs:
            own = [(event["job_seq"], event["type"]) for event in events if event["job_id"] == job_id]
            assert own == [(1, "job.accepted"), (2, "job.submitted"), (3, "job.succeeded")]


async def test_an_event_shows_the_job_as_it_was_without_its_input(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    accepted = (await visitor.get(f"/v1/jobs/{job_id}")).json()
    await house.succeeded(job_id)
    events, _ = await follow(visitor)
    first = events[0]
    assert set(first) == {"id", "object", "seq", "type", "timestamp", "job_id", "job_seq", "data"}
    assert (first["object"], first["job_id"]) == ("event", job_id)
    assert first["id"].startswith("evt_")
    del accepted["input"]
    assert first["data"] == accepted
    assert "raw" not in events[-1]["data"]["output"]


async def test_types_choose_and_an_empty_page_says_where_to_go_on(house: House) -> None:
    visitor = await house.visitor()
    start = (await visitor.get("/v1/events")).json()
    assert start["data"] == []
    assert start["next_cursor"]
    await house.failed(await submit(visitor))
    events, end = await follow(visitor, types="job.failed,job.accepted", after=start["next_cursor"])
    assert [event["type"] for event in events] == ["job.accepted", "job.failed"]
    assert (await visitor.get("/v1/events", params={"after": end})).json() == {"data": [], "next_cursor": end}


async def test_a_patient_reader_gets_the_next_event_soon(house: House) -> None:
    visitor = await house.visitor()
    started = time.monotonic()
    reading = asyncio.create_task(visitor.get("/v1/events", params={"wait": "30"}))
    await asyncio.sleep(0.05)
    await submit(visitor)
    assert [event["type"] for event in (await reading).json()["data"]] == ["job.accepted"]
    assert time.monotonic() - started < 5


WRONG_QUESTIONS = [
    ("after=1", "after"),
    ("after=", "after"),
    ("after=ZXZlbnRzOi0x", "after"),
    ("after=ZXZlbnRzOjAx", "after"),
    ("after=am9iczpqb2JfMQ", "after"),
    ("after=ZXZlbnRzOjk5OTk5OTk5OTk5OTk5OTk5OTk5", "after"),
    ("after=ZXZlbnRzOjB=", "after"),
    ("types=job.done", "types"),
    ("types=", "types"),
    ("cursor=ZXZlbnRzOjA", "cursor"),
    ("limit=500", "limit"),
]


async def test_a_wrong_question_to_the_feed_is_refused_by_its_name(house: House) -> None:
    visitor = await house.visitor()
    for query, path in WRONG_QUESTIONS:
        assert paths_of(problem(await visitor.get(f"/v1/events?{query}"), 422, "invalid_input")) == [path]


async def test_a_quiet_tenant_goes_on_behind_what_others_did(house: House) -> None:
    visitor, other = await house.visitor(), await house.visitor(tenant="other")
    for _ in range(3):
        await submit(other)
    page = (await visitor.get("/v1/events")).json()
    assert page == {"data": [], "next_cursor": cursor("events", 3)}
    assert (await visitor.get("/v1/events", params={"after": page["next_cursor"]})).json() == page
    job_id = await submit(visitor)
    following = (await visitor.get("/v1/events", params={"after": page["next_cursor"]})).json()
    assert [event["job_id"] for event in following["data"]] == [job_id]


async def test_an_expired_cursor_is_answered_with_the_oldest_one(house: House) -> None:
    visitor, other = await house.visitor(), await house.visitor(tenant="other")
    quiet = await submit(other)
    for _ in range(5):
        await submit(visitor)
    await pruned(house, 4)
    for query in ("", "&types=job.failed", "&limit=1", "&wait=1"):
        answer = await visitor.get(f"/v1/events?after={cursor('events', 2)}{query}")
        document = answer.json()
        assert (answer.status_code, document["code"], document["status"]) == (410, "cursor_expired", 410)
        assert document["oldest_cursor"] == cursor("events", 4)
        assert "oldest_cursor" in document["detail"]
    events, _ = await follow(visitor, after=document["oldest_cursor"], limit=1)
    assert [event["seq"] for event in events] == [5, 6]
    assert (await follow(visitor))[0] == events, "without a cursor: from the oldest that is kept"
    events, _ = await follow(other, after=cursor("events", 1))
    assert events == [], f"nothing behind {quiet} is gone for this tenant"
    assert (await other.get(f"/v1/events?after={cursor('events', 0)}")).status_code == 410


async def test_an_empty_page_after_a_pruning_leads_on(house: House) -> None:
    visitor = await house.visitor()
    await submit(visitor)
    await pruned(house, 1)
    page = (await visitor.get("/v1/events")).json()
    assert page["data"] == []
    again = await visitor.get("/v1/events", params={"after": page["next_cursor"]})
    assert (again.status_code, again.json()) == (200, page)


async def pruned(house: House, seq: int) -> None:
    """Prune every event up to a number."""

    def work(tx: Tx) -> None:
        tx.run_many(retention._NOTE, [{"name": retention.FAN_OUT, "value": seq}])
        retention.prune_events(tx, before_ms=house.service.runtime.now_ms() + 1, most=1000)

    await house.service.runtime.door.write(work)
