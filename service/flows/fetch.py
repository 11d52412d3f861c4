"""Fetch one result file: only from the provider's own delivery hosts, no redirect, capped, looked at, then kept."""

import asyncio
import base64
import binascii
from dataclasses import dataclass, replace

from service.flows.runtime import Runtime
from service.providers.base import Trouble
from service.storage.artifacts import Artifact
from service.storage.files import Incoming, NoSpace

#: Larger than any image, LoRA file or short video that the providers make.
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024
_TIMEOUT_S = 300.0
#: The provider says so of a URL that is over: nothing is to be had by repeating it.
_DEAD = frozenset((400, 401, 403, 404, 405, 410, 451))

#: What the first bytes of a file say, and the content type it is then served with.
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
)
#: Types a file may keep though its bytes say nothing of them; pages and scripts are not results.
_PLAIN = ("application/json", "application/octet-stream", "audio/", "video/", "model/", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class Gone:
    """The file cannot be had under this URL any more, or must not be."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """The file could not be fetched now."""

    reason: str
    retry_after_ms: int | None = None


async def fetch(runtime: Runtime, provider: str, artifact: Artifact) -> Artifact | Gone | Later:
    """This function will fetch and keep one file; the artifact comes back as `kept`."""
    inline = artifact.source_url.startswith("data:")
    if not inline and not runtime.providers[provider].may_download(artifact.source_url):
        return Gone("not a delivery host of the provider")
    try:
        incoming = await asyncio.to_thread(runtime.files.incoming)
    except NoSpace as error:
        return Later(f"cannot be stored: {error}")
    try:
        trouble = (
            _decoded(artifact.source_url, incoming)
            if inline
            else await _download(runtime, artifact, incoming)
        )
        if trouble is not None:
            return trouble
        content_type = content_type_of(incoming.head, artifact.content_type)
        if content_type is None:
            return Gone("what came is not a result file")
        digest = await asyncio.to_thread(incoming.keep)
        return replace(
            artifact,
            state="kept",
            content_type=content_type,
            sha256=digest,
            size_bytes=incoming.size_bytes,
            kept_ms=runtime.now_ms(),
        )
    except NoSpace as error:
        return Later(f"cannot be stored: {error}")
    finally:
        incoming.discard()


async def _download(runtime: Runtime, artifact: Artifact, incoming: Incoming) -> Gone | Later | None:
    async def sink(chunk: bytes) -> None:
        incoming.write(chunk)

    came = await runtime.downloads.download(
        artifact.source_url, sink=sink, max_bytes=MAX_FILE_BYTES, timeout_s=_TIMEOUT_S
    )
    if isinstance(came, Trouble):
        return Later(came.reason)
    if came.too_large:
        return Gone("larger than may be kept")
    if came.status in _DEAD or 300 <= came.status < 400:
        return Gone(f"the provider answers {came.status}")
    if came.status != 200:
        return Later(f"the provider answers {came.status}")
    if incoming.size_bytes == 0:
        return Later("an empty file came")
    return None


def _decoded(url: str, incoming: Incoming) -> Gone | None:
    head, _, text = url.partition(",")
    if not head.endswith(";base64"):
        return Gone("not a file")
    try:
        incoming.write(base64.b64decode(text, validate=True))
    except binascii.Error:
        return Gone("not a file")
    return None


def content_type_of(head: bytes, said: str | None) -> str | None:
    """This function will tell what a file is by its first bytes; None for what is no result file.

    A type that was only said counts where it is harmless; markup is never served as what it says.
    """
    for offset, signature, content_type in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return content_type
    if head.lstrip()[:1] == b"<":
        return None
    plain = (said or "").partition(";")[0].strip().lower()
    return plain if plain.startswith(_PLAIN) else "application/octet-stream"
