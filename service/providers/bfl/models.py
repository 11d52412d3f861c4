"""BFL's models as data: where each is submitted, which fields it checks, what it costs.

https://api.bfl.ai/openapi.json of September 2026 and https://docs.bfl.ai/quick_start/pricing.md, read 2026-11-20.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from service.providers.bfl.fields import Field, Integer, Number, OneOf, Switch, Text

#: Ours in every request: the service sets them, a caller never does.
OURS = ("webhook_url", "webhook_secret")
MOST_PIXELS = 2048 * 2048
PIXELS_OF_A_MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Price:
    """In credits. For models that are priced by image, only `first` counts."""

    first: Decimal
    further_mp: Decimal = Decimal(0)
    input_mp: Decimal = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One endpoint. `path` follows `/v1/`."""

    path: str
    fields: Mapping[str, Field]
    required: tuple[str, ...] = ()
    #: Its schema is closed and knows no webhook_url, which would be a 422: polled only.
    takes_webhook: bool = True
    #: None: this model's schema of input images is not checked.
    most_images: int | None = None
    #: Whether width times height is held to `MOST_PIXELS`.
    limits_pixels: bool = False
    price: Price | None = None


def _price(first: str, further_mp: str = "0", input_mp: str = "0") -> Price:
    return Price(first=Decimal(first), further_mp=Decimal(further_mp), input_mp=Decimal(input_mp))


def image_names(count: int) -> list[str]:
    """This function will name the fields of the first input images: input_image, input_image_2, …"""
    return ["input_image", *(f"input_image_{number}" for number in range(2, count + 1))]


MOST_IMAGES = 8
# The schema's default of width and height is 0, below its own minimum: omitted they are, 0 is never sent.
# Whether BFL rounds sizes that are no multiple of 16 or refuses them is unconfirmed, so they are refused here.
_FLUX2: Mapping[str, Field] = {
    "prompt": Text(),
    **{name: Text(shortest=1) for name in image_names(MOST_IMAGES)},
    "width": Integer(lowest=64, step=16),
    "height": Integer(lowest=64, step=16),
    "seed": Integer(),
    # The schema's range; tables of the docs still say 0..6.
    "safety_tolerance": Integer(lowest=0, highest=5),
    "output_format": OneOf(("jpeg", "png", "webp")),
    "user": Text(shortest=1, longest=256),
}
_FLUX1: Mapping[str, Field] = {"seed": Integer(), "safety_tolerance": Integer(lowest=0, highest=6)}
_SIDES_OF_1_1 = Integer(lowest=256, highest=1440, step=32)

_KLEIN_4B = _price("1.4", "0.1", "0.1")
_KLEIN_9B = _price("1.5", "0.2", "0.2")


def _flux2(path: str, price: Price, most_images: int = MOST_IMAGES, **more: Field) -> Model:
    return Model(
        path=path,
        fields={**_FLUX2, **more},
        required=("prompt",),
        most_images=most_images,
        limits_pixels=True,
        price=price,
    )


def _klein(path: str, price: Price, **more: Field) -> Model:
    return _flux2(path, price, 4, **more)


def _flux1(path: str, image_price: str | None = None, **more: Field) -> Model:
    return Model(path=path, fields={**_FLUX1, **more}, price=_price(image_price) if image_price else None)


def _tool(name: str, *, takes_webhook: bool = True) -> Model:
    return Model(path=f"flux-tools/{name}", fields={}, takes_webhook=takes_webhook)


_ALL = (
    _flux2("flux-2-pro", _price("3", "1.5", "1.5"), disable_pup=Switch()),
    _flux2("flux-2-pro-preview", _price("3", "1.5", "1.5"), disable_pup=Switch()),
    _flux2("flux-2-max", _price("7", "3", "3"), disable_pup=Switch()),
    _flux2(
        "flux-2-flex",
        _price("5", "5", "5"),
        prompt_upsampling=Switch(),
        guidance=Number(lowest=1.5, highest=10),
        steps=Integer(lowest=1, highest=50),
    ),
    _klein("flux-2-klein-4b", _KLEIN_4B),
    _klein("flux-2-klein-9b", _KLEIN_9B),
    _klein("flux-2-klein-9b-preview", _KLEIN_9B),
    # LoRA beta, not in the OpenAPI: https://docs.bfl.ai/flux_2/flux2_lora_inference.md (read 2026-11-20).
    *(
        _klein(
            f"flux-2-klein-{base}-finetuned",
            _KLEIN_4B if "4b" in base else _KLEIN_9B,
            finetune_id=Text(shortest=1),
            finetune_strength=Number(),
        )
        for base in ("4b", "9b", "9b-kv", "9b-kv-bf16", "base-4b", "base-9b")
    ),
    _flux1("flux-pro-1.1", "4", width=_SIDES_OF_1_1, height=_SIDES_OF_1_1),
    _flux1("flux-pro-1.1-ultra", "6"),
    _flux1("flux-dev"),
    _flux1("flux-kontext-pro", "4"),
    _flux1("flux-kontext-max", "8"),
    _flux1("flux-pro-1.0-fill", "5"),
    _flux1("flux-pro-1.0-expand"),
    *(_tool(name) for name in ("erase-v1", "deblur-v1", "vto-v1", "vto-v2", "video-upscale-v1")),
    _tool("outpainting-v1", takes_webhook=False),
    _tool("video-edit-v1", takes_webhook=False),
    Model(path="flux-3-video", fields={}, takes_webhook=False),
)
#: By path and, for the tools, by their last word too.
KNOWN: Mapping[str, Model] = {
    **{model.path.rpartition("/")[2]: model for model in _ALL},
    **{model.path: model for model in _ALL},
}
_NEWER_THAN_US = re.compile(r"flux-3\b")


def find(name: str) -> Model:
    """This function will describe a model; one that we do not know is submitted at its own name.

    FLUX 3 schemas are closed so far: a newer one of them gets no webhook, since polling finds its result anyhow
    and a refused field would fail the job.
    """
    known = KNOWN.get(name)
    if known is not None:
        return known
    return Model(path=name, fields={}, takes_webhook=_NEWER_THAN_US.match(name) is None)
