"""BFL's endpoints and their input rules, answered as FastAPI does.

https://api.bfl.ai/openapi.json of September 2026, read 2026-11-20.
"""

import re
from dataclasses import dataclass
from typing import Any

_FLUX2 = ("flux-2-pro", "flux-2-pro-preview", "flux-2-max", "flux-2-flex")
_KLEIN = ("flux-2-klein-4b", "flux-2-klein-9b", "flux-2-klein-9b-preview")
_OLDER = (
    "flux-pro-1.1",
    "flux-pro-1.1-ultra",
    "flux-dev",
    "flux-kontext-pro",
    "flux-kontext-max",
    "flux-pro-1.0-fill",
    "flux-pro-1.0-expand",
)
_TOOLS = ("erase-v1", "deblur-v1", "vto-v1", "vto-v2", "video-upscale-v1")
#: these refuse a webhook_url: they can only be polled
_CLOSED = ("flux-tools/outpainting-v1", "flux-3-video", "flux-tools/video-edit-v1")
_FINETUNED = re.compile(r"flux-2-klein-(4b|9b|9b-kv|9b-kv-bf16|base-4b|base-9b)-finetuned")

ENDPOINTS = frozenset((*_FLUX2, *_KLEIN, *_OLDER, *(f"flux-tools/{tool}" for tool in _TOOLS), *_CLOSED))


@dataclass(frozen=True, slots=True)
class Range:
    """A number's kind and closed range."""

    kind: type
    lowest: float
    highest: float | None = None


_NUMBERS = {
    "width": Range(int, 64),
    "height": Range(int, 64),
    "seed": Range(int, -(2**63)),
    "safety_tolerance": Range(int, 0, 5),
    "steps": Range(int, 1, 50),
    "guidance": Range(float, 1.5, 10),
}
#: FLUX.1 allows one step more (its own schemas; only this field differs among those that we check)
_NUMBERS_OLDER = {**_NUMBERS, "safety_tolerance": Range(int, 0, 6)}
_FORMATS = ("jpeg", "png", "webp")


def knows(model: str) -> bool:
    """Return whether there is such an endpoint."""
    return model in ENDPOINTS or _FINETUNED.fullmatch(model) is not None


def input_errors(model: str, given: Any) -> list[dict[str, Any]]:
    """Return the members of a 422's `detail`, empty when the input is good."""
    if not isinstance(given, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return [_error([], "model_attributes_type", message, given)]
    errors = _prompt(model, given)
    numbers = _NUMBERS if model.startswith("flux-2") else _NUMBERS_OLDER
    for name, allowed in numbers.items():
        if given.get(name) is not None:
            errors += _number(name, given[name], allowed)
    if given.get("output_format") not in (None, *_FORMATS):
        message = "Input should be 'jpeg', 'png' or 'webp'"
        context = {"expected": "'jpeg', 'png' or 'webp'"}
        errors.append(_error(["output_format"], "enum", message, given["output_format"], context))
    for name in ("input_image", *(f"input_image_{n}" for n in range(2, 9)), "webhook_secret"):
        if not isinstance(given.get(name), str | None):
            errors.append(_error([name], "string_type", "Input should be a valid string", given[name]))
    return errors + _webhook(model, given)


def _prompt(model: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    if "prompt" in given and not isinstance(given["prompt"], str):
        return [_error(["prompt"], "string_type", "Input should be a valid string", given["prompt"])]
    if "prompt" not in given and model.startswith("flux-2"):
        return [_error(["prompt"], "missing", "Field required", given)]
    return []


def _number(name: str, value: Any, allowed: Range) -> list[dict[str, Any]]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        word = allowed.kind.__name__
        full = "integer" if allowed.kind is int else "number"
        return [_error([name], f"{word}_type", f"Input should be a valid {full}", value)]
    if allowed.kind is int and value != int(value):
        message = "Input should be a valid integer, got a number with a fractional part"
        return [_error([name], "int_from_float", message, value)]
    if value < allowed.lowest:
        message = f"Input should be greater than or equal to {allowed.lowest:g}"
        return [_error([name], "greater_than_equal", message, value, {"ge": allowed.lowest})]
    if allowed.highest is not None and value > allowed.highest:
        message = f"Input should be less than or equal to {allowed.highest:g}"
        return [_error([name], "less_than_equal", message, value, {"le": allowed.highest})]
    return []


def _webhook(model: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    url = given.get("webhook_url")
    if url is None:
        return []
    if model in _CLOSED:
        return [_error(["webhook_url"], "extra_forbidden", "Extra inputs are not permitted", url)]
    if not isinstance(url, str) or not re.match(r"https?://[^/]", url):
        return [_error(["webhook_url"], "url_parsing", "Input should be a valid URL", url)]
    if len(url) > 2083:
        message = "URL should have at most 2083 characters"
        return [_error(["webhook_url"], "url_too_long", message, url, {"max_length": 2083})]
    return []


def _error(
    where: list[str], kind: str, message: str, value: Any, context: dict[str, Any] | None = None
) -> dict[str, Any]:
    error = {"type": kind, "loc": ["body", *where], "msg": message, "input": value}
    return {**error, "ctx": context} if context else error
