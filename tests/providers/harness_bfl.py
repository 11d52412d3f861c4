"""BFL for the conformance suite."""

from typing import Any

from service.domain.callback import Received
from service.providers.base import Reply
from service.providers.bfl import Bfl
from tests.providers.harness import NOW_MS, REQUEST_ID, SECRET, Ending, Harness, reply

KEY = "bfl-key-0123456789abcdef"
RESULT = {
    "sample": "https://delivery-eu.bfl.ai/results/ab/sample.jpeg?se=2026-11-20T12%3A10%3A00Z&sig=a%3D%3D",
    "prompt": "a fox",
    "seed": 15860307465884635512,
    "start_time": 1754216958.97,
    "end_time": 1754216963.93,
    "duration": 4.95,
}
REASONS = {"Moderation Reasons": ["Derivative Works Filter"]}


def _task(**members: Any) -> dict[str, Any]:
    return {"id": REQUEST_ID, "status": "Ready", "result": None, "details": None, **members}


def _ending(**members: Any) -> Ending:
    task = _task(**members)
    return Ending(polled=[reply(200, task)], called_back=task)


def _taken(base: str) -> Reply:
    return reply(200, {"id": REQUEST_ID, "polling_url": f"{base}/v1/get_result?id={REQUEST_ID}", "cost": 3.0})


def _proved(body: bytes) -> Received:
    return Received(headers={"x-webhook-secret": SECRET}, body=body, received_ms=NOW_MS)


BFL = Harness(
    name="bfl",
    key=KEY,
    make=lambda: Bfl(key=KEY, url="https://api.bfl.ai"),
    own_domains=("bfl.ai",),
    model="flux-2-pro",
    known_models=("flux-2-pro", "flux-2-max", "flux-2-flex", "flux-2-klein-4b", "flux-pro-1.1"),
    input={"prompt": "a fox", "seed": 7},
    taken=_taken,
    link_names=("status",),
    status=lambda word: reply(200, _task(status=word, result=RESULT)),
    words_under_way=("Pending", "Reasoning", "Generating", "Task not found"),
    endings={
        "succeeded": _ending(result=RESULT),
        "failed": _ending(status="Error", error="generation failed"),
        "request moderated": _ending(status="Request Moderated", details=REASONS),
        "content moderated": _ending(status="Content Moderated"),
    },
    proved=_proved,
    proof_headers=("x-webhook-secret", "x-bfl-signature"),
    documents=[
        _task(result=RESULT, cost=3.0, progress=0.5),
        _task(status="Request Moderated", details=REASONS),
        {"id": REQUEST_ID, "polling_url": "https://api.us3.bfl.ai/v1/get_result", "cost": 3.0},
        {"detail": [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required", "input": {}}]},
        {"task_id": REQUEST_ID, "status": "SUCCESS", "result": RESULT},
    ],
)
