"""The canonical form of a JSON value (RFC 8785) and its digest: for equality of bodies and for the history.

Integers beyond ±(2^53-1) become strings first, because RFC 8785 knows only doubles; `VERSION` names this rule.
"""

import hashlib
from typing import Any

import orjson
import rfc8785

#: Kept beside whatever was hashed, so that a later rule can be told from this one.
VERSION = 1
_SAFE = 2**53 - 1


def _prepare(value: Any) -> tuple[Any, bool]:
    """Return the value with unsafe integers as text, and whether orjson's sorted output is already canonical.

    It is where there are no floats (RFC 8785 writes them as ECMAScript does) and all keys are ASCII (RFC 8785
    sorts by UTF-16 units, orjson by bytes).
    """
    if value is None or value is True or value is False or isinstance(value, str):
        return value, True
    if isinstance(value, int):
        return (value, True) if -_SAFE <= value <= _SAFE else (str(value), True)
    if isinstance(value, dict):
        plain = True
        out: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"an object's key is not text: {key!r}")
            out[key], item_plain = _prepare(item)
            plain = plain and item_plain and key.isascii()
        return out, plain
    if isinstance(value, (list, tuple)):
        pairs = [_prepare(item) for item in value]
        return [item for item, _ in pairs], all(item_plain for _, item_plain in pairs)
    return value, False


def canonical(value: Any) -> bytes:
    """This function will write a JSON value in canonical form.

    :raises ValueError: if the value is not JSON (other types, non-finite floats, lone surrogates) or nested too
        deeply to be written; whatever `exact_json.loads` gives can be written.
    """
    try:
        prepared, plain = _prepare(value)
        return orjson.dumps(prepared, option=orjson.OPT_SORT_KEYS) if plain else rfc8785.dumps(prepared)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def digest(value: Any) -> str:
    """This function will return the SHA-256 of the canonical form, in lower-case hex."""
    return hashlib.sha256(canonical(value)).hexdigest()
