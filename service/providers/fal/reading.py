"""Reading what fal answers, whatever it is; what holds for every provider is in `providers.reading`."""

from collections.abc import Mapping
from typing import Any

from service.domain import exact_json
from service.domain.exact_json import NotJson

_LARGEST_POSITION = 2**31 - 1


def value_in(body: bytes) -> Any:
    """This function will return the JSON value that a body is, or its beginning as text."""
    try:
        return exact_json.loads(body)
    except NotJson:
        return body[:4_000].decode("utf-8", "replace") or None


def queue_position(document: Mapping[str, Any]) -> int | None:
    """This function will return the place in the queue, where one is told."""
    place = document.get("queue_position")
    if isinstance(place, bool) or not isinstance(place, int):
        return None
    return place if 0 <= place <= _LARGEST_POSITION else None


def text_member(document: Any, name: str) -> str | None:
    """This function will return a member that is text with something in it."""
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) and value.strip() else None
