"""Credits of BFL's models (1 credit = 0.01 USD): https://docs.bfl.ai/quick_start/pricing.md, read 2026-11-20."""

from decimal import Decimal
from typing import Any

from service.simulator.png import clamp

#: by prefix, the most special first: first output megapixel, each further one, each input megapixel
_FLUX2 = (
    ("flux-2-klein-4b", "1.4", "0.1", "0.1"),
    ("flux-2-klein-base-4b", "1.4", "0.1", "0.1"),
    ("flux-2-klein", "1.5", "0.2", "0.2"),
    ("flux-2-max", "7", "3", "3"),
    ("flux-2-flex", "5", "5", "5"),
    ("flux-2", "3", "1.5", "1.5"),
)
_PER_IMAGE = {
    "flux-kontext-pro": "4",
    "flux-kontext-max": "8",
    "flux-pro-1.1": "4",
    "flux-pro-1.1-ultra": "6",
    "flux-pro-1.0-fill": "5",
}
MEGAPIXEL = 1024**2


def image_size(given: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of the image; 1024 each unless the input says otherwise."""
    width, height = given.get("width") or 1024, given.get("height") or 1024
    return clamp(int(width)), clamp(int(height))


def input_megapixels(given: dict[str, Any]) -> float | None:
    """Return the size of the input images, each taken for one megapixel: they are never fetched."""
    images = sum(1 for name in given if name.startswith("input_image") and given[name])
    return float(images) or None


def output_megapixels(given: dict[str, Any]) -> float:
    """Return the size of the image in units of 1024 times 1024 pixels."""
    width, height = image_size(given)
    return round(width * height / MEGAPIXEL, 2)


def cost(model: str, given: dict[str, Any]) -> float:
    """Return the price of a request in credits; megapixels are rounded up, as far as anybody knows."""
    for prefix, first, further, each_input in _FLUX2:
        if model.startswith(prefix):
            width, height = image_size(given)
            whole = -(-width * height // MEGAPIXEL)
            inputs = int(input_megapixels(given) or 0)
            return float(Decimal(first) + (whole - 1) * Decimal(further) + inputs * Decimal(each_input))
    return float(_PER_IMAGE.get(model, "5"))
