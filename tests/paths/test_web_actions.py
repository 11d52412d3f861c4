"""Canceling and retrying."""

import asyncio

import pytest

from service.domain.facts import CancelRequested, DeadlinePassed
from tests.paths.visitors import BFL_JOB, House, paths_of, problem, submit


async def test_an_open_job_is_canceled_by_its_caller(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    response = await visitor.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 200
    job = response.json()
    assert (job["state"], job["learned_by"], job["error"]["code"]) == ("canceled", "operator", "canceled")
    assert job == (await visitor.get(f"/v1/jobs/{job_id}")).json()
    history = (await visitor.get(f"/v1/jobs/{job_id}/history")).json()["data"]
    assert history[-1]["cause"].startswith("api:key_")


async def test_a_final_job_cannot_be_canceled(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    await house.succeeded(job_id)
    document = problem(await visitor.post(f"/v1/jobs/{job_id}/cancel"), 409, "conflict")
    assert "succeeded" in document["detail"]
    assert (await house.job(job_id)).state == "succeeded"


async def test_of_two_cancels_at_once_one_wins(house: House) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    answers = await asyncio.gather(*(visitor.post(f"/v1/jobs/{job_id}/cancel") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_a_failed_job_is_retried_as_a_new_one_once(house: House) -> None:
    visitor = await house.visitor()
    old = await submit(visitor, metadata={"order": "7"}, deadline_s=60, priority="low")
    await house.failed(old)
    first = await visitor.post(f"/v1/jobs/{old}/retry")
    assert first.status_code == 202
    job = first.json()
    assert first.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["retry_of"], job["state"], job["input"]) == (old, "accepted", BFL_JOB["input"])
    assert (job["metadata"], job["deadline_s"], job["priority"]) == ({"order": "7"}, 60, "low")
    again = await visitor.post(f"/v1/jobs/{old}/retry")
    assert (again.status_code, again.json()) == (200, job)
    assert (await house.rows())["job"] == 2


async def test_of_many_retries_at_once_one_makes_the_job(house: House) -> None:
    visitor = await house.visitor()
    old = await submit(visitor)
    await house.tell(old, DeadlinePassed(cause="clock"))
    answers = await asyncio.gather(*(visitor.post(f"/v1/jobs/{old}/retry") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize("state", ["accepted", "canceled", "succeeded"])
async def test_other_jobs_cannot_be_retried(house: House, state: str) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    if state == "canceled":
        await house.tell(job_id, CancelRequested(cause="operator"))
    elif state == "succeeded":
        await house.succeeded(job_id)
    problem(await visitor.post(f"/v1/jobs/{job_id}/retry"), 409, "conflict")
    assert (await house.rows())["job"] == 1


@pytest.mark.parametrize("call", ["cancel", "retry"])
async def test_a_call_without_fields_refuses_fields(house: House, call: str) -> None:
    visitor = await house.visitor()
    job_id = await submit(visitor)
    url = f"/v1/jobs/{job_id}/{call}"
    response = await visitor.post(url, json={"reason": "x"})
    assert paths_of(problem(response, 422, "invalid_input")) == ["reason"]
    problem(await visitor.post(url, content=b"x=1"), 415, "unsupported_media_type")
    problem(await visitor.post(url, content=b"x" * 100_000), 413, "too_large")
    assert (await house.job(job_id)).state == "accepted"


async def test_an_empty_object_or_a_type_without_a_body_is_no_field(house: House) -> None:
    visitor = await house.visitor()
    one, other = await submit(visitor), await submit(visitor)
    assert (await visitor.post(f"/v1/jobs/{one}/cancel", json={})).status_code == 200
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await visitor.post(f"/v1/jobs/{other}/cancel", headers=form)).status_code == 200
