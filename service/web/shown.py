"""What callers see of a job, an event, a line of history and a callback, as JSON text.

Rule: JSON that is kept as text is spliced in as it is, so that no digit of a large integer is lost and nothing is
written twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from service.domain import event_object, exact_json
from service.domain.history import HistoryLine
from service.domain.job import Job
from service.domain.job_object import job_object
from service.domain.timestamps import rfc3339
from service.storage.events import Event
from service.storage.jobs import Large
from service.storage.statements import Row


def job_text(job: Job, large: Large, *, artifacts_url: str) -> bytes:
    """This function will write a job with its input and raw outputs."""
    shown = job_object(job, artifacts_url=artifacts_url)
    try:
        return orjson.dumps(_whole(shown, large, orjson.Fragment))
    except TypeError:
        # An error quotes an integer that orjson cannot write: then everything takes the exact way.
        return exact_json.dumps(_whole(shown, large, exact_json.loads)).encode()


def _whole(shown: dict[str, Any], large: Large, splice: Callable[[str], Any]) -> dict[str, Any]:
    whole = {**shown, "input": splice(large.input)}
    if shown["output"] is not None:
        raw = large.output_raw
        whole["output"] = {**shown["output"], "raw": None if raw is None else splice(raw)}
    whole["attempts"] = [_whole_attempt(attempt, large, splice) for attempt in shown["attempts"]]
    return whole


def _whole_attempt(attempt: dict[str, Any], large: Large, splice: Callable[[str], Any]) -> dict[str, Any]:
    if attempt["output"] is None:
        return attempt
    raw = large.attempt_outputs_raw.get(attempt["id"])
    return {**attempt, "output": {**attempt["output"], "raw": None if raw is None else splice(raw)}}


def list_text(rows: Sequence[bytes], next_cursor: str | None) -> bytes:
    """This function will write a list of rows that are JSON text already."""
    data = [orjson.Fragment(row) for row in rows]
    return orjson.dumps({"data": data, "next_cursor": next_cursor})


def event_text(event: Event) -> bytes:
    """This function will write an event around the bytes that were made when it happened."""
    return event_object.event_text(
        id=event.id,
        seq=event.seq,
        type=event.type,
        at_ms=event.at_ms,
        job_id=event.job_id,
        job_seq=event.job_seq,
        data=event.data,
    )


def history_text(line: HistoryLine) -> bytes:
    """This function will write one line of a history."""
    return orjson.dumps(
        {
            "seq": line.seq,
            "at": rfc3339(line.at_ms),
            "type": line.type,
            "cause": line.cause,
            "moved": line.moved,
            "from": line.before,
            "to": line.after,
            "detail": orjson.Fragment(line.detail),
            "hash": line.hash,
        }
    )


def callback_text(row: Row) -> bytes:
    """This function will write what is known of one callback, without its body."""
    return orjson.dumps(
        {
            "id": row["id"],
            "attempt_id": row["attempt_id"],
            "received_at": rfc3339(row["received_ms"]),
            "verdict": row["verdict"],
            "status": row["status"],
            "key_id": row["key_id"],
            "body_sha256": row["body_sha256"],
            "headers": orjson.Fragment(row["headers"]),
        }
    )
