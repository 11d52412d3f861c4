"""Result files: kept ones with ranges, others by redirect, and those that are gone."""

from dataclasses import replace

import httpx
import pytest

from service.storage import artifacts
from service.storage.artifacts import Artifact
from tests.paths.visitors import House, problem, submit

CONTENT = bytes(range(256)) * 400


@pytest.fixture
async def artifact(house: House) -> Artifact:
    """Note a file that is wanted, of a job that is there."""
    job_id = await submit(await house.visitor())
    wanted = Artifact(
        id=house.service.runtime.make_id("art"),
        job_id=job_id,
        attempt_id="att_1",
        tenant="default",
        position=0,
        state="wanted",
        source_url="https://files.example/a.png?sig=ü b",
        created_ms=1,
    )
    await house.service.runtime.door.write(lambda tx: artifacts.want(tx, [wanted]))
    return wanted


async def keep(house: House, artifact: Artifact, *, content_type: str | None = "image/png") -> str:
    incoming = house.service.files.incoming()
    incoming.write(CONTENT)
    sha256 = incoming.keep()
    kept = replace(artifact, state="kept", sha256=sha256, size_bytes=len(CONTENT), content_type=content_type)
    await house.service.runtime.door.write(lambda tx: artifacts.save(tx, kept))
    return sha256


async def get(house: House, artifact: Artifact, **headers: str) -> httpx.Response:
    visitor = await house.visitor()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await visitor.get(f"/v1/artifacts/{artifact.id}", headers=names)


async def test_a_kept_file_comes_whole_with_what_is_known_of_it(house: House, artifact: Artifact) -> None:
    sha256 = await keep(house, artifact)
    response = await get(house, artifact)
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["etag"] == f'"{sha256}"'
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["content-disposition"].startswith("inline")


SERVED_AS = {
    "image/svg+xml": "image/svg+xml",
    "text/html": "text/html",
    None: "application/octet-stream",
    "nonsense\r\nX-Evil: 1": "application/octet-stream",
}


async def test_a_file_that_could_run_is_only_to_be_saved(house: House, artifact: Artifact) -> None:
    for content_type, served in SERVED_AS.items():
        await keep(house, artifact, content_type=content_type)
        response = await get(house, artifact)
        assert response.headers["content-disposition"].startswith("attachment")
        assert response.headers["content-type"].partition(";")[0] == served
        assert "x-evil" not in response.headers


RANGES = {
    "bytes=0-0": slice(0, 1),
    "bytes=100-199": slice(100, 200),
    "bytes=100-": slice(100, None),
    "bytes=-5": slice(-5, None),
    "bytes=-9999999": slice(0, None),
    "bytes=0-9999999": slice(0, None),
}
NO_RANGES = [
    "bytes", "bytes=", "bytes=-", "bytes=5-3", "lines=1-2", "bytes=0-1,5-6", "bytes=a-b", "bytes=" + "9" * 40 + "-",
]  # fmt: skip


async def test_a_range_gives_exactly_that_part(house: House, artifact: Artifact) -> None:
    await keep(house, artifact)
    for asked, part in RANGES.items():
        response = await get(house, artifact, range=asked)
        assert (response.status_code, response.content) == (206, CONTENT[part])
        first, last, _ = part.indices(len(CONTENT))
        assert response.headers["content-range"] == f"bytes {first}-{last - 1}/{len(CONTENT)}"
        assert response.headers["content-length"] == str(len(response.content))


async def test_a_range_outside_the_file_cannot_be_satisfied(house: House, artifact: Artifact) -> None:
    await keep(house, artifact)
    for asked in ("bytes=102400-", "bytes=999999999999-", "bytes=-0"):
        response = await get(house, artifact, range=asked)
        problem(response, 416, "range_not_satisfiable")
        assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


async def test_a_range_that_is_none_gives_the_whole_file(house: House, artifact: Artifact) -> None:
    await keep(house, artifact)
    for asked in NO_RANGES:
        response = await get(house, artifact, range=asked)
        assert (response.status_code, response.content) == (200, CONTENT)


async def test_a_range_of_another_version_gives_the_whole_file(house: House, artifact: Artifact) -> None:
    sha256 = await keep(house, artifact)
    assert (await get(house, artifact, range="bytes=0-1", if_range='"other"')).status_code == 200
    assert (await get(house, artifact, range="bytes=0-1", if_range=f'"{sha256}"')).status_code == 206


async def test_a_caller_who_has_the_file_is_not_sent_it_again(house: House, artifact: Artifact) -> None:
    sha256 = await keep(house, artifact)
    for known in (f'"{sha256}"', f'"x", W/"{sha256}"', "*"):
        response = await get(house, artifact, if_none_match=known)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == f'"{sha256}"'
    assert (await get(house, artifact, if_none_match='"x"')).status_code == 200


async def test_head_tells_the_length_and_sends_nothing(house: House, artifact: Artifact) -> None:
    await keep(house, artifact)
    visitor = await house.visitor()
    response = await visitor.head(f"/v1/artifacts/{artifact.id}")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))


async def test_until_it_is_kept_the_caller_is_sent_to_the_provider(house: House, artifact: Artifact) -> None:
    response = await get(house, artifact)
    assert response.status_code == 302
    assert response.headers["location"] == "https://files.example/a.png?sig=%C3%BC%20b"
    assert response.headers["cache-control"] == "no-store"


async def test_a_file_that_is_gone_for_good_is_said_to_be_so(house: House, artifact: Artifact) -> None:
    gone = replace(artifact, state="gone")
    await house.service.runtime.door.write(lambda tx: artifacts.save(tx, gone))
    document = problem(await get(house, artifact), 404, "not_found")
    assert "gone for good" in document["detail"]


async def test_a_kept_file_that_cannot_be_read_now_is_not_called_gone(
    house: House, artifact: Artifact
) -> None:
    sha256 = await keep(house, artifact)
    path = house.service.files.open(sha256)
    assert path is not None
    path.unlink()
    response = await get(house, artifact)
    problem(response, 503, "unavailable")
    assert response.headers["retry-after"]


async def test_another_tenants_file_is_not_found(house: House, artifact: Artifact) -> None:
    await keep(house, artifact)
    theirs = await house.visitor(tenant="other")
    problem(await theirs.get(f"/v1/artifacts/{artifact.id}"), 404, "not_found")
