"""What fal's FLUX.2 endpoints cost, in US dollars, for estimates.

https://fal.ai/models/fal-ai/flux-2/llms.txt and its sisters, read 2026-11-20; "secondary" sources and conflicts are
marked. fal's pricing API is the truth; these are for orientation, so nothing is settled by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

#: Documented examples (1024x1024 = 1, 1920x1080 = 2, 512x512 = 1) fit rounding up to whole 1024x1024; UNCONFIRMED.
_MEGAPIXEL = 1024 * 1024
_DEFAULT_STEPS = 1_000
#: Far above anything fal makes; keeps nonsense out of an estimate.
_MOST_STEPS = 1_000_000
_LARGEST_SIDE = 100_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """The first unit and each further one; a unit is a megapixel, or a training step."""

    first: Decimal
    further: Decimal
    counts_inputs: bool = False
    is_training: bool = False

    def estimate(self, input: Mapping[str, Any]) -> Decimal:
        """This function will price a request; input images, whose size nobody told, count as one megapixel each."""
        if self.is_training:
            steps = input.get("steps")
            return self.first * (steps if type(steps) is int and 0 < steps <= _MOST_STEPS else _DEFAULT_STEPS)
        count = input.get("num_images")
        units = _megapixels(input.get("image_size")) * (count if type(count) is int and count > 0 else 1)
        images = input.get("image_urls")
        if self.counts_inputs and isinstance(images, list):
            units += len(images)
        return self.first + self.further * (units - 1)


def _megapixels(image_size: Any) -> int:
    """Every preset is at most one megapixel, and so is counted what is sized after an input."""
    if not isinstance(image_size, dict):
        return 1
    width, height = image_size.get("width"), image_size.get("height")
    if type(width) is not int or type(height) is not int:
        return 1
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        return 1
    return -(-width * height // _MEGAPIXEL)


def _flat(usd: str, *, counts_inputs: bool = False) -> Price:
    return Price(first=Decimal(usd), further=Decimal(usd), counts_inputs=counts_inputs)


def _stepped(first: str, further: str) -> Price:
    return Price(first=Decimal(first), further=Decimal(further), counts_inputs=True)


TRAINING = Price(first=Decimal("0.0064"), further=Decimal("0.0064"), is_training=True)

PRICES: Mapping[str, Price] = {
    "fal-ai/flux-2": _flat("0.012"),
    "fal-ai/flux-2/edit": _flat("0.012", counts_inputs=True),  # inputs: secondary
    "fal-ai/flux-2/flash": _flat("0.005"),
    "fal-ai/flux-2/flash/edit": _flat("0.005", counts_inputs=True),  # inputs: as flux-2/edit, UNCONFIRMED
    "fal-ai/flux-2/turbo": _flat("0.008"),
    "fal-ai/flux-2/turbo/edit": _flat("0.008", counts_inputs=True),  # inputs: as flux-2/edit, UNCONFIRMED
    "fal-ai/flux-2/lora": _flat("0.021"),
    "fal-ai/flux-2/lora/edit": _flat("0.021", counts_inputs=True),  # inputs: as flux-2/edit, UNCONFIRMED
    "fal-ai/flux-2-pro": _stepped("0.03", "0.015"),
    "fal-ai/flux-2-pro/edit": _stepped("0.03", "0.015"),
    "fal-ai/flux-2-max": _stepped("0.07", "0.03"),
    "fal-ai/flux-2-max/edit": _stepped("0.07", "0.03"),
    "fal-ai/flux-2-flex": _flat("0.05", counts_inputs=True),
    "fal-ai/flux-2-flex/edit": _flat("0.05", counts_inputs=True),
    "fal-ai/flux-2/klein/4b": _flat("0.005"),  # older guide 0.009
    "fal-ai/flux-2/klein/4b/edit": _flat("0.01"),
    "fal-ai/flux-2/klein/9b": _flat("0.006"),  # older guide 0.014
    "fal-ai/flux-2/klein/9b/edit": _flat("0.011"),  # secondary
    "fal-ai/flux-2/klein/9b/base/edit/lora": _flat("0.02", counts_inputs=True),
    "fal-ai/flux-2-lora-gallery/virtual-tryon": _flat("0.021"),
}
