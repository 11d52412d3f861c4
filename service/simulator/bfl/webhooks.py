"""BFL's callbacks in every form that is documented or was seen, and false ones.

Official sources contradict each other, so one form is drawn per request (dial `bfl_auth`):
`secret` X-Webhook-Secret with id and Ready (https://docs.bfl.ml/flux_2/flux2_image_editing.md);
`secret_success` the same header with task_id and SUCCESS, seen in consumers
(https://github.com/flavioalexandre658/pixoo, https://github.com/gHashTag/ai-server);
`hmac` X-BFL-Signature over the raw body
(https://github.com/black-forest-labs/skills, skills/bfl-api/references/webhook-integration.md);
`none` no proof at all. All read 2026-11-20.
"""

import hmac
import json
import secrets
from hashlib import sha256
from typing import Any

from service.simulator.bfl.delivery import PREFIX, Delivery
from service.simulator.bfl.results import result_of, status_of
from service.simulator.clock import iso
from service.simulator.faults import BFL_AUTH
from service.simulator.ledger import State, TakenRequest
from service.simulator.plan import Outcome
from service.simulator.provider import Message

FORGERIES = ("wrong_secret", "wrong_signature", "no_header")
FORMS = BFL_AUTH[1:]


def form_of(request: TakenRequest, dial: str) -> str:
    """Return the form of a task's callbacks; fixed when it is first asked for."""
    if "form" not in request.notes:
        request.notes["form"] = request.plan.dice.choose("form", FORMS) if dial == "any" else dial
    return str(request.notes["form"])


def callback(request: TakenRequest, form: str, delivery: Delivery, now_ms: int) -> Message:
    """Return the true callback; the body is the same at every delivery."""
    if "callback" not in request.notes:
        request.notes["callback"] = _encode(_document(request, form, delivery, now_ms))
    body: bytes = request.notes["callback"]
    return Message(_headers(form, request.webhook_secret, body), body)


def progress(request: TakenRequest, form: str) -> Message | None:
    """Return the event that some consumers saw before the end."""
    if form != "secret_success" or not request.plan.dice.choose("progress", (True, False)):
        return None
    body = _encode({"task_id": request.id, "status": "processing", "result": None})
    return Message(_headers(form, request.webhook_secret, body), body)


def forgery(request: TakenRequest, form: str, now_ms: int) -> tuple[str, Message]:
    """Return a false callback that claims another result."""
    kind = request.plan.dice.choose("forgery", FORGERIES)
    result = {
        "sample": f"{request.base_url}{PREFIX}/results/forged/sample-64x64.png",
        "prompt": "forged",
        "seed": 666,
    }
    if form == "secret_success":
        body = _encode({"task_id": request.id, "status": "SUCCESS", "result": result})
    else:
        body = _encode({"id": request.id, "status": "Ready", "result": result, "timestamp": iso(now_ms)})
    wrong = secrets.token_urlsafe(32)
    proof = {"wrong_secret": "secret", "wrong_signature": "hmac", "no_header": "none"}[kind]
    return kind, Message(_headers(proof, wrong, body), body)


def _headers(form: str, secret: str | None, body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if form == "none" or not secret:
        return headers
    if form == "hmac":
        return {**headers, "X-BFL-Signature": "sha256=" + hmac.digest(secret.encode(), body, sha256).hex()}
    return {**headers, "X-Webhook-Secret": secret}


def _document(request: TakenRequest, form: str, delivery: Delivery, now_ms: int) -> dict[str, Any]:
    outcome, status = request.plan.outcome, status_of(request, State.ENDED)
    result = result_of(request, delivery) if outcome is Outcome.SUCCEEDED else None
    if form == "secret_success":
        words = {"Ready": "SUCCESS", "Content Moderated": "GENERATED CONTENT MODERATED"}
        seen = {**result, "pre_filtered": False} if result else None
        return {"task_id": request.id, "status": words.get(status, status), "result": seen}
    document = {"id": request.id, "status": status, "result": result, "timestamp": iso(now_ms)}
    if outcome is Outcome.FAILED:
        return {**document, "error": "generation_failed", "message": "The image could not be generated"}
    if outcome is Outcome.MODERATED:
        return {**document, "error": "content_policy_violation", "message": "The content was moderated"}
    return document


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
