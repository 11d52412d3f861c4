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


def _is_plain(value: Any) -> bool:
    """Tell whether orjson's sorted output is already canonical, as it nearly always is.

    It is where there are no floats (RFC 8785 writes them as ECMAScript does), no unsafe integers, and all keys are
    ASCII (RFC 8785 sorts by UTF-16 units, orjson by bytes).
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_SAFE <= value <= _SAFE)
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())
    return kind is list and all(_is_plain(item) for item in value)


def _with_safe_integers(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_SAFE <= value <= _SAFE else str(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"an object's key is not text: {key!r}")
        return {key: _with_safe_integers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_safe_integers(item) for item in value]
    return value


def canonical(value: Any) -> bytes:
    """This function will write a JSON value in canonical form.

    :raises ValueError: if the value is not JSON (other types, non-finite floats, lone surrogates) or nested too
        deeply to be written; whatever `exact_json.loads` gives can be written.
    """
    try:
        if _is_plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(_with_safe_integers(value))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def digest(value: Any) -> str:
    """This function will return the SHA-256 of the canonical form, in lower-case hex."""
    return hashlib.sha256(canonical(value)).hexdigest()
