"""Reads the paths of fal's queue."""

from dataclasses import dataclass

#: these owners have three-part app ids (https://github.com/fal-ai/fal, projects/fal_client, read 2026-11-20)
NAMESPACES = ("workflows", "comfy")
#: what may follow `/requests/{id}`; some documents show a final `/response`
VERBS = {
    "": "result",
    "response": "result",
    "status": "status",
    "status/stream": "stream",
    "cancel": "cancel",
}


@dataclass(frozen=True, slots=True)
class QueuePath:
    """`endpoint` is the whole model id, `app` its first two (or three) parts; `request_id` is None on a submit."""

    endpoint: str
    app: str
    request_id: str | None = None
    verb: str = "submit"


def app_of(endpoint: str) -> str:
    """Return the app that an endpoint belongs to: all calls but submit name only this."""
    parts = endpoint.split("/")
    return "/".join(parts[: 3 if parts[0] in NAMESPACES else 2])


def read_queue_path(path: str) -> QueuePath | None:
    """Return what a path of the queue asks for, or None when it is none of them."""
    parts = [part for part in path.split("/") if part]
    at = parts.index("requests", 2) if "requests" in parts[2:] else len(parts)
    endpoint, rest = "/".join(parts[:at]), parts[at + 1 :]
    if at < (3 if parts and parts[0] in NAMESPACES else 2):
        return None
    if at == len(parts):
        return QueuePath(endpoint, app_of(endpoint))
    verb = VERBS.get("/".join(rest[1:]))
    return QueuePath(endpoint, app_of(endpoint), rest[0], verb) if rest and verb else None
