"""Checks for one member of a model's input: each yields what is wrong, with the member's dotted path."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.domain.failures import FieldError

Check = Callable[[str, Any], Iterator[FieldError]]

_INPUT_SCHEMES = ("https://", "http://", "data:")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a member must be. Absent and null are the same to a rule: fal's optional members take both."""

    check: Check
    required: bool = False


def text(path: str, value: Any) -> Iterator[FieldError]:
    """This function will accept text that is not empty."""
    if not isinstance(value, str):
        yield FieldError(path=path, message="must be a string")
    elif not value:
        yield FieldError(path=path, message="must not be empty")


def free_text(path: str, value: Any) -> Iterator[FieldError]:
    """This function will accept any text."""
    if not isinstance(value, str):
        yield FieldError(path=path, message="must be a string")


def flag(path: str, value: Any) -> Iterator[FieldError]:
    """This function will accept true and false."""
    if not isinstance(value, bool):
        yield FieldError(path=path, message="must be true or false")


def only_queued(path: str, value: Any) -> Iterator[FieldError]:
    """This function will refuse `sync_mode`: fal keeps no such result, so a lost callback could not be made good."""
    if value is True:
        yield FieldError(path=path, message="must be false: fal's queue keeps no result of sync_mode")
    else:
        yield from flag(path, value)


def integer(low: int | None = None, high: int | None = None) -> Check:
    """This function will make a check for a whole number, bounds included."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if type(value) is not int:
            yield FieldError(path=path, message="must be an integer")
        else:
            yield from _bounds(path, value, low, high)

    return check


def number(low: float | None = None, high: float | None = None) -> Check:
    """This function will make a check for a number, bounds included."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield FieldError(path=path, message="must be a number")
        else:
            yield from _bounds(path, value, low, high)

    return check


def _bounds(path: str, value: float, low: float | None, high: float | None) -> Iterator[FieldError]:
    if low is not None and value < low:
        yield FieldError(path=path, message=f"must be at least {low}")
    elif high is not None and value > high:
        yield FieldError(path=path, message=f"must be at most {high}")


def choice(*options: str) -> Check:
    """This function will make a check for one of some words."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if not isinstance(value, str) or value not in options:
            words = ", ".join(f'"{option}"' for option in options)
            yield FieldError(path=path, message=f"must be one of {words}")

    return check


def url(path: str, value: Any) -> Iterator[FieldError]:
    """This function will accept what fal can read a file from: an http(s) URL or a data URI."""
    if not isinstance(value, str) or not value.lower().startswith(_INPUT_SCHEMES):
        yield FieldError(path=path, message="must be an http(s) URL or a data URI")


def urls(most: int | None = None) -> Check:
    """This function will make a check for a list of one or more URLs."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if not isinstance(value, list) or not value:
            yield FieldError(path=path, message="must be a list of at least one URL")
        elif most is not None and len(value) > most:
            yield FieldError(path=path, message=f"must hold at most {most} URLs")
        else:
            for position, item in enumerate(value):
                yield from url(f"{path}.{position}", item)

    return check


def size(*presets: str, low: int = 1, high: int | None = None) -> Check:
    """This function will make a check for an image size: a preset's name, or width and height in pixels."""
    extent = integer(low, high)

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if isinstance(value, dict):
            for side in ("width", "height"):
                yield from extent(f"{path}.{side}", value.get(side))
        elif not isinstance(value, str) or value not in presets:
            words = ", ".join(presets)
            yield FieldError(path=path, message=f"must be an object with width and height, or one of {words}")

    return check


def loras(path: str, value: Any) -> Iterator[FieldError]:
    """This function will accept at most three objects of `path` and, if wanted, `scale`."""
    if not isinstance(value, list) or len(value) > 3:
        yield FieldError(path=path, message="must be a list of at most 3 LoRAs")
        return
    for position, item in enumerate(value):
        at = f"{path}.{position}"
        if not isinstance(item, dict):
            yield FieldError(path=at, message="must be an object with path and scale")
            continue
        yield from text(f"{at}.path", item.get("path"))
        if item.get("scale") is not None:
            yield from number()(f"{at}.scale", item["scale"])
