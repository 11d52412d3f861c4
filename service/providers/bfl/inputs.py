"""What an input is checked for before anything is sent, and what it will probably cost."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from service.domain.failures import FieldError
from service.domain.money import BFL_CREDIT_USD
from service.providers.bfl import models
from service.providers.bfl.models import Model
from service.providers.bfl.urls import model_error


def errors_in(name: str, given: Mapping[str, Any]) -> list[FieldError]:
    """This function will check an input; unknown models and fields pass, and what is ours never does."""
    wrong_name = model_error(name)
    if wrong_name is not None:
        return [FieldError(path="model", message=wrong_name)]
    model = models.find(name)
    found = [_error(field, "is set by this service") for field in models.OURS if field in given]
    found += [_error(field, "is required") for field in model.required if given.get(field) is None]
    for field, check in model.fields.items():
        value = given.get(field)
        message = check.wrong(value) if value is not None else None
        if message is not None:
            found.append(_error(field, message))
    return found + _too_many_images(model, given) + ([] if found else _too_many_pixels(model, given))


def _error(field: str, message: str) -> FieldError:
    return FieldError(path=f"input.{field}", message=message)


def _too_many_images(model: Model, given: Mapping[str, Any]) -> list[FieldError]:
    if model.most_images is None:
        return []
    beyond = models.image_names(models.MOST_IMAGES)[model.most_images :]
    message = f"is one too many: this model takes at most {model.most_images} input images"
    return [_error(field, message) for field in beyond if given.get(field) is not None]


def _too_many_pixels(model: Model, given: Mapping[str, Any]) -> list[FieldError]:
    """Both sides are integers or null here."""
    width, height = given.get("width"), given.get("height")
    if not model.limits_pixels or width is None or height is None or width * height <= models.MOST_PIXELS:
        return []
    return [_error("width", "times height must be at most 4 megapixels (2048 x 2048)")]


def estimate_usd(name: str, given: Mapping[str, Any]) -> Decimal | None:
    """This function will say what a request probably costs, for budgets; BFL's own figure is what is booked.

    Begun megapixels count as whole ones; a size that is not given counts as one megapixel, and so does each input
    image, whose size is not known here. None where no price is known.
    """
    model = models.find(name)
    if model.price is None:
        return None
    images = sum(given.get(field) is not None for field in models.image_names(model.most_images or 0))
    further = _output_megapixels(given) - 1
    price = model.price.first + model.price.further_mp * further + model.price.input_mp * images
    return price * BFL_CREDIT_USD


def _output_megapixels(given: Mapping[str, Any]) -> int:
    sides = [given.get("width"), given.get("height")]
    pixels = 1
    for side in sides:
        known = isinstance(side, int) and 0 < side <= 2**16
        pixels *= side if known and side is not None else 1024
    return max(1, -(-pixels // models.PIXELS_OF_A_MEGAPIXEL))
