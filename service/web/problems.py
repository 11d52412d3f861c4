"""What can go wrong, as callers see it: RFC 9457 documents, and the one table from errors to statuses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from service.domain.cursors import cursor
from service.domain.failures import FieldError
from service.domain.targets import UrlRefused
from service.flows.accept import IdempotencyMismatch, InputRefused
from service.flows.errors import Conflict, CursorExpired, NotFound, Refused
from service.storage.database import DatabaseUnavailable, WriteConflict

#: Every code of the contract that something here can answer with: its status and its title.
CODES: Mapping[str, tuple[int, str]] = {
    "malformed_callback": (400, "The callback is not what this provider sends"),
    "unauthenticated": (401, "The caller did not prove who it is"),
    "forbidden": (403, "The key lacks the scope for this"),
    "not_found": (404, "There is no such thing"),
    "method_not_allowed": (405, "This path does not take this method"),
    "conflict": (409, "The thing is not in a state for this"),
    "idempotency_mismatch": (409, "The idempotency key stands for another body"),
    "cursor_expired": (410, "What stood at the cursor is no longer kept"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body is not JSON"),
    "range_not_satisfiable": (416, "The file has no such range"),
    "invalid_input": (422, "The request is not valid"),
    "internal": (500, "Something went wrong on our side"),
    "unavailable": (503, "This cannot be done now"),
}
_RETRY_AFTER = {"Retry-After": "2"}
#: A body can hold a hundred thousand wrong fields; nobody reads further than this.
_MOST_ERRORS = 100


class Problem(Exception):
    """An answer that is not what the caller hoped for."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors[:_MOST_ERRORS])
        self.headers = dict(headers or {})
        #: Members of its document that only this problem has.
        self.more = dict(more or {})
        self.status, self.title = CODES[code]


def invalid(*errors: FieldError) -> Problem:
    """This function will make the problem of fields that are wrong."""
    named = ", ".join(dict.fromkeys(error.path or "the body" for error in errors[:5]))
    return Problem("invalid_input", f"not valid: {named}", errors=errors)


def wrong(path: str, message: str) -> Problem:
    """This function will make the problem of one field that is wrong."""
    return invalid(FieldError(path=path, message=message))


def unavailable(detail: str) -> Problem:
    """This function will make the problem of something that may work in a moment."""
    return Problem("unavailable", detail, headers=_RETRY_AFTER)


def _routing(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return Problem("not_found", "there is nothing at this path")
    raise error


def _expired(error: CursorExpired) -> Problem:
    detail = (
        "events behind this cursor are no longer kept: go on with `oldest_cursor`, behind which nothing is missing,"
        " and look at the jobs themselves for what happened before it"
    )
    return Problem("cursor_expired", detail, more={"oldest_cursor": cursor("events", error.oldest)})


#: The table. The first line whose type fits counts; an error without a line is `internal` and is not explained.
_TABLE: Sequence[tuple[type[Exception], Callable[[Any], Problem]]] = (
    (Problem, lambda error: error),
    (NotFound, lambda error: Problem("not_found", str(error))),
    (CursorExpired, _expired),
    (Conflict, lambda error: Problem("conflict", str(error))),
    (Refused, lambda error: wrong(error.path, str(error))),
    (UrlRefused, lambda error: wrong("url", str(error))),
    (InputRefused, lambda error: invalid(*error.errors)),
    (
        IdempotencyMismatch,
        lambda _: Problem("idempotency_mismatch", "this Idempotency-Key was used before, with another body"),
    ),
    (DatabaseUnavailable, lambda _: unavailable("the database cannot be reached or has too much to do")),
    (WriteConflict, lambda _: unavailable("too many changes at once")),
    (HTTPException, _routing),
)


def problem_of(error: Exception) -> Problem:
    """This function will say what a caller hears of an error."""
    for type_, translate in _TABLE:
        if isinstance(error, type_):
            return translate(error)
    return Problem("internal", "the error is logged under this request's id")


def problem_response(scope: Scope, problem: Problem) -> Response:
    """This function will write a problem as its document; the request's id stands in the scope."""
    document = {
        "type": f"/docs#problem-{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "errors": [{"path": _shown(error.path), "message": error.message} for error in problem.errors],
        "request_id": scope["request_id"],
        **problem.more,
    }
    return Response(
        orjson.dumps(document), problem.status, problem.headers, media_type="application/problem+json"
    )


def _shown(path: str) -> str:
    """A path as it is, unless somebody made a novel of a field's name."""
    return path if len(path) <= 300 else f"{path[:300]}…"
