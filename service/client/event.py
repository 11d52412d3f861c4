"""One event, the same on every channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.client.errors import UnexpectedAnswer
from service.domain import exact_json


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact about a job (or an endpoint: `job_id` is then None).

    `id` is the same on every channel and at every delivery: what a consumer has handled it knows again by it.
    `data` is the job as it was at that moment, without its input and raw output. `cursor` is where to go on
    behind this event; None when it came by webhook. `text` are its bytes as the service wrote them.
    """

    id: str
    type: str
    timestamp: str
    seq: int | None
    job_id: str | None
    job_seq: int | None
    data: Mapping[str, Any]
    cursor: str | None = None
    text: bytes = field(repr=False)


def event_of(text: bytes, *, cursor: str | None = None) -> Event:
    """This function will read one event from its JSON text.

    :raises UnexpectedAnswer: if the text is no event.
    """
    try:
        found = exact_json.loads(text)
    except exact_json.NotJson:
        raise UnexpectedAnswer("an event was expected, and this is no JSON") from None
    return event_from(found, text=text, cursor=cursor)


def event_from(found: object, *, text: bytes | None = None, cursor: str | None = None) -> Event:
    """This function will make an event of a JSON value; without its text it is written again.

    :raises UnexpectedAnswer: if the value is no event.
    """
    if not isinstance(found, dict) or not _is_event(found):
        raise UnexpectedAnswer("an event was expected, and this is something else")
    return Event(
        id=found["id"],
        type=found["type"],
        timestamp=found["timestamp"],
        seq=found.get("seq"),
        job_id=found.get("job_id"),
        job_seq=found.get("job_seq"),
        data=found["data"],
        cursor=cursor,
        text=exact_json.dumps(found).encode() if text is None else text,
    )


def _is_event(found: Mapping[str, Any]) -> bool:
    return (
        all(isinstance(found.get(name), str) for name in ("id", "type", "timestamp"))
        and all(isinstance(found.get(name), int | None) for name in ("seq", "job_seq"))
        and isinstance(found.get("job_id"), str | None)
        and isinstance(found.get("data"), dict)
    )
