"""Asking fal for the state of a request and, where it ended, for its result.

Rule 1: fal has no FAILED status. A failure is COMPLETED with `error`/`error_type`, or COMPLETED and a 4xx/5xx on
the result; so the result is always asked for, and is a success only when both agree.
Rule 2: an answer that may be the gateway's own trouble only means: ask again (`whose.py`).
Sources, read 2026-11-20: https://fal.ai/docs/documentation/model-apis/inference/queue.md and
https://fal.ai/docs/inference-api/queue/submit.
"""

from collections.abc import Generator

from service.domain import exact_json
from service.domain.facts import (
    CAUSE_POLL,
    Fact,
    ProviderFailed,
    ProviderQueued,
    ProviderStarted,
    ProviderVerdict,
)
from service.domain.failures import ErrorCode, JobError
from service.providers.base import Answer, Call, NoNews, Reply, Subject, Trouble
from service.providers.fal.account import Account
from service.providers.fal.errors import Failure, code_in, verdict
from service.providers.fal.reading import queue_position, text_member, value_in
from service.providers.fal.result import conclude, settled_usd
from service.providers.fal.whose import Told, Whose, whose_answer
from service.providers.reading import object_in, retry_after_ms

STATUS_TIMEOUT_S = 15.0
RESULT_TIMEOUT_S = 30.0
_UNUSABLE = NoNews(reason="The model or the request id cannot be part of a URL at fal.")


def ask(account: Account, subject: Subject) -> Generator[Call, Answer, tuple[Fact, ...] | NoNews]:
    """This function will ask for the status and, once that says COMPLETED, for the result."""
    links = account.links(subject)
    if links is None:
        return _UNUSABLE
    headers = account.headers()
    answer = yield Call(method="GET", url=links["status"], headers=headers, timeout_s=STATUS_TIMEOUT_S)
    told = _told(subject, answer)
    if isinstance(told, NoNews):
        return told
    answer = yield Call(method="GET", url=links["result"], headers=headers, timeout_s=RESULT_TIMEOUT_S)
    if isinstance(answer, Trouble):
        return NoNews(reason=answer.reason)
    return _conclude(account, subject, told, answer)


def _told(subject: Subject, answer: Answer) -> Told | NoNews:
    """Any other status than 2xx says nothing: a 404 may come right after the submit, and proves no absence later."""
    if isinstance(answer, Trouble):
        return NoNews(reason=answer.reason)
    wait_ms = retry_after_ms(answer.headers, subject.now_ms)
    document = object_in(answer.body)
    if not 200 <= answer.status < 300 or document is None:
        return NoNews(reason=f"fal answered the status request with {answer.status}.", retry_after_ms=wait_ms)
    match document.get("status"):
        case "COMPLETED":
            return Told(error=text_member(document, "error"), error_type=text_member(document, "error_type"))
        case "IN_PROGRESS":
            started = ProviderStarted(cause=CAUSE_POLL, attempt_id=subject.attempt_id)
            return NoNews(reason="The request runs at fal.", retry_after_ms=wait_ms, facts=(started,))
        case "IN_QUEUE":
            queued = ProviderQueued(
                cause=CAUSE_POLL, attempt_id=subject.attempt_id, queue_position=queue_position(document)
            )
            return NoNews(reason="The request waits at fal.", retry_after_ms=wait_ms, facts=(queued,))
    return NoNews(reason="fal told a status that we do not know.", retry_after_ms=wait_ms)


def _conclude(account: Account, subject: Subject, told: Told, reply: Reply) -> tuple[Fact, ...] | NoNews:
    whose = whose_answer(told, reply)
    if whose is Whose.GATEWAY:
        return NoNews(
            reason=f"fal answered the result request with {reply.status}.",
            retry_after_ms=retry_after_ms(reply.headers, subject.now_ms),
        )
    return (_verdict(account, subject, told, reply, whose),)


def _verdict(account: Account, subject: Subject, told: Told, reply: Reply, whose: Whose) -> ProviderVerdict:
    cost_usd = settled_usd(reply.headers)
    if whose is Whose.GONE:
        return ProviderFailed(cause=CAUSE_POLL, attempt_id=subject.attempt_id, error=_expired(account, reply))
    if whose is Whose.MODEL and reply.status == 200:
        return conclude(
            exact_json.loads(reply.body),
            model=subject.model,
            attempt_id=subject.attempt_id,
            cause=CAUSE_POLL,
            quote=account.quote,
            cost_usd=cost_usd,
        )
    if whose is Whose.MODEL:
        failure = Failure(
            status=reply.status,
            body=value_in(reply.body),
            headers=reply.headers,
            error=told.error,
            error_type=told.error_type,
        )
    else:
        failure = Failure(status=code_in(told.error), body=None, error=told.error, error_type=told.error_type)
    return verdict(
        failure, attempt_id=subject.attempt_id, cause=CAUSE_POLL, quote=account.quote, cost_usd=cost_usd
    )


def _expired(account: Account, reply: Reply) -> JobError:
    return JobError(
        code=ErrorCode.RESULT_EXPIRED,
        message="The request ended well at fal, but its result is no longer kept there.",
        provider_status=reply.status,
        provider_error=account.quote(value_in(reply.body)),
    )
