"""fal's words for failures become ours, in one table.

Rule 1: decide by `type` and `error_type`, never by `msg`.
Rule 2: without a word of the table the status decides: 4xx of the model is a refusal, 5xx a failure.
Sources, read 2026-11-20: https://fal.ai/docs/documentation/model-apis/errors.md (model errors) and
https://fal.ai/docs/documentation/model-apis/request-errors.md (request errors).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from service.domain.facts import ProviderBlocked, ProviderFailed
from service.domain.failures import ErrorCode, JobError
from service.providers.fal.reading import text_member

CONTENT_POLICY = "content_policy_violation"
#: Request errors that may also mean our own start deadline; only a header of the result tells them apart.
TIMEOUTS = frozenset(("request_timeout", "startup_timeout"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What one of fal's words means. `retryable` is None where fal's retry header decides (yes without it)."""

    status: int
    retryable: bool | None = False
    #: None: the status decides.
    code: ErrorCode | None = None


_MODEL_ERRORS: Mapping[str, Meaning] = {
    "internal_server_error": Meaning(status=500, retryable=None),
    "generation_timeout": Meaning(status=504, retryable=None),
    "downstream_service_error": Meaning(status=400, retryable=None),
    "downstream_service_unavailable": Meaning(status=500, retryable=None),
    CONTENT_POLICY: Meaning(status=422, code=ErrorCode.CONTENT_BLOCKED),
    "no_media_generated": Meaning(status=422, code=ErrorCode.EMPTY_RESULT),
}
#: Told after fal's own attempts ended.
REQUEST_ERRORS: Mapping[str, Meaning] = {
    "request_timeout": Meaning(status=504, retryable=True),
    "startup_timeout": Meaning(status=504, retryable=True),
    "runner_scheduling_failure": Meaning(status=503, retryable=True),
    "runner_connection_timeout": Meaning(status=503, retryable=True),
    "runner_disconnected": Meaning(status=503, retryable=True),
    "runner_connection_refused": Meaning(status=503, retryable=True),
    "runner_connection_error": Meaning(status=503, retryable=True),
    "runner_incomplete_response": Meaning(status=502, retryable=True),
    "runner_server_error": Meaning(status=500, retryable=True),
    "internal_error": Meaning(status=500, retryable=True),
    "client_disconnected": Meaning(status=499, code=ErrorCode.CANCELED),
    "client_cancelled": Meaning(status=499, code=ErrorCode.CANCELED),
    "bad_request": Meaning(status=400),
}
#: Words that are not here mean what their status means, and a new submit does not help.
WORDS: Mapping[str, Meaning] = {**_MODEL_ERRORS, **REQUEST_ERRORS}

_RETRY_HEADERS = ("x-fal-needs-retry", "x-fal-retryable")
_YES_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_PRINTABLE_WORD = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_CODE_IN_TEXT = re.compile(r"status code:? (\d{3})\b")

Quote = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure as fal told it. `status` is the model's HTTP status, None where nobody told it."""

    status: int | None
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    #: `error` and `error_type` of the status object or the webhook.
    error: str | None = None
    error_type: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that decide, the request's own first."""
        told = (self.error_type, text_member(self.body, "error_type"), self.headers.get("x-fal-error-type"))
        return tuple(dict.fromkeys((*(word for word in told if word), *detail_types(self.body))))

    @property
    def blocked(self) -> bool:
        """Whether content policy stopped it: as a word, or named in a `detail` or `error` that is plain text."""
        texts = (self.error, text_member(self.body, "detail"), text_member(self.body, "error"))
        return CONTENT_POLICY in self.words or any(text and CONTENT_POLICY in text for text in texts)

    @property
    def meaning(self) -> Meaning | None:
        return next((WORDS[word] for word in self.words if word in WORDS), None)

    @property
    def start_deadline_passed(self) -> bool:
        """Our `X-Fal-Request-Start-Timeout` ended it, not fal's own limits."""
        return self.status == 504 and self.headers.get("x-fal-request-timeout-type", "").lower() == "user"


def detail_types(body: Any) -> tuple[str, ...]:
    """This function will return the `type` words of a model error, whose `detail` may also be plain text."""
    detail = body.get("detail") if isinstance(body, dict) else None
    entries = detail if isinstance(detail, list) else [detail]
    types = (text_member(entry, "type") for entry in entries)
    return tuple(word for word in types if word)


