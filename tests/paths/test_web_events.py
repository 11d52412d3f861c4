"""The feed: exact, in order, without gaps, and patient."""

import asyncio
import time
from typing import Any

import httpx

from service.flows.announce import announce
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
    await announce(house.service.runtime)
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
    await announce(house.service.runtime)
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
    await announce(house.service.runtime)
    events, end = await follow(visitor, types="job.failed,job.accepted", after=start["next_cursor"])
    assert [event["type"] for event in events] == ["job.accepted", "job.failed"]
    assert (await visitor.get("/v1/events", params={"after": end})).json() == {"data": [], "next_cursor": end}


async def test_a_patient_reader_gets_the_next_event_soon(house: House) -> None:
    visitor = await house.visitor()
    started = time.monotonic()
    reading = asyncio.create_task(visitor.get("/v1/events", params={"wait": "30"}))
    await asyncio.sleep(0.05)
    await submit(visitor)
    await announce(house.service.runtime)
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


async def test_the_stream_is_not_there_yet(house: House) -> None:
    visitor = await house.visitor()
    for url in ("/v1/events/stream", "/v1/endpoints", "/v1/deliveries", "/v1/job-webhook-secret/rotate"):
        problem(await visitor.get(url), 404, "not_found")
        problem(await visitor.post(url, json={}), 404, "not_found")
