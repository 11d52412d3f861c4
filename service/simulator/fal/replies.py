"""fal's JSON replies: submit, status, errors. Clients break on members that are absent, so all are there.

https://fal.ai/docs/api-reference/inference-api and fal-client 1.0.3, read 2026-11-20.
"""

from typing import Any

from starlette.responses import JSONResponse, Response

from service.simulator.clock import iso
from service.simulator.fal.model import Answer, answer_of
from service.simulator.fal.paths import app_of
from service.simulator.fal.webhooks import gateway_id
from service.simulator.ledger import State, TakenRequest
from service.simulator.plan import SubmitFate

#: one place in the queue for each of these that are left to wait
PLACE_MS = 250
NOT_FOUND = "Request not found"


def error(status: int, detail: str, *, headers: dict[str, str] | None = None) -> Response:
    """Return an error of the gateway."""
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def refusal(fate: SubmitFate) -> Response:
    """Return the answer to a submit that fails in this way."""
    if fate is SubmitFate.RATE_LIMITED:
        return error(429, "Too many requests", headers={"Retry-After": "1"})
    if fate is SubmitFate.LOCKED:
        return error(403, "User is locked. Reason: Exhausted balance. Top up your balance.")
    return error(500, "Internal Server Error")


def acceptance(request: TakenRequest) -> Response:
    """Return the answer to a submit that was taken."""
    members = {"status": "IN_QUEUE", "gateway_request_id": gateway_id(request), "queue_position": 0}
    return JSONResponse({**_urls(request), **members}, headers={"x-fal-request-id": request.id})


def status_document(request: TakenRequest, now_ms: int, *, logs: bool) -> dict[str, Any]:
    """Return the status object; 202 until it says COMPLETED."""
    document: dict[str, Any] = {**_urls(request), "logs": None, "metrics": {}}
    state = request.state(now_ms)
    if state is State.QUEUED:
        place = max(0, request.start_ms - now_ms) // PLACE_MS
        return {**document, "status": "IN_QUEUE", "queue_position": place}
    if logs:
        document["logs"] = _logs(request, state)
    if state is State.RUNNING:
        return {**document, "status": "IN_PROGRESS", "queue_position": None}
    answer = answer_of(request)
    if answer.error_type is not None:
        document |= {"error": answer.body["detail"], "error_type": answer.error_type}
    else:
        document["metrics"] = {"inference_time": request.plan.run_ms / 1_000}
    return {**document, "status": "COMPLETED", "queue_position": None}


def result(request: TakenRequest, answer: Answer) -> Response:
    """Return the model's own status, headers and body."""
    headers = {"x-fal-request-id": request.id, **answer.headers}
    return JSONResponse(answer.body, status_code=answer.status, headers=headers)


def _urls(request: TakenRequest) -> dict[str, Any]:
    own = f"{request.base_url}/fal-queue/{app_of(request.model)}/requests/{request.id}"
    urls = {"response_url": own, "status_url": f"{own}/status", "cancel_url": f"{own}/cancel"}
    return {"request_id": request.id, **urls}


def _logs(request: TakenRequest, state: State) -> list[dict[str, str]]:
    lines = [("Starting inference", request.start_ms)]
    if state is State.ENDED:
        lines.append(("Finished inference", request.end_ms))
    return [
        {"message": message, "timestamp": iso(at_ms), "level": "INFO", "source": "run"}
        for message, at_ms in lines
    ]
