"""Result files: kept with what they are, asked for anew when a URL is dead, and said to be gone when they are."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.effects import Work
from service.domain.job import Job
from service.domain.states import JobState
from service.flows import fetch
from service.flows.work import DUTIES
from tests.paths.flow_providers import PNG, Answer, Taken, said
from tests.paths.flow_scene import ON_ONE_DATABASE, Outage, Scene, scene_of


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with scene_of(database_url, tmp_path, monkeypatch) as scene:
        yield scene


def url_of(taken: Taken, place: int = 0) -> str:
    url: str = taken.result["images"][place]["url"]
    return url


async def succeeded(scene: Scene, *, files: int = 1, **changes: Any) -> tuple[Job, Taken]:
    """A job that has just succeeded; its files are not fetched yet."""
    job, taken = await scene.submitted("fal", **changes)
    scene.fal.succeed(taken, files=files)
    await scene.fal_calls(taken)
    return await scene.job(job.id), taken


async def images(scene: Scene, job: Job) -> Any:
    output = (await scene.job(job.id)).output
    assert output is not None
    return output.images


async def test_files_are_kept_with_digest_size_and_type_and_that_is_an_event(scene: Scene) -> None:
    job, taken = await succeeded(scene, files=3)
    await scene.settle()
    for place, image in enumerate(await images(scene, job)):
        content = PNG + str(place).encode()
        assert image.sha256 == sha256(content).hexdigest()
        assert (image.size_bytes, image.content_type) == (len(content), "image/png")
        kept = scene.runtime.files.open(image.sha256)
        assert kept is not None
        assert kept.read_bytes() == content
    assert (await scene.event_types(job.id))[-1] == "job.archived"
    assert (await scene.told(job.id))[-1] == ("result.kept", False)
    assert len(scene.providers.files.fetched) == 3
    assert await scene.work(job.id) == {}
    assert (await scene.job(job.id)).state is JobState.SUCCEEDED
    assert taken.asked == 0


async def test_files_of_a_job_that_does_not_want_it_are_not_fetched(scene: Scene) -> None:
    job, _ = await succeeded(scene, archive=False)
    await scene.settle()
    assert scene.providers.files.fetched == []
    assert (await images(scene, job))[0].artifact_id is None


async def test_a_dead_url_is_asked_for_anew(scene: Scene) -> None:
    job, taken = await succeeded(scene)
    del scene.providers.files.kept[url_of(taken)]
    taken.result["images"][0]["url"] = "https://v3.fal.media/files/signed-anew.png"
    scene.providers.files.kept["https://v3.fal.media/files/signed-anew.png"] = PNG
    await scene.settle()
    assert (await images(scene, job))[0].sha256 == sha256(PNG).hexdigest()
    assert taken.asked == 1


@pytest.mark.parametrize("answer", [said(404, {}), said(410, {}), said(403, {})])
async def test_what_is_gone_for_good_is_said_and_the_job_has_succeeded_all_the_same(
    scene: Scene, answer: Answer
) -> None:
    job, taken = await succeeded(scene)
    scene.providers.files.kept[url_of(taken)] = answer
    await scene.after(30)
    assert (await scene.told(job.id))[-1] == ("result.lost", False)
    done = await scene.job(job.id)
    assert done.state is JobState.SUCCEEDED
    assert (await images(scene, job))[0].artifact_id is None
    assert "job.archived" not in await scene.event_types(job.id)
    assert await scene.work(job.id) == {}


async def test_a_result_that_the_provider_no_longer_has_is_lost(scene: Scene) -> None:
    job, taken = await succeeded(scene)
    scene.providers.files.kept[url_of(taken)] = said(404, {})
    taken.result = said(404, {"detail": "gone"})
    await scene.settle()
    assert (await scene.told(job.id))[-1] == ("result.lost", False)
    assert (await scene.job(job.id)).state is JobState.SUCCEEDED


async def test_a_question_for_a_new_url_that_gets_no_answer_is_repeated(scene: Scene) -> None:
    job, taken = await succeeded(scene)
    content = scene.providers.files.kept.pop(url_of(taken))
    taken.status = httpx.ConnectError("away")
    await scene.after(10)
    assert (await scene.told(job.id))[-1] == ("provider.succeeded", True)
    taken.status = "COMPLETED"
    taken.result["images"][0]["url"] = "https://v3.fal.media/files/anew.png"
    scene.providers.files.kept["https://v3.fal.media/files/anew.png"] = content
    await scene.after(60)
    assert (await scene.told(job.id))[-1] == ("result.kept", False)


@ON_ONE_DATABASE
@pytest.mark.parametrize("trouble", [said(503, {}), httpx.ConnectError("away"), httpx.ReadError("cut")])
async def test_passing_trouble_is_tried_again_and_keeps_no_other_file_waiting(
    scene: Scene, trouble: Answer
) -> None:
    job, taken = await succeeded(scene, files=2)
    content = scene.providers.files.kept[url_of(taken, 0)]
    scene.providers.files.kept[url_of(taken, 0)] = trouble
    await scene.settle()
    assert [row["state"] for row in await scene.table("artifact")].count("kept") == 1
    scene.providers.files.kept[url_of(taken, 0)] = content
    await scene.after(5)
    assert all(image.sha256 for image in await images(scene, job))
    assert [str(request.url) for request in scene.providers.files.fetched].count(url_of(taken, 1)) == 1


async def test_of_several_files_one_may_be_lost_and_the_others_kept(scene: Scene) -> None:
    job, taken = await succeeded(scene, files=2)
    scene.providers.files.kept[url_of(taken, 1)] = said(404, {})
    await scene.settle()
    kept = await images(scene, job)
    assert (kept[0].artifact_id is None, kept[1].artifact_id is None) == (False, True)
    assert (await scene.told(job.id))[-2:] == [("result.kept", False), ("result.lost", False)]
    assert (await scene.event_types(job.id)).count("job.archived") == 1


HOSTILE: list[Answer] = [
    httpx.Response(302, headers={"location": "https://v3.fal.media/files/elsewhere.png"}),
    httpx.Response(200, content=b"<!doctype html><script>alert(1)</script>"),
    httpx.Response(200, content=b"  <svg xmlns='http://www.w3.org/2000/svg' onload='x'/>"),
]


@ON_ONE_DATABASE
@pytest.mark.parametrize("answer", HOSTILE)
async def test_redirects_and_pages_are_refused(scene: Scene, answer: Answer) -> None:
    job, taken = await succeeded(scene)
    scene.providers.files.kept[url_of(taken)] = answer
    await scene.settle()
    assert (await scene.told(job.id))[-1] == ("result.lost", False)
    assert all("elsewhere" not in str(request.url) for request in scene.providers.files.fetched)
    assert [row["state"] for row in await scene.table("artifact")] == ["gone"]


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x.png",
        "http://127.0.0.1:9/x.png",
        "https://v3.fal.media.evil.example/x.png",
        "https://user@v3.fal.media/x.png",
        "data:image/png,not-base64",
    ],
)
async def test_files_of_foreign_hosts_are_not_fetched(scene: Scene, url: str) -> None:
    job, taken = await scene.submitted("fal")
    scene.fal.succeed(taken)
    taken.result["images"][0]["url"] = url
    await scene.fal_calls(taken)
    await scene.settle()
    assert scene.providers.files.fetched == []
    assert (await scene.told(job.id))[-1] == ("result.lost", False)


async def test_a_file_that_is_too_large_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_FILE_BYTES", 100)
    job, _ = await succeeded(scene)
    await scene.settle()
    assert (await scene.told(job.id))[-1] == ("result.lost", False)
    left = [path for path in scene.runtime.files._root.rglob("*") if path.is_file()]
    assert left == []


async def test_what_was_kept_before_a_crash_is_told_after_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = await succeeded(scene)
    outage = Outage(scene, monkeypatch)
    real = scene.runtime.files.incoming

    def cut() -> Any:
        outage.gone = True
        return real()

    monkeypatch.setattr(scene.runtime.files, "incoming", cut)

    monkeypatch.setattr(scene.runtime.files, "incoming", cut)

    async def back() -> None:
        while outage.refused < 2:
            await asyncio.sleep(0.01)
        outage.gone = False

    turn = asyncio.create_task(back())
    duty = next(duty for duty in DUTIES if duty.kind is Work.ARCHIVE)
    await scene.worker._turn(duty, set())
    while scene.worker._jobs:
        await asyncio.wait(scene.worker._jobs)
    await turn
    monkeypatch.setattr(scene.runtime.files, "incoming", real)
    await scene.after(5)
    assert (await images(scene, job))[0].artifact_id is not None
    assert (await scene.event_types(job.id)).count("job.archived") == 1


async def test_a_disk_that_is_full_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = await succeeded(scene)
    real = scene.runtime.files.incoming

    def full() -> Any:
        raise fetch.NoSpace("no space left on device")

    monkeypatch.setattr(scene.runtime.files, "incoming", full)
    await scene.after(10)
    assert (await images(scene, job))[0].artifact_id is None
    monkeypatch.setattr(scene.runtime.files, "incoming", real)
    await scene.after(60)
    assert (await images(scene, job))[0].artifact_id is not None


async def test_the_key_is_not_shown_to_the_hosts_of_the_files(scene: Scene) -> None:
    await succeeded(scene)
    await scene.settle()
    (request,) = scene.providers.files.fetched
    assert "authorization" not in request.headers
    assert "fal-key" not in str(request.headers)
