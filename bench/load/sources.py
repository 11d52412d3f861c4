"""The requests that are sent, as bytes on the wire."""

import itertools
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import fal, samples


def requests(spec: dict[str, Any], host: str) -> Iterator[bytes]:
    """This function will give the requests that a specification names."""
    match spec["kind"]:
        case "jobs":
            return _jobs(spec, host)
        case "callbacks":
            return _callbacks(spec, host)
    raise ValueError(f"unknown source {spec['kind']!r}")


def _jobs(spec: dict[str, Any], host: str) -> Iterator[bytes]:
    """Every one another job under another key; `path` may lead to the limit instead."""
    numbers = range(spec["most"]) if spec.get("most") else itertools.count()
    for number in numbers:
        body = samples.job_body(number, **spec.get("job", {}))
        yield (
            f"POST {spec['path']} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {spec['key']}\r\n"
            f"content-type: application/json\r\nidempotency-key: {spec['name']}-{number}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


def _callbacks(spec: dict[str, Any], host: str) -> Iterator[bytes]:
    """Signed just before they are sent, because a signature grows old; made before the clock starts."""
    made = pickle.loads(Path(spec["file"]).read_bytes())[spec["start"] : spec["start"] + spec["most"]]
    key, now_s = fal.private_key(), int(time.time())
    ready = []
    for token, request_id in made:
        body = samples.callback_body(request_id)
        headers = fal.signed_headers(key, request_id, body, now_s)
        path = spec.get("path") or f"/callbacks/fal/{token}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{lines}content-length: {len(body)}\r\n\r\n"
        ready.append(head.encode() + body)
    return iter(ready)
