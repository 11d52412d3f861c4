"""BFL's words for where a task stands become ours, in one table; callbacks and polls are read by the same one.

https://api.bfl.ai/openapi.json; callbacks also say SUCCESS, processing and GENERATED CONTENT MODERATED
(https://github.com/flavioalexandre658/pixoo, https://github.com/gHashTag/ai-server). Read 2026-11-20.
"""

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

from service.domain.facts import ProviderBlocked, ProviderFailed, ProviderSucceeded
from service.domain.failures import ErrorCode, JobError
from service.domain.money import BFL_CREDIT_USD, parse_usd
from service.domain.results import Image, Output


class Word(StrEnum):
    #: Taken; BFL moves it on.
    QUEUED = "queued"
    WORKING = "working"
    READY = "ready"
    FAILED = "failed"
    #: The input was refused before work began.
    REQUEST_MODERATED = "request_moderated"
    #: The result was refused.
    CONTENT_MODERATED = "content_moderated"
    #: Unknown or expired id, or the wrong cluster: says nothing about the task.
    NOT_FOUND = "not_found"
    #: Any other word: newer than this table, so neither success nor an end.
    UNKNOWN = "unknown"


WORDS: Mapping[str, Word] = {
    "pending": Word.QUEUED,
    "reasoning": Word.WORKING,
    "generating": Word.WORKING,
    "processing": Word.WORKING,
    "ready": Word.READY,
    "success": Word.READY,
    "error": Word.FAILED,
    "failed": Word.FAILED,
    "failure": Word.FAILED,
    "task not found": Word.NOT_FOUND,
}

_CONTENT_TYPES = {
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
}
_SUFFIX = re.compile(r"\.(jpeg|jpg|png|webp|mp4)(?=[/?]|$)")
_MOST_SECONDS = 10_000_000_000
_LONGEST_SEED = 10**40

Quote = Callable[[Any], Any]
Verdict = ProviderSucceeded | ProviderFailed | ProviderBlocked


def word_in(document: Mapping[str, Any]) -> Word:
    """This function will read the status of a poll or a callback, in whatever case it is written."""
    status = document.get("status")
    if not isinstance(status, str):
        return Word.UNKNOWN
    text = status.strip().lower()
    if "moderated" in re.findall(r"[a-z]+", text):
        return Word.REQUEST_MODERATED if text.startswith("request") else Word.CONTENT_MODERATED
    return WORDS.get(text, Word.UNKNOWN)


def sample_in(document: Mapping[str, Any]) -> str | None:
    """This function will return the result file's URL as BFL named it, unchecked."""
    result = document.get("result")
    sample = result.get("sample") if isinstance(result, dict) else None
    return sample if isinstance(sample, str) and sample else None


def credits_in(document: Mapping[str, Any]) -> Decimal | None:
    """This function will return the cost in US dollars; BFL tells it in credits, and null where it does not know."""
    told = parse_usd(document.get("cost"))
    return told * BFL_CREDIT_USD if told is not None else None


def succeeded(document: Mapping[str, Any], *, sample: str, attempt_id: str, cause: str) -> ProviderSucceeded:
    """This function will turn a Ready with a usable URL into the fact it is."""
    result: dict[str, Any] = document["result"]
    suffix = _SUFFIX.search(sample)
    image = Image(url=sample, content_type=_CONTENT_TYPES[suffix[1]] if suffix else None)
    return ProviderSucceeded(
        cause=cause,
        attempt_id=attempt_id,
        output=Output(images=(image,), seed=_seed(result.get("seed")), raw=result),
        cost_usd=credits_in(document),
        provider_completed_ms=_seconds_to_ms(result.get("end_time")),
    )


def empty(document: Mapping[str, Any], *, attempt_id: str, cause: str, quote: Quote) -> ProviderFailed:
    """This function will turn a Ready without a usable URL into the fact it is."""
    error = JobError(
        code=ErrorCode.EMPTY_RESULT,
        message="BFL says that the task is ready, but names no result file.",
        provider_error=quote({"status": document.get("status"), "result": document.get("result")}),
    )
    return ProviderFailed(cause=cause, attempt_id=attempt_id, error=error, cost_usd=credits_in(document))


def failed(document: Mapping[str, Any], *, attempt_id: str, cause: str, quote: Quote) -> ProviderFailed:
    """This function will turn a failure into the fact it is. Another try is the caller's choice."""
    error = JobError(
        code=ErrorCode.PROVIDER_FAILED,
        message="The task failed at BFL.",
        retryable=True,
        provider_error=quote(_told(document)),
    )
    return ProviderFailed(cause=cause, attempt_id=attempt_id, error=error, cost_usd=credits_in(document))


def blocked(
    document: Mapping[str, Any], word: Word, *, attempt_id: str, cause: str, quote: Quote
) -> ProviderBlocked:
    """This function will turn a moderated task into the fact it is.

    A refused result may pass with another seed, a refused request does not.
    """
    of_request = word is Word.REQUEST_MODERATED
    reasons = reasons_in(document)
    refused = "the request" if of_request else "the result"
    error = JobError(
        code=ErrorCode.CONTENT_BLOCKED,
        message=f"BFL's moderation stopped {refused}{': ' if reasons else ''}{', '.join(reasons)}.",
        retryable=not of_request,
        provider_error=quote({"moderated": "request" if of_request else "content", **_told(document)}),
    )
    return ProviderBlocked(cause=cause, attempt_id=attempt_id, error=error, cost_usd=credits_in(document))


def reasons_in(document: Mapping[str, Any]) -> list[str]:
    """This function will return the names of the filters that stopped a task, where they are told."""
    details = document.get("details")
    told = details.get("Moderation Reasons") if isinstance(details, dict) else None
    named = [reason for reason in told if isinstance(reason, str)] if isinstance(told, list) else []
    return [reason[:200] for reason in named[:10] if reason.isprintable() and reason.strip()]


def explains_itself(document: Mapping[str, Any]) -> bool:
    """This function will tell whether a failed or moderated task says why."""
    texts = (document.get("error"), document.get("message"))
    return bool(reasons_in(document)) or any(isinstance(text, str) and text.strip() for text in texts)


def _told(document: Mapping[str, Any]) -> dict[str, Any]:
    members = ("status", "details", "error", "message")
    return {name: document[name] for name in members if document.get(name) is not None}


def _seed(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LONGEST_SEED:
        return str(value)
    return value if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}", value) else None


def _seconds_to_ms(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return round(value * 1_000) if math.isfinite(value) and 0 < value < _MOST_SECONDS else None
