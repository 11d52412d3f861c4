"""What the fake models answer: images, or one of the errors that real ones answer.

Sources, read 2026-11-20: https://fal.ai/docs/documentation/model-apis/errors.md (model errors),
https://fal.ai/docs/documentation/model-apis/request-errors.md (infrastructure errors),
https://fal.ai/models/fal-ai/flux-2/llms.txt (inputs and outputs).
"""

import base64
from dataclasses import dataclass, field
from typing import Any

from service.simulator.fal.validation import image_size, input_errors
from service.simulator.ledger import TakenRequest
from service.simulator.plan import Outcome
from service.simulator.png import picture

#: models without input rules here may ask for any number
MOST_IMAGES = 16
#: models of the flux-2 family whose output has no NSFW flags, timings or prompt
_PLAIN = ("flux-2-pro", "flux-2-max", "flux-2-flex")
#: infrastructure errors and their statuses
_INFRASTRUCTURE = (
    ("runner_disconnected", 503),
    ("runner_scheduling_failure", 503),
    ("runner_server_error", 500),
    ("request_timeout", 504),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the result request answers; `error_type` only for infrastructure errors, which the status shows too."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    error_type: str | None = None


def answer_of(request: TakenRequest) -> Answer:
    """Return the model's answer to an ended request, the same at every call."""
    answer: Answer | None = request.notes.get("answer")
    if answer is None:
        answer = request.notes["answer"] = _answer(request)
    return answer


def picture_of(request: TakenRequest, index: int) -> bytes:
    """Return one result file."""
    width, height = image_size(request.input)
    return picture(width=width, height=height, name=f"fal {request.id} {index}")


def image_count(request: TakenRequest) -> int:
    """Return how many images the request asked for."""
    count = request.input.get("num_images", 1)
    return max(1, min(count, MOST_IMAGES)) if isinstance(count, int) else 1


def _answer(request: TakenRequest) -> Answer:
    dice = request.plan.dice
    if request.canceled or _honours_cancel(request):
        return _infrastructure("Request was cancelled", "client_cancelled", 499)
    if request.start_timed_out:
        late = _infrastructure("Request did not start in time", "request_timeout", 504)
        return Answer(
            late.status, late.body, {**late.headers, "X-Fal-Request-Timeout-Type": "user"}, late.error_type
        )
    errors = input_errors(request.model, request.input)
    if errors:
        return Answer(422, {"detail": errors}, {"x-fal-billable-units": "0"})
    if request.plan.outcome is Outcome.MODERATED:
        return _model_error(
            422, "content_policy_violation", "The content could not be processed", retryable=False
        )
    if request.plan.outcome is not Outcome.FAILED:
        return Answer(200, _images(request), {"x-fal-billable-units": str(_billable_units(request))})
    failure = dice.choose("failure", ("model", "infrastructure", "no_media", "no_images"))
    if failure == "model":
        return _model_error(500, "internal_server_error", "Internal server error", retryable=True)
    if failure == "infrastructure":
        error_type, status = dice.choose("infrastructure", _INFRASTRUCTURE)
        return _infrastructure(f"The request failed: {error_type}", error_type, status)
    if failure == "no_media":
        return _model_error(422, "no_media_generated", "No media was generated", retryable=False)
    return Answer(200, {**_images(request), "images": []}, {"x-fal-billable-units": "1"})


def _honours_cancel(request: TakenRequest) -> bool:
    return request.cancel_asked_ms is not None and request.plan.dice.choose("honours cancel", (True, False))


def _infrastructure(message: str, error_type: str, status: int) -> Answer:
    body = {"detail": message, "error_type": error_type}
    return Answer(status, body, {"X-Fal-Error-Type": error_type}, error_type)


def _model_error(status: int, kind: str, message: str, *, retryable: bool) -> Answer:
    detail = {
        "loc": ["body", "prompt"],
        "msg": message,
        "type": kind,
        "url": f"https://docs.fal.ai/errors/#{kind}",
    }
    headers = {"X-Fal-Retryable": str(retryable).lower(), "x-fal-billable-units": "0"}
    return Answer(status, {"detail": [detail]}, headers)


def _billable_units(request: TakenRequest) -> int:
    width, height = image_size(request.input)
    return -(-width * height // 1024**2) * image_count(request)


def _images(request: TakenRequest) -> dict[str, Any]:
    dice, given = request.plan.dice, request.input
    count = image_count(request)
    output: dict[str, Any] = {"images": [_image(request, index) for index in range(count)]}
    if "outpaint" not in request.model:
        # fal's own examples exceed signed 64 bit, so drawn seeds do too.
        output["seed"] = given["seed"] if isinstance(given.get("seed"), int) else dice.number("seed")
    if not any(plain in request.model for plain in _PLAIN):
        output["timings"] = {"inference": request.plan.run_ms / 1_000}
        output["has_nsfw_concepts"] = [False] * count
        output["prompt"] = given.get("prompt", "")
    return output


def _image(request: TakenRequest, index: int) -> dict[str, Any]:
    width, height = image_size(request.input)
    if request.input.get("sync_mode") is True:
        data = base64.b64encode(picture_of(request, index)).decode()
        url = f"data:image/png;base64,{data}"
    else:
        url = f"{request.base_url}/fal-files/{request.id}/{index}.png"
    return {
        "url": url,
        "content_type": "image/png",
        "file_name": f"{request.id}-{index}.png",
        "file_size": len(picture_of(request, index)),
        "width": width,
        "height": height,
    }
