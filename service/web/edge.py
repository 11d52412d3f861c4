"""The outermost layer of every answer: the request's id, the security headers, and errors as problem documents."""

import re
from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.problems import problem_of, problem_response

#: A caller's own id is taken over when it can stand in a log line and a header as it is.
_SAFE_ID = re.compile(rb"[A-Za-z0-9._~:@/+=-]{1,128}")
_SECURITY: dict[bytes, bytes] = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}

_log = structlog.get_logger("fluxgate.web")


class Disconnected(Exception):
    """The caller went away before its request was complete: nobody is there to be answered."""


class Edge:
    """Wraps the application; `make_id` names requests that bring no id of their own."""

    def __init__(self, app: ASGIApp, *, make_id: Callable[[str], str]) -> None:
        self._app = app
        self._make_id = make_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """This function will pass a request on and see to it that it is answered, whatever is raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or self._make_id("req")
        scope["request_id"] = request_id
        answer = _Answer(send, request_id, bodiless=scope["method"] == "HEAD")
        try:
            await self._app(scope, receive, answer)
        except Disconnected:
            _log.info("the caller went away before its request was complete", request_id=request_id)
        except Exception as error:
            if answer.started:
                raise
            problem = problem_of(error)
            if problem.code == "internal":
                # The path stays out of the log: a callback's URL holds its token.
                _log.exception("a request failed", request_id=request_id, method=scope["method"])
            await problem_response(scope, problem)(scope, receive, answer)


class _Answer:
    """Passes an answer on with the headers that every answer has; a HEAD is answered without a body."""

    def __init__(self, send: Send, request_id: str, *, bodiless: bool) -> None:
        self.started = False
        self._send = send
        self._request_id = request_id.encode()
        self._bodiless = bodiless

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = list(message["headers"])
            present = {name for name, _ in headers}
            headers += [item for item in _SECURITY.items() if item[0] not in present]
            headers.append((b"x-request-id", self._request_id))
            message = {**message, "headers": headers}
        elif self._bodiless and message.get("body"):
            message = {**message, "body": b""}
        await self._send(message)


def _given_id(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0].decode("ascii") if len(given) == 1 and _SAFE_ID.fullmatch(given[0]) else None
