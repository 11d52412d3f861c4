"""Input rules of the fal models: broken ones are accepted at submit and show as a 422 on the result.

Ranges from https://fal.ai/models/fal-ai/flux-2/llms.txt, read 2026-11-20.
"""

from typing import Any

from service.simulator.png import clamp

PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
    "auto": (1024, 1024),
}
#: whole numbers and their ranges, wherever they are given
_RANGES: dict[str, tuple[float, float]] = {
    "num_images": (1, 4),
    "num_inference_steps": (4, 50),
    "guidance_scale": (0, 20),
}
_WITHOUT_PROMPT = ("outpaint", "add-background", "multiple-angles", "trainer")
_FAMILY = "fal-ai/flux-2"


def image_size(given: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of the images that an input asks for."""
    size = given.get("image_size", "landscape_4_3")
    if isinstance(size, dict):
        width, height = size.get("width"), size.get("height")
        if isinstance(width, int) and isinstance(height, int):
            return clamp(width), clamp(height)
    return PRESETS.get(size, (1024, 768)) if isinstance(size, str) else (1024, 768)


def input_errors(model: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the model finds wrong with an input, as it writes it; models that we do not know find nothing."""
    if not model.startswith(_FAMILY):
        return []
    errors = []
    if not any(part in model for part in _WITHOUT_PROMPT):
        errors += _text(given, "prompt")
    if model.endswith("/edit") and not given.get("image_urls"):
        errors.append(_error(["image_urls"], "Field required", "missing", given))
    for name, (lowest, highest) in _RANGES.items():
        if name in given:
            errors += _number(name, given[name], lowest, highest)
    return errors + _size(given.get("image_size"))


def _text(given: dict[str, Any], name: str) -> list[dict[str, Any]]:
    if name not in given:
        return [_error([name], "Field required", "missing", given)]
    if not isinstance(given[name], str):
        return [_error([name], "Input should be a valid string", "string_type", given[name])]
    return []


def _number(name: str, value: Any, lowest: float, highest: float) -> list[dict[str, Any]]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [_error([name], "Input should be a valid number", "float_parsing", value)]
    if value < lowest:
        message = f"Input should be greater than or equal to {lowest:g}"
        return [_error([name], message, "greater_than_equal", value, {"ge": lowest})]
    if value > highest:
        message = f"Input should be less than or equal to {highest:g}"
        return [_error([name], message, "less_than_equal", value, {"le": highest})]
    return []


def _size(size: Any) -> list[dict[str, Any]]:
    if size is None or (isinstance(size, str) and size in PRESETS):
        return []
    if isinstance(size, dict) and all(isinstance(size.get(side), int) for side in ("width", "height")):
        return [
            error for side in ("width", "height") for error in _number("image_size", size[side], 1, 14_142)
        ]
    return [
        _error(["image_size"], "Input should be a preset or an object of width and height", "one_of", size)
    ]


def _error(
    where: list[str], message: str, kind: str, value: Any, context: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "loc": ["body", *where],
        "msg": message,
        "type": kind,
        "url": f"https://docs.fal.ai/errors/#{kind}",
        "ctx": context or {},
        "input": value,
    }
