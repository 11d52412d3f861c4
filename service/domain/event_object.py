"""The event as every consumer gets it: the same bytes in the feed, in streams, in webhooks and at brokers."""

import orjson

from service.domain.timestamps import rfc3339


def event_text(
    *, id: str, seq: int, type: str, at_ms: int, job_id: str | None, job_seq: int | None, data: str
) -> bytes:
    """This function will write an event around the JSON text that was made when it happened."""
    return orjson.dumps(
        {
            "id": id,
            "object": "event",
            "seq": seq,
            "type": type,
            "timestamp": rfc3339(at_ms),
            "job_id": job_id,
            "job_seq": job_seq,
            "data": orjson.Fragment(data),
        }
    )
