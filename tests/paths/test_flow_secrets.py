"""No secret in a row, an event or a log line: every table and every line is searched for each of them."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.cli import logs
from service.domain.states import JobState
from service.storage.tables import METADATA
from tests.paths.flow_providers import said
from tests.paths.flow_scene import Scene, scene_of

FAL_KEY = "canary-fal-id:canary-fal-secret-0123456789abcdef"
BFL_KEY = "canary-bfl-0123456789abcdef0123"
SECRET_KEY = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MDE="


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Catch everything that is logged, tracebacks too, as an operator would see it."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.set_up("json", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    keys = {"FAL_KEY": FAL_KEY, "BFL_API_KEY": BFL_KEY, "FLUXGATE_SECRET_KEYS": SECRET_KEY}
    async with scene_of(database_url, tmp_path, monkeypatch, **keys) as scene:
        yield scene


def echo(request: httpx.Request, status: int) -> httpx.Response:
    """A provider that tells back everything it was sent."""
    told = {"headers": dict(request.headers), "url": str(request.url), "body": request.content.decode()}
    return said(status, {"detail": [{"msg": json.dumps(told), "type": "x", "loc": ["body"], "input": told}]})


async def a_day_of_everything(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        return echo(request, 422)

    async def fail(request: httpx.Request) -> httpx.Response:
        return echo(request, 500)

    for provider in ("fal", "bfl"):
        world: Any = scene.fal if provider == "fal" else scene.providers.bfl
        for answer in (refuse, fail):
            world.submits.append(answer)
            await scene.accept(provider)
            await scene.settle()
        for answer in (httpx.ConnectError("refused"), said(401, {"detail": FAL_KEY + BFL_KEY})):
            world.submits.append(answer)
            await scene.accept(provider)
            await scene.settle()
        _, taken = await scene.submitted(provider)
        await scene.receive(provider, taken.token, {"x-webhook-secret": "guessed"}, b"{}")
        if provider == "fal":
            scene.fal.succeed(taken)
            await scene.fal_calls(taken)
        else:
            scene.providers.bfl.succeed(taken)
            await scene.bfl_calls(taken)
        doomed, _ = await scene.submitted(provider)
        adapter = scene.runtime.providers[provider]

        def broken(subject: Any) -> Any:
            raise RuntimeError("a bug of ours")

        with monkeypatch.context() as patched:
            patched.setattr(adapter, "ask", broken)
            scene.clock.go(25)
            await scene.settle()
        await scene.cancel(doomed.id)
        await scene.after(120)


async def test_no_secret_is_in_any_row_event_or_log_line(
    scene: Scene, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_day_of_everything(scene, monkeypatch)
    attempts = await scene.table("attempt")
    secrets = {FAL_KEY, "canary-fal-secret-0123456789abcdef", BFL_KEY, SECRET_KEY}
    secrets |= {"canarycanarycanarycanarycanary01", b"canarycanarycanarycanarycanary01".hex()}
    for row in attempts:
        token = scene.runtime.keys.token(row["secret_key_id"], row["id"])
        secret = scene.runtime.keys.webhook_secret(row["secret_key_id"], row["id"])
        assert token is not None
        assert secret is not None
        secrets |= {token, secret}
    kept = {name: repr(await scene.table(name)) for name in METADATA.tables}
    kept["events"] = repr(await scene.events())
    kept["log"] = log.getvalue()
    assert len(attempts) >= 12
    assert kept["log"].count("work_failed") >= 2
    assert any(row["state"] == JobState.SUCCEEDED for row in await scene.table("job"))
    found = [(place, secret) for place, text in kept.items() for secret in secrets if secret in text]
    assert found == []


async def test_the_search_would_find_a_secret(scene: Scene) -> None:
    await scene.accept("fal", input={"prompt": FAL_KEY})
    assert FAL_KEY in repr(await scene.table("job"))
