"""Inputs of fal's FLUX.2 endpoints are checked before anything is sent, and priced where a price is known."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.fal.models import ENDPOINTS
from tests.providers.fal_scene import SEED, fal

IMAGE = "https://example.com/cat.png"
FLUX, PRO, FLEX = "fal-ai/flux-2", "fal-ai/flux-2-pro", "fal-ai/flux-2-flex"
KLEIN, GALLERY, TRAINER = "fal-ai/flux-2/klein/4b", "fal-ai/flux-2-lora-gallery", "fal-ai/flux-2-trainer"


def paths(model: str, **given: Any) -> list[str]:
    return [error.path for error in fal().validate(model, {"prompt": "a cat", **given})]


def example(model: str) -> dict[str, Any]:
    """Give the smallest input that a known model takes."""
    values = {"prompt": "a cat", "image_urls": [IMAGE], "image_url": IMAGE, "image_data_url": IMAGE}
    return {name: values[name] for name, rule in ENDPOINTS[model].rules.items() if rule.required}


def test_all_queued_flux_2_endpoints_are_known() -> None:
    """Forty-nine ids are published; one of them, klein/realtime, is for websockets."""
    assert len(ENDPOINTS) == 48


@pytest.mark.parametrize("model", ENDPOINTS)
def test_the_smallest_input_of_a_model_passes_and_each_required_member_is_missed(model: str) -> None:
    given = example(model)
    assert fal().validate(model, given) == []
    for name in given:
        for rest in ({k: v for k, v in given.items() if k != name}, {**given, name: None}):
            assert [error.path for error in fal().validate(model, rest)] == [f"input.{name}"]


@pytest.mark.parametrize("model", [model for model in ENDPOINTS if "trainer" not in model])
def test_sync_mode_is_refused_because_the_queue_keeps_no_such_result(model: str) -> None:
    assert [e.path for e in fal().validate(model, {**example(model), "sync_mode": True})] == [
        "input.sync_mode"
    ]
    assert fal().validate(model, {**example(model), "sync_mode": False}) == []


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (FLUX, {"seed": SEED, "num_images": 4, "num_inference_steps": 4, "guidance_scale": 20}),
        (
            FLUX,
            {"image_size": {"width": 512, "height": 2048}, "acceleration": "high", "output_format": "webp"},
        ),
        (FLUX, {"image_size": "landscape_16_9", "enable_prompt_expansion": True, "seed": None}),
        (FLUX, {"a_member_we_do_not_know": {"x": 1}}),
        (f"{FLUX}/edit", {"image_urls": [IMAGE, "data:image/png;base64,AA=="] * 2}),
        (f"{FLUX}/lora", {"loras": [{"path": "https://x/l", "scale": 0.5}, {"path": "x"}]}),
        (PRO, {"safety_tolerance": "5", "output_format": "jpeg"}),
        (f"{PRO}/edit", {"image_urls": [IMAGE] * 10, "image_size": "auto"}),
        (KLEIN, {"num_inference_steps": 8}),
        (f"{KLEIN}/base/edit", {"image_urls": [IMAGE] * 6, "negative_prompt": "", "guidance_scale": 4.5}),
        (f"{GALLERY}/multiple-angles", {"image_urls": [IMAGE], "horizontal_angle": -45, "zoom": 5}),
        ("fal-ai/flux-2-pro/outpaint", {"image_url": IMAGE, "expand_top": 0, "mode": "fast", "prompt": 5}),
        (TRAINER, {"image_data_url": IMAGE, "learning_rate": 0.00005, "steps": 1}),
        ("someone/unknown", {"sync_mode": True, "num_images": "many", "prompt": None}),
        ("fal-ai/flux-2/klein/realtime", {"anything": 1}),
    ],
)
def test_what_fal_takes_passes(model: str, given: dict[str, Any]) -> None:
    assert paths(model, **given) == []


@pytest.mark.parametrize(
    ("model", "given", "path"),
    [
        (FLUX, {"prompt": ""}, "prompt"),
        (FLUX, {"prompt": ["a cat"]}, "prompt"),
        (FLUX, {"seed": 1.0}, "seed"),
        (FLUX, {"seed": True}, "seed"),
        (FLUX, {"seed": "1"}, "seed"),
        (FLUX, {"num_images": 0}, "num_images"),
        (FLUX, {"num_images": 5}, "num_images"),
        (FLUX, {"num_inference_steps": 3}, "num_inference_steps"),
        (FLUX, {"num_inference_steps": 51}, "num_inference_steps"),
        (FLUX, {"guidance_scale": -0.1}, "guidance_scale"),
        (FLUX, {"guidance_scale": 20.1}, "guidance_scale"),
        (FLUX, {"guidance_scale": "2"}, "guidance_scale"),
        (FLUX, {"enable_safety_checker": 1}, "enable_safety_checker"),
        (FLUX, {"sync_mode": "true"}, "sync_mode"),
        (FLUX, {"acceleration": "fast"}, "acceleration"),
        (FLUX, {"output_format": "gif"}, "output_format"),
        (FLUX, {"image_size": "auto"}, "image_size"),
        (FLUX, {"image_size": 1024}, "image_size"),
        (FLUX, {"image_size": {"width": 511, "height": 512}}, "image_size.width"),
        (FLUX, {"image_size": {"width": 512, "height": 2049}}, "image_size.height"),
        (FLUX, {"image_size": {"width": 512}}, "image_size.height"),
        (f"{FLUX}/edit", {"image_urls": []}, "image_urls"),
        (f"{FLUX}/edit", {"image_urls": IMAGE}, "image_urls"),
        (f"{FLUX}/edit", {"image_urls": [IMAGE] * 5}, "image_urls"),
        (f"{FLUX}/edit", {"image_urls": [IMAGE, "file:///etc/passwd"]}, "image_urls.1"),
        (f"{FLUX}/lora", {"loras": [{"path": "x"}] * 4}, "loras"),
        (f"{FLUX}/lora", {"loras": [{"scale": 1}]}, "loras.0.path"),
        (f"{FLUX}/lora", {"loras": [{"path": "x", "scale": "1"}]}, "loras.0.scale"),
        (f"{FLUX}/lora", {"loras": ["x"]}, "loras.0"),
        (PRO, {"safety_tolerance": 2}, "safety_tolerance"),
        (PRO, {"safety_tolerance": "6"}, "safety_tolerance"),
        (PRO, {"output_format": "webp"}, "output_format"),
        (PRO, {"image_size": "auto"}, "image_size"),
        (f"{PRO}/edit", {"image_urls": [IMAGE] * 11}, "image_urls"),
        (KLEIN, {"num_inference_steps": 9}, "num_inference_steps"),
        (f"{GALLERY}/realism", {"acceleration": "high"}, "acceleration"),
        ("fal-ai/flux-2-pro/outpaint", {"image_url": IMAGE, "expand_left": -1}, "expand_left"),
        (TRAINER, {"image_data_url": "cats.zip"}, "image_data_url"),
    ],
)
def test_what_fal_would_refuse_is_refused_with_its_path(model: str, given: dict[str, Any], path: str) -> None:
    assert paths(model, **given) == [f"input.{path}"]


@pytest.mark.parametrize("model", [FLUX, "someone/unknown"])
@pytest.mark.parametrize("name", ["webhook_url", "webhook_secret"])
@pytest.mark.parametrize("value", ["https://x", None])
def test_the_callback_is_ours_to_set(model: str, name: str, value: Any) -> None:
    assert paths(model, **{name: value}) == [f"input.{name}"]


@pytest.mark.parametrize(
    "model",
    [
        "",
        "flux-2",
        "/a/b",
        "a/b/",
        "a//b",
        "a/..",
        "../b",
        "a/./b",
        "a/b?fal_webhook=x",
        "a/b#x",
        "a/b%2fc",
        "a/b c",
        "a/b\n",
        "a\\b/c",
        "a/b@c",
        "a/b:80",
        "ä/b",
        "a/b/requests/1/cancel",
        "workflows/me",
        "a/" + "b" * 200,
    ],
)
def test_a_model_that_could_steer_our_key_is_refused(model: str) -> None:
    assert paths(model) == ["model"]


@pytest.mark.parametrize("model", ["a/b", "workflows/me/mine", "fal-ai/x.y_z~1/v1.1/pro"])
def test_an_unknown_model_of_the_right_form_passes(model: str) -> None:
    assert paths(model) == []


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["width", "height", "path", "x"]), inner)
    ),
    max_leaves=8,
)


@given(data=st.data(), model=st.sampled_from(sorted(ENDPOINTS)))
def test_no_input_raises_and_every_fault_has_its_path(data: st.DataObject, model: str) -> None:
    names = st.sampled_from([*ENDPOINTS[model].rules, "unknown"])
    given_input = data.draw(st.dictionaries(names, _values))
    for error in fal().validate(model, given_input):
        assert error.path.startswith("input.")
        assert error.message
    estimate = fal().estimate_usd(model, given_input)
    assert estimate is None or estimate > 0


@pytest.mark.parametrize(
    ("model", "given", "usd"),
    [
        (FLUX, {}, "0.012"),
        (FLUX, {"num_images": 3}, "0.036"),
        (FLUX, {"image_size": {"width": 1024, "height": 1024}}, "0.012"),
        (FLUX, {"image_size": {"width": 1920, "height": 1080}}, "0.024"),
        (FLUX, {"image_size": {"width": 512, "height": 512}}, "0.012"),
        (f"{FLUX}/edit", {"image_urls": [IMAGE, IMAGE], "num_images": 2}, "0.048"),
        (PRO, {}, "0.03"),
        (PRO, {"image_size": {"width": 1920, "height": 1080}}, "0.045"),
        (f"{PRO}/edit", {"image_urls": [IMAGE], "image_size": "auto"}, "0.045"),
        ("fal-ai/flux-2-max/edit", {"image_urls": [IMAGE]}, "0.1"),
        (f"{FLEX}/edit", {"image_urls": [IMAGE]}, "0.1"),
        (KLEIN, {}, "0.005"),
        (f"{KLEIN}/edit", {"image_urls": [IMAGE] * 4}, "0.01"),
        (TRAINER, {}, "6.4"),
        (TRAINER, {"steps": 10}, "0.064"),
    ],
)
def test_a_known_price_gives_an_estimate(model: str, given: dict[str, Any], usd: str) -> None:
    assert fal().estimate_usd(model, given) == Decimal(usd)


@pytest.mark.parametrize("model", ["someone/unknown", "fal-ai/flux-2-pro/outpaint", f"{KLEIN}/base"])
def test_without_a_price_there_is_no_estimate(model: str) -> None:
    assert fal().estimate_usd(model, {}) is None
