"""What the simulator's tests share: a receiver of callbacks, a client, and waiting."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.simulator.app import Simulator, create_app
from service.simulator.faults import parse
from service.simulator.server import Listener, serving

FAL = {"Authorization": "Key test"}
BFL = {"x-key": "test"}


@dataclass(frozen=True)
class Received:
    """One callback as it arrived."""

    token: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.raw)
        return document


@dataclass
class Receiver:
    """A server that keeps every callback and answers as it is told."""

    url: str
    callbacks: list[Received] = field(default_factory=list)
    answer: Callable[[int], int] = lambda number: 200

    async def take(self, request: Request) -> Response:
        token = request.path_params["token"]
        self.callbacks.append(Received(token, dict(request.headers), await request.body()))
        status = self.answer(len(self.callbacks))
        return Response(status_code=status, headers={"Location": "/elsewhere"} if status // 100 == 3 else {})

    def hook(self, token: str = "t") -> str:
        return f"{self.url}/callbacks/{token}"


@dataclass
class Scene:
    """A simulator, a receiver and a client of the simulator."""

    simulator: Simulator
    receiver: Receiver
    http: httpx.AsyncClient

    async def fal(
        self, *, hook: str | None = "t", model: str = "fal-ai/flux-2", headers: dict[str, str] | None = None,
        **given: Any,
    ) -> httpx.Response:  # fmt: skip
        query = {"fal_webhook": self.receiver.hook(hook)} if hook else {}
        return await self.http.post(
            f"/fal-queue/{model}",
            params=query,
            json={"prompt": "a fox", **given},
            headers={**FAL, **(headers or {})},
        )

    async def bfl(self, *, hook: str | None = "t", model: str = "flux-2-pro", **given: Any) -> httpx.Response:
        ours = {"webhook_url": self.receiver.hook(hook), "webhook_secret": f"secret-{hook}"} if hook else {}
        return await self.http.post(
            f"/bfl/v1/{model}", json={"prompt": "a fox", **ours, **given}, headers=BFL
        )

    async def poll_bfl(self, task_id: str) -> dict[str, Any]:
        reply = await self.http.get("/bfl/v1/get_result", params={"id": task_id}, headers=BFL)
        document: dict[str, Any] = reply.json()
        return document

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.01)

    async def quiet(self) -> None:
        """Wait until every request has ended and no callback is to come."""
        stats = self.simulator.stats
        await self.until(
            lambda: (
                not stats()["callbacks_under_way"]
                and not any(provider["active"] for provider in stats()["providers"].values())
            )
        )

    def stat(self, provider: str, group: str, name: str) -> Any:
        return self.simulator.stats()["providers"][provider][group][name]  # type: ignore[index]


@asynccontextmanager
async def scene(dials: str = "", *, seed: int = 1, **options: Any) -> AsyncIterator[Scene]:
    """Start everything on one port; requests take no time unless the dials say otherwise."""
    faults = parse(dials, base=parse("queue_ms=0,run_ms=0,retry_scale=0.01,late_ms=300,reorder_ms=200"))
    listener = Listener("127.0.0.1", 0)
    app = create_app(faults=faults, seed=seed, **options)
    receiver = Receiver(listener.url)
    # The receiver shares the simulator's server only because every server takes a tenth of a second to stop.
    app.router.routes.append(Route("/callbacks/{token}", receiver.take, methods=["POST"]))
    async with (
        serving(app, listener, closing=app.state.world.closing),
        httpx.AsyncClient(base_url=listener.url, trust_env=False, timeout=10, verify=False) as http,
    ):
        yield Scene(Simulator(app.state.world, listener.url), receiver, http)
