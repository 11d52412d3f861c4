"""Result files: the kept bytes with ranges, or the way to the provider while they are not kept yet."""

import re
from pathlib import Path

from starlette.responses import FileResponse, RedirectResponse, Response

from service.flows import read
from service.storage.artifacts import Artifact
from service.web.problems import Problem, unavailable
from service.web.replies import id_in_path
from service.web.visit import Visit

_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]{1,80}")
#: What a browser may show; all else is foreign bytes to be saved. No SVG: it is a document that can run scripts.
_SHOWABLE = re.compile(r"image/(png|jpeg|webp|gif|avif)|(video|audio)/[a-z0-9.+-]+")
_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def one(visit: Visit) -> Response:
    """This function will give a result file, or redirect (302) to the provider's URL until it is kept."""
    artifact = await read.artifact(
        visit.service.runtime, tenant=visit.caller.tenant, artifact_id=id_in_path(visit, "artifact_id", "art")
    )
    if artifact.state == "kept" and artifact.sha256 is not None:
        return _kept(visit, artifact, artifact.sha256)
    if artifact.state == "gone" or not artifact.source_url.startswith(("https://", "http://")):
        raise Problem(
            "not_found", "the file is gone for good: the provider no longer had it when it was to be kept"
        )
    return RedirectResponse(artifact.source_url, 302)


def _kept(visit: Visit, artifact: Artifact, sha256: str) -> Response:
    etag = f'"{sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, max-age=86400", "Accept-Ranges": "bytes"}
    if _unchanged(visit, etag):
        return Response(status_code=304, headers=headers)
    path = visit.service.files.open(sha256)
    if path is None:
        raise unavailable("the file is kept, but cannot be read at this moment")
    _mind_range(visit, path, etag)
    media_type = (artifact.content_type or "").lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    shown = "inline" if _SHOWABLE.fullmatch(media_type) else "attachment"
    headers["Content-Disposition"] = f'{shown}; filename="{artifact.id}"'
    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return FileResponse(path, headers=headers, media_type=media_type)


def _unchanged(visit: Visit, etag: str) -> bool:
    known = [
        tag.strip().removeprefix("W/") for value in visit.header("if-none-match") for tag in value.split(",")
    ]
    return etag in known or "*" in known


def _mind_range(visit: Visit, path: Path, etag: str) -> None:
    """See that Starlette gets one range that it can serve, or none.

    A malformed range, several of them, or one of another version of the file are to be ignored (RFC 9110, 14.2).

    :raises Problem: if the one range lies outside the file.
    """
    given = visit.header("range")
    if not given:
        return
    asked = _ONE_RANGE.fullmatch(given[0].strip()) if len(given) == 1 else None
    if asked is None or not _orderly(asked[1], asked[2]) or visit.headers.get("if-range", [etag]) != [etag]:
        visit.scope["headers"] = [item for item in visit.scope["headers"] if item[0] != b"range"]
        return
    size = path.stat().st_size
    empty = int(asked[1]) >= size if asked[1] else int(asked[2]) == 0 or size == 0
    if empty:
        raise Problem(
            "range_not_satisfiable",
            f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )


def _orderly(first: str, last: str) -> bool:
    return bool(first or last) and not (first and last and int(first) > int(last))
