"""The fake BFL: submit, polling, credits, callbacks, files.

https://api.bfl.ai/openapi.json, https://docs.bfl.ml/api_integration/integration_guidelines.md and
https://docs.bfl.ai/api_integration/errors, read 2026-11-20.
"""

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from service.simulator.bfl import prices, results, webhooks
from service.simulator.bfl.delivery import PREFIX, Delivery
from service.simulator.bfl.inputs import input_errors, knows
from service.simulator.clock import now_ms
from service.simulator.ledger import State, TakenRequest
from service.simulator.plan import Plan, SubmitFate
from service.simulator.provider import Message, Provider
from service.simulator.submission import count_refused, refuse, settle_submit
from service.simulator.world import World

#: what a new account is given here, in credits
CREDITS = 100_000.0
#: kontext-max is held to fewer active tasks than the rest
FEWER_ACTIVE = {"flux-kontext-max": 6}
_KEY = re.compile(r"[A-Za-z0-9._:-]{1,256}")
_OURS = ("webhook_url", "webhook_secret")


class Bfl(Provider):
    """`api.bfl.ai` and its delivery host."""

    name = "bfl"
    # 30 s, then after 1 s, 5 s and 30 s, then dropped (github.com/black-forest-labs/skills, read 2026-11-20)
    retry_delays_ms = (1_000, 5_000, 30_000)
    timeout_s = 30.0
    retry_timeout_s = 30.0
    redirect_is_final = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._delivery = Delivery(world)
        self._spent = 0.0

    def routes(self) -> list[BaseRoute]:
        """Return the API and the delivery host as mounts."""
        return [
            Mount(
                "/bfl",
                routes=[
                    Route("/v1/get_result", self._get_result),
                    Route("/v1/credits", self._credits),
                    Route("/v1/{model:path}", self._submit, methods=["POST"]),
                ],
            ),
            Route(PREFIX + "/results/{path:path}", self._delivery.serve),
        ]

    def refusal(self, fate: SubmitFate) -> Response:
        """Return BFL's error for a failing submit."""
        if fate is SubmitFate.RATE_LIMITED:
            detail = "Rate limit exceeded: too many active tasks"
            return JSONResponse({"detail": detail}, status_code=429, headers={"Retry-After": "1"})
        if fate is SubmitFate.LOCKED:
            return JSONResponse({"detail": "Insufficient credits"}, status_code=402)
        return JSONResponse({"detail": "Internal Server Error"}, status_code=500)

    def acceptance(self, request: TakenRequest) -> Response:
        """Return one of the two submit replies; with a webhook, `polling_url` is often missing."""
        dice = request.plan.dice
        told = None if dice.choose("cost told", (False, True, True, True)) is False else self._cost(request)
        members: dict[str, Any] = {
            "cost": told,
            "input_mp": prices.input_megapixels(request.input),
            "output_mp": prices.output_megapixels(request.input),
        }
        polling = {"polling_url": f"{request.base_url}/bfl/v1/get_result?id={request.id}"}
        if not request.webhook_url:
            return JSONResponse({"id": request.id, **polling, **members})
        if dice.below("omit_polling_url", self._world.faults.omit_polling_url):
            polling = {}
        webhook = {"status": "Pending", "webhook_url": request.webhook_url}
        return JSONResponse({"id": request.id, **webhook, **polling, **members})

    def callback(self, request: TakenRequest, *, now_ms: int) -> Message:
        """Return the callback in the form drawn for this task."""
        return webhooks.callback(request, self._form(request), self._delivery, now_ms)

    def forgery(self, request: TakenRequest, *, now_ms: int) -> tuple[str, Message]:
        """Return a false callback and its kind."""
        return webhooks.forgery(request, self._form(request), now_ms)

    def progress(self, request: TakenRequest, *, now_ms: int) -> Message | None:
        """Return the event before the end, where one comes."""
        return webhooks.progress(request, self._form(request))

    def _form(self, request: TakenRequest) -> str:
        return webhooks.form_of(request, self._world.faults.bfl_auth)

    async def _submit(self, request: Request) -> Response:
        model = request.path_params["model"]
        refused = _key_trouble(request) or (None if knows(model) else _error(404, "Not Found"))
        if refused is not None:
            return refused
        given, errors = _read(model, await request.body())
        if errors:
            count_refused(self._world, self, "invalid_input")
            return JSONResponse({"detail": errors}, status_code=422)
        if self._is_full(model):
            return refuse(self._world, self, SubmitFate.RATE_LIMITED)

        def take(plan: Plan) -> TakenRequest:
            taken = self._world.take(
                self,
                plan,
                model=model,
                input={k: v for k, v in given.items() if k not in _OURS},
                headers={},
                base_url=self._world.base_url(request),
                webhook_url=given.get("webhook_url"),
                webhook_secret=given.get("webhook_secret"),
            )
            self._spent += results.settled_cost(taken)
            return taken

        return await settle_submit(self._world, self, take)

    async def _get_result(self, request: Request) -> Response:
        refused = _key_trouble(request)
        if refused is not None:
            return refused
        task_id = request.query_params.get("id")
        if task_id is None:
            missing = {"type": "missing", "loc": ["query", "id"], "msg": "Field required", "input": None}
            return JSONResponse({"detail": [missing]}, status_code=422)
        taken = self._world.ledger.find(self.name, task_id)
        if taken is None:
            self._world.tally.count(self.name, "polls.unknown")
            unknown = {"id": task_id, "status": "Task not found", "result": None}
            return JSONResponse(unknown, status_code=404)
        if self._world.poll_fails(taken):
            return _error(500, "Internal Server Error")
        return JSONResponse(self._poll_document(taken))

    def _poll_document(self, taken: TakenRequest) -> dict[str, Any]:
        now = now_ms()
        state = taken.state(now)
        status = results.status_of(taken, state)
        document: dict[str, Any] = {
            "id": taken.id,
            "status": status,
            "result": None,
            "progress": None,
            "details": results.details_of(status),
            "preview": None,
        }
        if state is State.RUNNING:
            document["progress"] = round((now - taken.start_ms) / max(1, taken.plan.run_ms), 2)
        if state is State.ENDED:
            document["cost"] = results.settled_cost(taken)
        if status == "Ready":
            document |= {"result": results.result_of(taken, self._delivery), "progress": 1.0}
            self._world.count_result(taken)
        return document

    async def _credits(self, request: Request) -> Response:
        return _key_trouble(request) or JSONResponse({"credits": round(CREDITS - self._spent, 4)})

    def _is_full(self, model: str) -> bool:
        limit, ledger = self._world.faults.bfl_active_limit, self._world.ledger
        if ledger.active(self.name) >= limit:
            return True
        fewer = FEWER_ACTIVE.get(model)
        return fewer is not None and ledger.active(self.name, model) >= min(fewer, limit)

    @staticmethod
    def _cost(request: TakenRequest) -> float:
        return prices.cost(request.model, request.input)


def _key_trouble(request: Request) -> Response | None:
    """Return the error for a missing key (403), or one that no key looks like (422)."""
    key = request.headers.get("x-key", "")
    if not key:
        return _error(403, "Not authenticated")
    return None if _KEY.fullmatch(key) else _error(422, "Invalid API key format")


def _read(model: str, body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        given = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        error = {"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error", "input": {}}
        return {}, [{**error, "ctx": {"error": "Expecting value"}}]
    errors = input_errors(model, given)
    return ({} if errors else given), errors


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _error(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status_code=status)
