"""Query parameters: which a call takes, how each is read, and how it stands in the OpenAPI document.

Rule: a parameter that a call does not take is refused, because a misspelt filter that is ignored shows too much.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from service.domain import cursors
from service.domain.endpoint import DeliveryState
from service.domain.event_types import EVENT_TYPES
from service.domain.failures import FieldError
from service.domain.states import JobState
from service.domain.timestamps import parse_rfc3339
from service.providers.registry import KNOWN
from service.web.problems import invalid, wrong

_MOST_FIELDS = 100
_METADATA = "metadata."


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One query parameter. `read` returns its value or raises ValueError, saying what it must be."""

    name: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any]
    description: str


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 200:
        raise ValueError("must be a whole number from 1 to 200")
    return int(text)


def _wait(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", text) or float(text) > 60:
        raise ValueError("must be a number of seconds from 0 to 60")
    return float(text)


def _several(words: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if not set(given) <= set(words):
            raise ValueError(f"must be one or several of {', '.join(words)}, with commas between them")
        return given

    return read


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def _time(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError("must be a time with its zone, for example 2026-11-20T12:00:00Z") from None


def _text(text: str) -> str:
    if not 1 <= len(text) <= 200:
        raise ValueError("must have 1 to 200 characters")
    return text


def _list_of(words: Sequence[str]) -> Mapping[str, Any]:
    one = "|".join(re.escape(word) for word in words)
    return {"type": "string", "pattern": f"^({one})(,({one}))*$"}


def _id(prefix: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(rf"{prefix}_[0-9a-z]{{1,64}}", text):
            raise ValueError(f"must be an id, as in {prefix}_0199…")
        return text

    return read


def _of(name: str, prefix: str, what: str) -> Parameter:
    """A filter by the id of what a row belongs to."""
    return Parameter(
        name=name,
        read=_id(prefix),
        schema={"type": "string", "pattern": f"^{prefix}_[0-9a-z]{{1,64}}$"},
        description=f"Only deliveries of this {what}.",
    )


def position(kind: str, name: str = "cursor") -> Parameter:
    """This function will make the parameter that says where in a list to go on."""
    return Parameter(
        name=name,
        read=cursors.reader(kind),
        schema={"type": "string"},
        description="Where to go on: `next_cursor` of the answer before.",
    )


LIMIT = Parameter(
    name="limit",
    read=_limit,
    schema={"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    description="How many at most; a page of very large rows may hold fewer.",
)
WAIT = Parameter(
    name="wait",
    read=_wait,
    schema={"type": "number", "minimum": 0, "maximum": 60, "default": 0},
    description="Seconds to wait for news before the answer is given as things are.",
)
TYPES = Parameter(
    name="types",
    read=_several(EVENT_TYPES),
    schema=_list_of(EVENT_TYPES),
    description="Only events of these types, with commas between them.",
)
JOB_FILTERS = (
    Parameter(
        name="state",
        read=_several(tuple(JobState)),
        schema=_list_of(tuple(JobState)),
        description="One state, or several with commas between them.",
    ),
    Parameter(
        name="provider", read=_one_of(KNOWN), schema={"enum": list(KNOWN)}, description="The provider's name."
    ),
    Parameter(
        name="model",
        read=_text,
        schema={"type": "string", "minLength": 1, "maxLength": 200},
        description="The model as the job names it.",
    ),
    Parameter(
        name="created_after",
        read=_time,
        schema={"type": "string", "format": "date-time"},
        description="Only jobs created after this moment.",
    ),
    Parameter(
        name="created_before",
        read=_time,
        schema={"type": "string", "format": "date-time"},
        description="Only jobs created before this moment.",
    ),
)
DELIVERY_FILTERS = (
    _of("endpoint_id", "ep", "endpoint"),
    Parameter(
        name="state",
        read=_one_of(tuple(DeliveryState)),
        schema={"enum": list(DeliveryState)},
        description="Only deliveries in this state.",
    ),
    _of("event_id", "evt", "event"),
    _of("job_id", "job", "job"),
)


def read_query(raw: bytes, allowed: Mapping[str, Parameter], *, metadata: bool) -> dict[str, Any]:
    """This function will check a query string; with `metadata`, `metadata.KEY=value` becomes a mapping of its own.

    :raises Problem: naming every parameter that is unknown, given twice or wrong.
    """
    if not raw:
        return {}
    try:
        given = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise wrong("", f"the query has more than {_MOST_FIELDS} parameters") from None
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    seen: set[str] = set()
    for name, text in given:
        try:
            _once(seen, name)
            _take(values, name, text, allowed, metadata=metadata)
        except ValueError as error:
            errors.append(FieldError(path=name, message=str(error)))
    if errors:
        raise invalid(*errors)
    return values


def _once(seen: set[str], name: str) -> None:
    if name in seen:
        raise ValueError("is given more than once")
    seen.add(name)


def _take(
    values: dict[str, Any], name: str, text: str, allowed: Mapping[str, Parameter], *, metadata: bool
) -> None:
    # PostgreSQL keeps no NUL in a text, so nothing stored can equal one.
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    if metadata and name.startswith(_METADATA):
        key = name.removeprefix(_METADATA)
        if not 1 <= len(key) <= 40 or "\0" in key or len(text) > 500:
            raise ValueError("must be a key of 1 to 40 characters with a value of at most 500")
        values.setdefault("metadata", {})[key] = text
        return
    if name not in allowed:
        raise ValueError("is not a parameter of this call")
    values[name] = allowed[name].read(text)
