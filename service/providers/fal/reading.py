"""Reading what fal answers, whatever it is."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from service.domain import exact_json
from service.domain.exact_json import NotJson

_LONGEST_WAIT_MS = 86_400_000
_LARGEST_POSITION = 2**31 - 1


def object_in(body: bytes) -> dict[str, Any] | None:
    """This function will return the JSON object that a body is, or None when it is something else."""
    try:
        value = exact_json.loads(body)
    except NotJson:
        return None
    return value if isinstance(value, dict) else None


def value_in(body: bytes) -> Any:
    """This function will return the JSON value that a body is, or its beginning as text."""
    try:
        return exact_json.loads(body)
    except NotJson:
        return body[:4_000].decode("utf-8", "replace") or None


def retry_after_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """This function will read `Retry-After`, seconds or an HTTP date, as milliseconds from now (at most a day)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]) * 1_000, _LONGEST_WAIT_MS)
    try:
        at_ms = int(parsedate_to_datetime(text).timestamp() * 1_000)
    except (ValueError, OverflowError, OSError):
        return None
    return min(max(0, at_ms - now_ms), _LONGEST_WAIT_MS)


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
