"""Reading what a provider answers, whatever it is: nothing here raises."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from service.domain import exact_json
from service.domain.exact_json import NotJson

_LONGEST_WAIT_MS = 86_400_000
#: A quotation of a provider is for people.
_LONGEST_QUOTE = 16_000
_HIDDEN = "***"
#: A shorter "secret" would strike out parts of ordinary words.
_SHORTEST_SECRET = 8


def object_in(body: bytes) -> dict[str, Any] | None:
    """This function will return the JSON object that a body is, or None when it is something else."""
    try:
        value = exact_json.loads(body)
    except NotJson:
        return None
    return value if isinstance(value, dict) else None


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


def quote(value: Any, *secrets: str | None) -> Any:
    """This function will make what a provider said fit to be kept: secrets hidden, and not too long.

    A refusal of BFL or fal repeats the body that we sent, callback URL and webhook secret included.
    """
    hidden = _without(
        value, tuple(secret for secret in secrets if secret and len(secret) >= _SHORTEST_SECRET)
    )
    if isinstance(hidden, str):
        return hidden[:_LONGEST_QUOTE]
    # Half of a document could not be searched for prompts any more, so none of it is kept.
    return hidden if len(exact_json.dumps(hidden)) <= _LONGEST_QUOTE else {"truncated": True}


def _without(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
        return value
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    if isinstance(value, dict):
        return {_without(name, secrets): _without(item, secrets) for name, item in value.items()}
    return value
