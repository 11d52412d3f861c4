"""JSON bodies: the right media type, within a cap, without what databases cannot keep."""

import re
from collections.abc import Iterator
from typing import Any

from service.domain import exact_json
from service.domain.failures import FieldError
from service.web.problems import Problem, invalid, wrong
from service.web.visit import Visit

_MOST_EMPTY_BODY = 64 * 1024
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?;?', re.IGNORECASE)


async def json_object(visit: Visit, *, most: int, optional: bool = False) -> dict[str, Any]:
    """This function will read the body as one JSON object; of equal keys the last counts.

    With `optional`, no body at all is an empty object.

    :raises Problem: if it is not JSON by its type or by its text, too large, no object, or holds NUL characters.
    """
    if not optional:
        _check_type(visit)
    raw = await visit.body(most=most)
    if optional and not raw:
        return {}
    if optional or (raw and not visit.header("content-type")):
        _check_type(visit, announced=True)
    return parsed_object(raw)


async def nothing_said(visit: Visit) -> None:
    """This function will see that a call without fields got none: no body, or an empty object.

    :raises Problem: naming every field that was given all the same.
    """
    fields = await json_object(visit, most=_MOST_EMPTY_BODY, optional=True)
    if fields:
        raise invalid(*(FieldError(path=name, message="is not a field of this call") for name in fields))


def _check_type(visit: Visit, *, announced: bool = False) -> None:
    types = visit.header("content-type")
    if any(coding.lower() != "identity" for coding in visit.header("content-encoding")):
        raise Problem("unsupported_media_type", "the body must not be compressed")
    if (types or announced) and not (len(types) == 1 and _JSON.fullmatch(types[0].strip())):
        raise Problem("unsupported_media_type", "the body must be Content-Type: application/json, in UTF-8")


def parsed_object(raw: bytes) -> dict[str, Any]:
    """This function will read JSON text as one object.

    :raises Problem: if it is not JSON, no object, or holds NUL characters.
    """
    try:
        value = exact_json.loads(raw)
    except exact_json.NotJson as error:
        raise wrong("", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise wrong("", "the body must be a JSON object")
    # JSON can only hold a NUL as this escape; where it is absent there is nothing to look for.
    if b"\\u0000" in raw:
        nuls = [FieldError(path=path, message="must not hold NUL characters") for path in _nuls(value, "")]
        if nuls:
            raise invalid(*nuls)
    return value


def _nuls(value: Any, path: str) -> Iterator[str]:
    """The dotted paths of every key and text with a NUL in it."""
    if isinstance(value, str):
        if "\0" in value:
            yield path
        return
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = [(str(place), item) for place, item in enumerate(value)]
    else:
        return
    for name, item in children:
        inner = f"{path}.{name}" if path else name
        if "\0" in name:
            yield inner
        yield from _nuls(item, inner)
