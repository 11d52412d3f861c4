"""What is checked of a BFL input before it is sent, and what it is thought to cost."""

from decimal import Decimal
from typing import Any

import pytest

from service.providers.bfl import Bfl

BFL = Bfl(key="bfl-key", url="https://api.bfl.ai")


def paths(model: str, given: dict[str, Any]) -> list[str]:
    return [error.path for error in BFL.validate(model, given)]


FLUX2 = [
    "flux-2-pro",
    "flux-2-pro-preview",
    "flux-2-max",
    "flux-2-flex",
    "flux-2-klein-4b",
    "flux-2-klein-9b",
    "flux-2-klein-9b-preview",
    "flux-2-klein-4b-finetuned",
]


@pytest.mark.parametrize("model", FLUX2)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"width": 64, "height": 64},
        {"width": 2048, "height": 2048},
        {"width": None, "height": None, "seed": None, "input_image": None},
        {"seed": 2**70, "safety_tolerance": 5, "output_format": "webp", "user": "u" * 256},
        {"input_image": "https://x/1.png", "input_image_4": "aGVsbG8="},
        {"input_image_9": 7, "aspect_ratio": "1:1", "transparent_bg": True, "num_images": 4},
    ],
)
def test_a_good_input_of_flux_2_passes(model: str, given: dict[str, Any]) -> None:
    assert BFL.validate(model, {"prompt": "a fox", **given}) == []


@pytest.mark.parametrize("model", FLUX2)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", 7),
        ("width", 0),
        ("width", 48),
        ("width", 100),
        ("height", -16),
        ("height", 512.0),
        ("height", "512"),
        ("width", True),
        ("seed", 1.5),
        ("seed", "7"),
        ("safety_tolerance", 6),
        ("safety_tolerance", -1),
        ("output_format", "gif"),
        ("output_format", ["jpeg"]),
        ("user", ""),
        ("user", "u" * 257),
        ("input_image", ""),
        ("input_image_2", {"url": "x"}),
        ("webhook_url", "https://mine.example/"),
        ("webhook_secret", None),
    ],
)
def test_a_wrong_field_of_flux_2_is_named(model: str, field: str, value: Any) -> None:
    assert paths(model, {"prompt": "a fox", field: value}) == [f"input.{field}"]


def test_a_prompt_is_required() -> None:
    assert paths("flux-2-pro", {}) == ["input.prompt"]


def test_every_wrong_field_is_named_at_once() -> None:
    assert set(paths("flux-2-flex", {"width": 1, "steps": 51, "guidance": 1.4})) == {
        "input.prompt",
        "input.width",
        "input.steps",
        "input.guidance",
    }


def test_the_area_is_limited_to_4_megapixels() -> None:
    assert paths("flux-2-pro", {"prompt": "a fox", "width": 2048, "height": 2064}) == ["input.width"]
    assert paths("flux-2-pro", {"prompt": "a fox", "width": 4096, "height": 1024}) == []


def test_klein_takes_four_images_and_the_others_eight() -> None:
    given = {"prompt": "a fox", "input_image_5": "x", "input_image_8": "y"}
    assert paths("flux-2-klein-4b", given) == ["input.input_image_5", "input.input_image_8"]
    assert paths("flux-2-max", given) == []


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        ("flux-2-flex", "guidance", 10.5),
        ("flux-2-flex", "steps", 0),
        ("flux-2-flex", "prompt_upsampling", 1),
        ("flux-2-pro", "disable_pup", "yes"),
        ("flux-2-max", "disable_pup", 0),
        ("flux-2-klein-9b-kv-finetuned", "finetune_strength", "1"),
    ],
)
def test_fields_of_one_model_are_checked_there(model: str, field: str, value: Any) -> None:
    assert paths(model, {"prompt": "a fox", field: value}) == [f"input.{field}"]


def test_fields_of_another_model_are_unknown_and_pass() -> None:
    assert paths("flux-2-pro", {"prompt": "a fox", "steps": 99, "guidance": "x"}) == []


class TestFlux1:
    def test_it_tolerates_one_step_more(self) -> None:
        assert paths("flux-pro-1.1", {"safety_tolerance": 6}) == []
        assert paths("flux-kontext-pro", {"safety_tolerance": 7}) == ["input.safety_tolerance"]

    @pytest.mark.parametrize("side", [224, 1472, 1000, "1024"])
    def test_pro_1_1_has_its_own_sizes(self, side: Any) -> None:
        assert paths("flux-pro-1.1", {"width": side}) == ["input.width"]

    def test_kontext_takes_an_aspect_ratio_and_odd_sizes(self) -> None:
        assert paths("flux-kontext-max", {"prompt": "x", "aspect_ratio": "16:9", "width": 1000}) == []


class TestModels:
    def test_an_unknown_model_passes_with_any_input_but_ours(self) -> None:
        assert paths("flux-9-dream", {"width": "wide", "prompt": 7}) == []
        assert paths("flux-9-dream", {"webhook_url": None}) == ["input.webhook_url"]

    @pytest.mark.parametrize(
        "model",
        [
            "",
            "/flux-2-pro",
            "a//b",
            "../credits",
            "a/../b",
            "a?b=c",
            "a#b",
            "a b",
            "a%2e",
            ".hidden",
            "é",
            "a" * 201,
        ],
    )
    def test_an_id_that_is_no_safe_path_is_refused(self, model: str) -> None:
        assert paths(model, {"prompt": "a fox"}) == ["model"]


@pytest.mark.parametrize(
    ("model", "given", "usd"),
    [
        ("flux-2-pro", {}, "0.03"),
        ("flux-2-pro", {"width": 1024, "height": 1024}, "0.03"),
        ("flux-2-pro", {"input_image": "x"}, "0.045"),
        ("flux-2-pro", {"width": 1440, "height": 1440}, "0.045"),
        ("flux-2-max", {"input_image": "x"}, "0.10"),
        ("flux-2-flex", {"input_image": "x"}, "0.10"),
        ("flux-2-klein-4b", {"input_image": "x"}, "0.015"),
        ("flux-2-klein-9b", {"width": 2048, "height": 2048}, "0.021"),
        ("flux-2-klein-base-4b-finetuned", {}, "0.014"),
        ("flux-kontext-pro", {"width": 1440, "height": 1440}, "0.04"),
        ("flux-kontext-max", {}, "0.08"),
        ("flux-pro-1.1", {}, "0.04"),
        ("flux-pro-1.1-ultra", {}, "0.06"),
        ("flux-pro-1.0-fill", {}, "0.05"),
    ],
)
def test_the_estimate_follows_the_price_list(model: str, given: dict[str, Any], usd: str) -> None:
    assert BFL.estimate_usd(model, {"prompt": "a fox", **given}) == Decimal(usd)


@pytest.mark.parametrize("model", ["flux-dev", "flux-3-video", "vto-v2", "flux-9-dream"])
def test_without_a_known_price_there_is_no_estimate(model: str) -> None:
    assert BFL.estimate_usd(model, {"prompt": "a fox"}) is None
