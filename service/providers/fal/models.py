"""The FLUX.2 endpoints of fal as data: what their inputs must be, and what they cost.

Sources, read 2026-11-20: names and types https://github.com/fal-ai/fal-js/tree/381105e/libs/client/src, ranges and
prices https://fal.ai/models/fal-ai/flux-2/llms.txt (and the other models' files of that name). Where no range is
documented only the type is checked; members that are not listed pass. `klein/realtime` is for websockets and is
treated as unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.domain.failures import FieldError
from service.providers.fal import fields
from service.providers.fal.fields import Rule, choice, integer, number, size
from service.providers.fal.prices import PRICES, TRAINING, Price
from service.providers.fal.urls import model_error

#: Ours: the callback is added where the request is sent.
_OURS = ("webhook_url", "webhook_secret")

Rules = Mapping[str, Rule]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    rules: Rules
    price: Price | None = None
    #: False: it makes other files, named by other members of its result.
    makes_images: bool = True


_PRESETS = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")

_ALL: Rules = {
    "seed": Rule(integer()),
    "enable_safety_checker": Rule(fields.flag),
    "sync_mode": Rule(fields.only_queued),
}
_PROMPT: Rules = {**_ALL, "prompt": Rule(fields.text, required=True)}
_SIZE: Rules = {"image_size": Rule(size(*_PRESETS))}
_SIZE_2048: Rules = {"image_size": Rule(size(*_PRESETS, low=512, high=2048))}
_SIZE_AUTO: Rules = {"image_size": Rule(size("auto", *_PRESETS))}
_PNG: Rules = {"output_format": Rule(choice("png", "jpeg", "webp"))}
_JPEG: Rules = {"output_format": Rule(choice("jpeg", "png"))}
_COUNT: Rules = {"num_images": Rule(integer(1, 4))}
_ACCELERATION: Rules = {"acceleration": Rule(choice("none", "regular", "high"))}
_EXPANSION: Rules = {"enable_prompt_expansion": Rule(fields.flag)}
_LORAS: Rules = {"loras": Rule(fields.loras)}
_NEGATIVE: Rules = {"negative_prompt": Rule(fields.free_text)}
_STEPS: Rules = {"num_inference_steps": Rule(integer(1))}
_GUIDANCE: Rules = {"guidance_scale": Rule(number())}
_FULL: Rules = {"num_inference_steps": Rule(integer(4, 50)), "guidance_scale": Rule(number(0, 20))}
#: A string, not a number: "1" is the strictest.
_SAFETY: Rules = {"safety_tolerance": Rule(choice("1", "2", "3", "4", "5"))}


def _images(most: int | None = None) -> Rules:
    return {"image_urls": Rule(fields.urls(most), required=True)}


def _open_models() -> Iterator[tuple[str, Endpoint]]:
    base = {**_PROMPT, **_SIZE_2048, **_PNG, **_COUNT, **_EXPANSION}
    kinds: tuple[tuple[str, Rules], ...] = (
        ("", {**base, **_FULL, **_ACCELERATION}),
        ("/flash", {**base, **_GUIDANCE}),
        ("/turbo", {**base, **_GUIDANCE}),
        ("/lora", {**base, **_STEPS, **_GUIDANCE, **_ACCELERATION, **_LORAS}),
    )
    for kind, rules in kinds:
        name = f"fal-ai/flux-2{kind}"
        yield name, Endpoint(rules=rules, price=PRICES[name])
        # flux-2, flash and turbo drop a fifth image silently: refused here, so that nobody misses it.
        yield f"{name}/edit", Endpoint(rules={**rules, **_images(4)}, price=PRICES[f"{name}/edit"])


def _closed_models() -> Iterator[tuple[str, Endpoint]]:
    kinds: tuple[tuple[str, Rules], ...] = (
        ("pro", {}),
        ("max", {}),
        ("flex", {**_STEPS, **_GUIDANCE}),
    )
    for kind, own in kinds:
        name = f"fal-ai/flux-2-{kind}"
        rules = {**_PROMPT, **_JPEG, **_SAFETY, **own}
        yield name, Endpoint(rules={**rules, **_SIZE}, price=PRICES[name])
        # Nine or ten images: sources disagree, so the tenth is left to fal.
        edit = {**rules, **_SIZE_AUTO, **_images(10)}
        yield f"{name}/edit", Endpoint(rules=edit, price=PRICES[f"{name}/edit"])
    sides = {f"expand_{side}": Rule(integer(0)) for side in ("top", "bottom", "left", "right")}
    outpaint: Rules = {
        **{name: rule for name, rule in _ALL.items() if name != "seed"},
        **_JPEG,
        **sides,
        "image_url": Rule(fields.url, required=True),
        "auto_crop": Rule(fields.flag),
        "mode": Rule(choice("high", "fast")),
    }
    yield "fal-ai/flux-2-pro/outpaint", Endpoint(rules=outpaint)


def _klein_models() -> Iterator[tuple[str, Endpoint]]:
    start = {**_PROMPT, **_SIZE, **_PNG, **_COUNT}
    few_steps = {"num_inference_steps": Rule(integer(4, 8))}
    for weight in ("4b", "9b"):
        name = f"fal-ai/flux-2/klein/{weight}"
        base = {**start, **_NEGATIVE, **_FULL, **_ACCELERATION}
        base_lora = {**start, **_NEGATIVE, **_STEPS, **_GUIDANCE, **_ACCELERATION, **_LORAS}
        kinds: tuple[tuple[str, Rules], ...] = (
            ("", {**start, **few_steps}),
            ("/edit", {**start, **few_steps, **_images(4)}),
            ("/lora", {**start, **_STEPS, **_LORAS}),
            ("/edit/lora", {**start, **_STEPS, **_LORAS, **_images(4)}),
            ("/base", base),
            ("/base/edit", {**base, **_images()}),
            ("/base/lora", base_lora),
            ("/base/edit/lora", {**base_lora, **_images(4)}),
        )
        for kind, rules in kinds:
            yield f"{name}{kind}", Endpoint(rules=rules, price=PRICES.get(f"{name}{kind}"))


_STYLES = (
    "ballpoint-pen-sketch",
    "digital-comic-art",
    "hdr-style",
    "realism",
    "satellite-view-style",
    "sepia-vintage",
)
_EDITS = (
    "add-background",
    "apartment-staging",
    "face-to-full-portrait",
    "virtual-tryon",
    "multiple-angles",
)


def _gallery_models() -> Iterator[tuple[str, Endpoint]]:
    acceleration = {"acceleration": Rule(choice("none", "regular"))}
    shared = {**_STEPS, **_GUIDANCE, **_PNG, **_COUNT, **acceleration, "lora_scale": Rule(number()), **_SIZE}
    folder = "fal-ai/flux-2-lora-gallery"
    for style in _STYLES:
        yield f"{folder}/{style}", Endpoint(rules={**_PROMPT, **shared})
    prompts: Mapping[str, Rules] = {
        "add-background": {**_ALL, "prompt": Rule(fields.free_text)},
        "multiple-angles": {
            **_ALL,
            **{name: Rule(number()) for name in ("horizontal_angle", "vertical_angle", "zoom")},
        },
    }
    for edit in _EDITS:
        name = f"{folder}/{edit}"
        rules = {**prompts.get(edit, _PROMPT), **shared, **_images()}
        yield name, Endpoint(rules=rules, price=PRICES.get(name))


def _trainers() -> Iterator[tuple[str, Endpoint]]:
    rules: Rules = {
        "image_data_url": Rule(fields.url, required=True),
        "steps": Rule(integer(1)),
        "learning_rate": Rule(number()),
        "default_caption": Rule(fields.free_text),
        "output_lora_format": Rule(fields.text),
    }
    for name in ("flux-2-trainer", "flux-2-trainer-v2", "flux-2-klein-9b-base-trainer"):
        for kind in ("", "/edit"):
            yield f"fal-ai/{name}{kind}", Endpoint(rules=rules, price=TRAINING, makes_images=False)


ENDPOINTS: Mapping[str, Endpoint] = {
    name: endpoint
    for models in (_open_models, _closed_models, _klein_models, _gallery_models, _trainers)
    for name, endpoint in models()
}


def validate(model: str, input: Mapping[str, Any]) -> list[FieldError]:
    """This function will check an input before anything is sent: a known model's by its rules, any by ours."""
    why = model_error(model)
    errors = [FieldError(path="model", message=why)] if why else []
    errors += [
        FieldError(path=f"input.{name}", message="is set by this service and must not be given")
        for name in _OURS
        if name in input
    ]
    endpoint = ENDPOINTS.get(model)
    for name, rule in endpoint.rules.items() if endpoint else ():
        value = input.get(name)
        if value is not None:
            errors += rule.check(f"input.{name}", value)
        elif rule.required:
            errors.append(FieldError(path=f"input.{name}", message="is required"))
    return errors
