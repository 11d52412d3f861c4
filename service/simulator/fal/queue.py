"""fal's queue and its synchronous sister: submit, status, status stream, result, cancel, run.

https://fal.ai/docs/documentation/model-apis/inference/queue.md, read 2026-11-20.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from service.simulator.clock import now_ms
from service.simulator.fal import replies
from service.simulator.fal.model import answer_of
from service.simulator.fal.paths import QueuePath, app_of, read_queue_path
from service.simulator.ledger import State, TakenRequest
from service.simulator.plan import Plan
from service.simulator.provider import Provider
from service.simulator.submission import count_refused, settle_submit
from service.simulator.world import World

METHODS = {"submit": "POST", "status": "GET", "stream": "GET", "result": "GET", "cancel": "PUT"}
PING_S = 15.0


class Queue:
    """The routes of `queue.fal.run` and `fal.run`."""

    def __init__(self, world: World, provider: Provider) -> None:
        self._world = world
        self._provider = provider

    async def serve(self, request: Request) -> Response:
        """Answer any call to the queue."""
        if not has_key(request):
            return replies.error(401, "Authentication is required to access this application.")
        path = read_queue_path(request.path_params["path"])
        if path is None:
            return replies.error(404, "Not Found")
        if request.method != METHODS[path.verb]:
            return replies.error(405, "Method Not Allowed", headers={"Allow": METHODS[path.verb]})
        if path.request_id is None:
            return await self._submit(request, path)
        taken = self._world.ledger.find(self._provider.name, path.request_id)
        if taken is None or app_of(taken.model) != path.app:
            return self._unknown(path)
        if path.verb == "cancel":
            return self._cancel(taken)
        if self._world.poll_fails(taken):
            return replies.error(500, "Internal Server Error")
        if path.verb == "result":
            return self._result(taken)
        logs = request.query_params.get("logs", "").lower() in ("1", "true")
        if path.verb == "stream":
            return StreamingResponse(self._stream(taken, logs=logs), media_type="text/event-stream")
        return self._status(taken, logs=logs)

    async def run(self, request: Request) -> Response:
        """Answer a synchronous run: the model's answer once it is there, no webhook."""
        if not has_key(request):
            return replies.error(401, "Authentication is required to access this application.")
        path = read_queue_path(request.path_params["path"])
        given = _input(await request.body())
        if path is None or path.verb != "submit":
            return replies.error(404, "Not Found")
        if given is None:
            return replies.error(400, "The body must be a JSON object")
        taken: list[TakenRequest] = []

        def take(plan: Plan) -> TakenRequest:
            taken.append(self._take(request, path, plan, given, webhook_url=None))
            return taken[0]

        settled = await settle_submit(self._world, self._provider, take)
        if not taken or settled.status_code >= 400 or type(settled) is not JSONResponse:
            return settled
        await asyncio.sleep(max(0, taken[0].end_ms - now_ms()) / 1_000)
        self._world.count_result(taken[0])
        return replies.result(taken[0], answer_of(taken[0]))

    async def _submit(self, request: Request, path: QueuePath) -> Response:
        given = _input(await request.body())
        if given is None:
            count_refused(self._world, self._provider, "bad_body")
            return replies.error(400, "The body must be a JSON object")
        if self._queue_is_longer(request, path):
            count_refused(self._world, self._provider, "queue_length")
            return replies.error(
                429, "The queue is longer than fal_max_queue_length", headers={"Retry-After": "1"}
            )
        webhook_url = request.query_params.get("fal_webhook") or None
        return await settle_submit(
            self._world, self._provider, lambda plan: self._take(request, path, plan, given, webhook_url)
        )

    def _take(
        self, request: Request, path: QueuePath, plan: Plan, given: dict[str, Any], webhook_url: str | None
    ) -> TakenRequest:
        names = [name for name in request.headers if name.startswith(("x-fal-", "x-app-fal-"))]
        headers = {name: request.headers[name] for name in names}
        return self._world.take(
            self._provider,
            plan,
            model=path.endpoint,
            input=given,
            base_url=self._world.base_url(request),
            headers=headers,
            webhook_url=webhook_url,
            start_timeout_ms=_start_timeout_ms(headers),
        )

    def _queue_is_longer(self, request: Request, path: QueuePath) -> bool:
        limit = request.query_params.get("fal_max_queue_length", "")
        if not limit.isdecimal():
            return False
        now = now_ms()
        known = self._world.ledger.requests(self._provider.name)
        waiting = sum(taken.model == path.endpoint and taken.state(now) is State.QUEUED for taken in known)
        return waiting > int(limit)

    def _status(self, taken: TakenRequest, *, logs: bool) -> Response:
        document = replies.status_document(taken, now_ms(), logs=logs)
        status = 200 if document["status"] == "COMPLETED" else 202
        return JSONResponse(document, status_code=status, headers={"x-fal-request-id": taken.id})

    async def _stream(self, taken: TakenRequest, *, logs: bool) -> AsyncIterator[str]:
        shown, quiet_s = None, 0.0
        while not self._world.closing.is_set():
            document = replies.status_document(taken, now_ms(), logs=logs)
            if document != shown:
                shown, quiet_s = document, 0.0
                yield f"data: {json.dumps(document)}\n\n"
            if document["status"] == "COMPLETED":
                return
            if quiet_s >= PING_S:
                quiet_s = 0.0
                yield ": ping\n\n"
            await asyncio.sleep(0.05)
            quiet_s += 0.05

    def _result(self, taken: TakenRequest) -> Response:
        if taken.state(now_ms()) in (State.QUEUED, State.RUNNING):
            return replies.error(400, "Request is still in progress", headers={"x-fal-request-id": taken.id})
        self._world.count_result(taken)
        return replies.result(taken, answer_of(taken))

    def _cancel(self, taken: TakenRequest) -> Response:
        state = taken.state(now_ms())
        self._world.tally.count(taken.provider, "cancels.asked")
        if state in (State.ENDED, State.CANCELED):
            status, word = 400, "ALREADY_COMPLETED"
        else:
            status, word = 202, "CANCELLATION_REQUESTED"
            taken.cancel_asked_ms = now_ms()
            if state is State.QUEUED:
                self._world.cancel_queued(taken)
        self._world.tally.count(taken.provider, f"cancels.by_answer.{word}")
        return JSONResponse({"status": word}, status_code=status, headers={"x-fal-request-id": taken.id})

    def _unknown(self, path: QueuePath) -> Response:
        if path.verb == "cancel":
            self._world.tally.count(self._provider.name, "cancels.by_answer.NOT_FOUND")
            return JSONResponse({"status": "NOT_FOUND"}, status_code=404)
        self._world.tally.count(self._provider.name, "polls.unknown")
        return replies.error(404, replies.NOT_FOUND)


def has_key(request: Request) -> bool:
    """Return whether a call carries a key, any key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() in ("key", "bearer") and bool(key.strip())


def _input(body: bytes) -> dict[str, Any] | None:
    try:
        given = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _start_timeout_ms(headers: dict[str, str]) -> int | None:
    given = headers.get("x-fal-request-start-timeout") or headers.get("x-fal-request-timeout")
    try:
        return int(float(given) * 1_000) if given else None
    except (ValueError, OverflowError):
        return None
