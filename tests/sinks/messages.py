"""Messages as the flow makes them, and what a reader must find of them."""

from collections.abc import Sequence
from typing import Any

from service.domain.event_object import event_text
from service.sinks.base import Message
from tests.sinks.brokers import Received


def message(seq: int, **fields: Any) -> Message:
    """Make a message; seven jobs take turns."""
    known: dict[str, Any] = {
        "seq": seq,
        "id": f"evt_{seq:06d}",
        "type": "job.succeeded",
        "job_id": f"job_{seq % 7}",
        "job_seq": seq,
        "at_ms": 1_800_000_000_000 + seq,
    }
    body = event_text(**known, data='{"prompt":"ключ"}')
    return Message(**{**known, "tenant": "default", "body": body, **fields})


def several(first: int, last: int) -> list[Message]:
    return [message(seq) for seq in range(first, last + 1)]


def by_key(found: Sequence[Received]) -> dict[str, list[str]]:
    """The ids that a reader has for each key, in its order, each when it first comes."""
    told: dict[str, list[str]] = {}
    for one in found:
        ids = told.setdefault(one.key, [])
        if one.id not in ids:
            ids.append(one.id)
    return told


def expected(messages: Sequence[Message]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for one in messages:
        told.setdefault(one.key, []).append(one.id)
    return told