def code_in(error: str | None) -> int | None:
    """This function will return the status that fal's `Invalid status code: 422` names."""
    found = _CODE_IN_TEXT.search(error or "")
    return int(found[1]) if found else None


def verdict(
    failure: Failure, *, attempt_id: str, cause: str, quote: Quote, cost_usd: Decimal | None = None
) -> ProviderFailed | ProviderBlocked:
    """This function will turn a failure into the fact it is. Blocked when any word says content policy."""
    meaning = failure.meaning
    status = failure.status if failure.status is not None else meaning.status if meaning else None
    said = failure.body if failure.body is not None else _told(failure)
    if failure.blocked:
        error = JobError(
            code=ErrorCode.CONTENT_BLOCKED,
            message="fal's content policy stopped the request.",
            provider_status=status,
            provider_error=quote(said),
        )
        return ProviderBlocked(cause=cause, attempt_id=attempt_id, error=error, cost_usd=cost_usd)
    code = _code(failure, meaning, status)
    error = JobError(
        code=code,
        message=_message(code, status, failure),
        retryable=_retryable(failure, meaning, code),
        provider_status=status,
        provider_error=quote(said),
    )
    return ProviderFailed(cause=cause, attempt_id=attempt_id, error=error, cost_usd=cost_usd)


def _told(failure: Failure) -> dict[str, str] | None:
    told = {"error": failure.error, "error_type": failure.error_type}
    return {name: text for name, text in told.items() if text} or None


def _code(failure: Failure, meaning: Meaning | None, status: int | None) -> ErrorCode:
    if failure.start_deadline_passed:
        return ErrorCode.DEADLINE_EXCEEDED
    if meaning is not None and meaning.code is not None:
        return meaning.code
    if status == 499:
        return ErrorCode.CANCELED
    if status is not None and 400 <= status < 500:
        return ErrorCode.PROVIDER_REJECTED
    return ErrorCode.PROVIDER_FAILED


def _retryable(failure: Failure, meaning: Meaning | None, code: ErrorCode) -> bool:
    if code in (ErrorCode.DEADLINE_EXCEEDED, ErrorCode.CANCELED, ErrorCode.EMPTY_RESULT):
        return False
    if meaning is not None and meaning.retryable is not None:
        return meaning.retryable
    if meaning is None and code is ErrorCode.PROVIDER_REJECTED:
        return False
    headers = (failure.headers.get(name, "").strip().lower() for name in _RETRY_HEADERS)
    return next((_YES_NO[text] for text in headers if text in _YES_NO), True)


_SENTENCES: Mapping[ErrorCode, str] = {
    ErrorCode.DEADLINE_EXCEEDED: "The request did not start at fal before its deadline",
    ErrorCode.CANCELED: "The request was canceled at fal",
    ErrorCode.EMPTY_RESULT: "The model made no media",
    ErrorCode.PROVIDER_REJECTED: "fal refused the request",
    ErrorCode.PROVIDER_FAILED: "The request failed at fal",
}


def _message(code: ErrorCode, status: int | None, failure: Failure) -> str:
    """Our words and fal's identifiers only: its prose may quote the prompt, and stays in `provider_error`."""
    reasons = ", ".join(_reasons(failure))
    told = f" ({status})" if status is not None else ""
    return f"{_SENTENCES[code]}{told}{': ' if reasons else ''}{reasons}."


def _reasons(failure: Failure) -> Iterator[str]:
    detail = failure.body.get("detail") if isinstance(failure.body, dict) else None
    entries = detail[:5] if isinstance(detail, list) else []
    for word in failure.words[:5]:
        if not _PRINTABLE_WORD.fullmatch(word):
            continue
        place = next((_place(entry) for entry in entries if text_member(entry, "type") == word), "")
        yield f"{word} at {place}" if place else word


def _place(entry: Mapping[str, Any]) -> str:
    loc = entry.get("loc")
    steps = [str(step) for step in loc[:8] if isinstance(step, str | int)] if isinstance(loc, list) else []
    return ".".join(steps) if all(_PRINTABLE_WORD.fullmatch(step) for step in steps) else ""
