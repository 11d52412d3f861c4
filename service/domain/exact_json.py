"""JSON in and out without losing a digit of a large integer.

orjson is exact up to 64 bits and turns larger integers into floats (measured), so text with a long run of
digits takes the standard library's way. Both ways read the same language: RFC 8259, the last of equal keys counts.
"""

import json
import re
from typing import Any

import orjson

#: Nesting beyond this is refused: orjson writes at most 254 levels, and we wrap what we read in objects of our own.
MAX_DEPTH = 128
#: Longer integers are refused before they are converted, which takes quadratic time (CPython refuses them at 4300).
MAX_DIGITS = 4000
_DIGITS = re.compile(b"0+")
_MINUS = ord("-")
#: What orjson reads exactly: from the smallest signed to the largest unsigned integer of 64 bits.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_DIGITS_OF_64_BITS = 20
#: Looking for a long run of digits this way takes a microsecond, by a regular expression ten.
_DIGITS_AS_ONE = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_NINETEEN_DIGITS = b"0" * 19


class NotJson(ValueError):
    """The bytes are no JSON text, or hold what JSON cannot (NaN, infinities, lone surrogates)."""


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise NotJson("a number is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise NotJson("a number has too many digits")
    return int(text)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return False
        level = [
            child for item in containers for child in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def _read_exactly(raw: bytes) -> Any:
    try:
        value = json.loads(
            raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
        )
        # The standard library lets lone surrogates in; they cannot be written.
        dumps(value)
    except NotJson:
        raise
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    return value


def _has_larger_than_64_bits(raw: bytes) -> bool:
    """Tell whether some run of digits may be an integer that orjson would turn into a float.

    Seeds of 19 and 20 digits are common and mostly fit.
    """
    shown = raw.translate(_DIGITS_AS_ONE)
    at = shown.find(_NINETEEN_DIGITS)
    while at >= 0:
        end = at + len(_DIGITS.match(shown, at)[0])  # type: ignore[index]
        begin = at - 1 if at and raw[at - 1] == _MINUS else at
        if end - at > _DIGITS_OF_64_BITS or not _SMALLEST <= int(raw[begin:end]) <= _LARGEST:
            return True
        at = shown.find(_NINETEEN_DIGITS, end)
    return False


def _read_fast(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NotJson(str(error)) from error


def loads(text: bytes | str) -> Any:
    """This function will read JSON text, keeping every integer exact.

    :raises NotJson: if the text is not JSON, is nested deeper than `MAX_DEPTH`, or holds a number that is not
        finite or has more than `MAX_DIGITS` digits.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    value = _read_exactly(raw) if _has_larger_than_64_bits(raw) else _read_fast(raw)
    # Counting brackets is cheap and nearly always enough.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _too_deep(value):
        raise NotJson(f"nested deeper than {MAX_DEPTH} levels")
    return value


def dumps(value: Any) -> str:
    """This function will write a value as compact JSON text, integers of any size included.

    Floats that are not finite become null, which `loads` never gives.

    :raises ValueError: if a text holds a lone surrogate.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text.encode()
    return text
