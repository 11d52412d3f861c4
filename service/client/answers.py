"""From an HTTP answer to a value or to the error that says what it means."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from service.client import errors
from service.domain import exact_json

_BY_CODE: Mapping[str, type[errors.ProblemAnswered]] = {
    "unauthenticated": errors.Unauthenticated,
    "budget_exceeded": errors.BudgetExceeded,
    "forbidden": errors.Forbidden,
    "not_found": errors.NotFound,
    "conflict": errors.Conflict,
    "idempotency_mismatch": errors.IdempotencyMismatch,
    "cursor_expired": errors.CursorExpired,
    "invalid_input": errors.InvalidInput,
    "too_large": errors.InvalidInput,
    "unsupported_media_type": errors.InvalidInput,
    "rate_limited": errors.RateLimited,
    "unavailable": errors.Unavailable,
    "internal": errors.Unavailable,
}
#: For codes of later releases, and for proxies that know no codes.
_BY_STATUS: Mapping[int, type[errors.ProblemAnswered]] = {
    401: errors.Unauthenticated,
    402: errors.BudgetExceeded,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.CursorExpired,
    413: errors.InvalidInput,
    415: errors.InvalidInput,
    422: errors.InvalidInput,
    429: errors.RateLimited,
}
_MOST_QUOTED = 200


def document(answer: httpx.Response) -> dict[str, Any]:
    """This function will read the JSON object of a 2xx answer; integers stay exact.

    :raises ProblemAnswered: if the answer is 4xx or 5xx.
    :raises UnexpectedAnswer: if it is no answer of this API.
    """
    if answer.is_error:
        raise problem(answer)
    if not answer.is_success:
        where = answer.headers.get("location")
        hint = f" to {_quoted(where)}: is the base URL right?" if where else ""
        raise errors.UnexpectedAnswer(
            f"{_asked(answer)} was answered {answer.status_code}{hint}", status=answer.status_code
        )
    found = _object(answer.content)
    if found is None:
        raise errors.UnexpectedAnswer(
            f"{_asked(answer)} was answered {answer.status_code} with something that is no JSON object",
            status=answer.status_code,
        )
    return found


def problem(answer: httpx.Response) -> errors.ProblemAnswered:
    """This function will make the error that a 4xx or 5xx answer stands for; its body must have been read."""
    said = _object(answer.content) or {}
    code, detail = _text(said.get("code")), _text(said.get("detail"))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = errors.Unavailable if answer.status_code >= 500 else errors.ProblemAnswered
    fields = _fields(said.get("errors"))
    told = [detail or _quoted(answer.text) or "no reason was given"]
    told += [f"{field.path or 'the body'} {field.message}" for field in fields]
    error = kind(
        f"{_asked(answer)} was answered {answer.status_code}: {'; '.join(told)}",
        status=answer.status_code,
        code=code,
        title=_text(said.get("title")),
        detail=detail,
        errors=fields,
        request_id=_text(said.get("request_id")) or answer.headers.get("x-request-id"),
        retry_after_s=_retry_after_s(answer),
    )
    if isinstance(error, errors.CursorExpired):
        error.oldest_cursor = _text(said.get("oldest_cursor")) or None
    return error


def _asked(answer: httpx.Response) -> str:
    return f"{answer.request.method} {answer.request.url.path}"


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        found = exact_json.loads(content)
    except exact_json.NotJson:
        return None
    return found if isinstance(found, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _quoted(text: str) -> str:
    """What a stranger said, in one short line."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[:2000]).split())
    return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED]}…"


def _fields(value: object) -> list[errors.FieldError]:
    if not isinstance(value, list):
        return []
    return [
        errors.FieldError(path=_text(item.get("path")), message=_text(item.get("message")))
        for item in value
        if isinstance(item, dict)
    ]


def _retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds, or a date, which is counted from the answer's own `Date`: no clock of ours is asked."""
    said = answer.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdecimal() and len(said) < 10:
        return float(said)
    try:
        moments = [parsedate_to_datetime(text) for text in (said, answer.headers.get("date", ""))]
    except (ValueError, TypeError, IndexError):
        return None
    until, now = (moment.replace(tzinfo=moment.tzinfo or UTC) for moment in moments)
    return max((until - now).total_seconds(), 0.0)
