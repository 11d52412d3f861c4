"""A user of the service, and a watcher of the simulator: everything over HTTP, as anybody could."""

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx

from service.cli.demo.stage import Stage
from service.cli.failing import Failed

_TIMEOUT_S = 10.0


class Caller:
    """Speaks to the service with an API key, and to the simulator."""

    def __init__(self, stage: Stage) -> None:
        # No proxy of the environment stands between us and ourselves.
        self._service = httpx.AsyncClient(
            base_url=stage.service_url,
            headers={"Authorization": f"Bearer {stage.api_key}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        self._simulator = httpx.AsyncClient(base_url=stage.simulator_url, timeout=_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(self._service.aclose(), self._simulator.aclose())

    async def submit(self, body: Any, *, idempotency_key: str) -> dict[str, Any]:
        """This function will hand in one job and return it as accepted."""
        answer = await self._service.post("/v1/jobs", json=body, headers={"Idempotency-Key": idempotency_key})
        return _object(answer)

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """This function will read one object of the service."""
        return _object(await self._service.get(path, params=query))

    async def everything(self, path: str) -> list[dict[str, Any]]:
        """This function will read a list of the service to its end."""
        rows: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await self.get(path, limit=200, **cursor)
            rows += page["data"]
            if page["next_cursor"] is None:
                return rows
            cursor = {"cursor": page["next_cursor"]}

    async def events(self, after: str | None, *, wait_s: int) -> tuple[list[dict[str, Any]], str]:
        """This function will read the feed behind a cursor, waiting for news; it returns where to go on."""
        query: dict[str, Any] = {"limit": 200, "wait": wait_s} | ({} if after is None else {"after": after})
        page = await self.get("/v1/events", **query)
        return page["data"], page["next_cursor"]

    async def turn(self, dials: Any) -> None:
        """This function will turn the simulator's dials."""
        _object(await self._simulator.put("/_sim/faults", json=dials))

    async def simulated(self, what: str) -> dict[str, Any]:
        """This function will read the simulator's `stats` or `requests`."""
        return _object(await self._simulator.get(f"/_sim/{what}"))


def _object(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        document: dict[str, Any] = answer.json()
        return document
    what = f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}"
    raise Failed(f"{what} ({answer.text[:300]})", "this is a defect of the demo or the service: report it")
