"""Sending one attempt to fal's queue.

fal documents no idempotency key, so a submit whose fate nobody knows is never repeated here. Sources, read
2026-11-20: https://fal.ai/docs/documentation/model-apis/inference/queue.md (submit, `fal_webhook`),
https://fal.ai/docs/documentation/model-apis/common-parameters.md (headers).
"""

from collections.abc import Generator

from service.domain import exact_json
from service.domain.facts import CAUSE_SUBMIT, ProviderBlocked, ProviderFailed, SubmitAccepted
from service.domain.failures import ErrorCode, JobError
from service.providers.base import (
    Answer,
    Call,
    MaybeTaken,
    NotTaken,
    Order,
    Refusal,
    Reply,
    Stage,
    Submitted,
    Trouble,
)
from service.providers.fal.account import Account
from service.providers.fal.errors import Failure, verdict
from service.providers.fal.reading import queue_position, text_member, value_in
from service.providers.fal.urls import model_error, readable_id
from service.providers.reading import object_in, retry_after_ms

TIMEOUT_S = 30.0
#: As long as fal by default keeps the payloads that name the files (`X-Fal-Store-IO`, 30 days). Set explicitly
#: because sources disagree on the default (7 days, or for ever) and outputs are public.
OBJECT_LIFETIME_S = 30 * 86_400
#: 499 is what proxies say of a client that went away: the request may have been passed on before.
_PERHAPS_TAKEN = (408, 499)


def submit(account: Account, order: Order) -> Generator[Call, Answer, Submitted]:
    """This function will send one attempt and say what became of it; a model that is no path is sent nowhere."""
    why = model_error(order.model)
    if why is not None:
        error = JobError(code=ErrorCode.PROVIDER_REJECTED, message=f"The model {why}.")
        return (ProviderFailed(cause=CAUSE_SUBMIT, attempt_id=order.attempt_id, error=error),)
    answer = yield Call(
        method="POST",
        url=account.urls.submit(order.model, order.callback_url),
        headers=_headers(account, order),
        body=exact_json.dumps(dict(order.input)).encode(),
        timeout_s=TIMEOUT_S,
    )
    if isinstance(answer, Trouble):
        if answer.stage is Stage.NOT_SENT:
            return NotTaken(refusal=Refusal.UNREACHABLE, message=answer.reason)
        return MaybeTaken(reason=answer.reason)
    if 200 <= answer.status < 300:
        return _accepted(account, order, answer)
    if not 400 <= answer.status < 500 or answer.status in _PERHAPS_TAKEN:
        return MaybeTaken(reason=f"fal answered the submit with {answer.status}.", status=answer.status)
    return _parked(order, answer) or (_refused(account, order, answer),)


def _headers(account: Account, order: Order) -> dict[str, str]:
    """What is left to our deadline is how long the request may wait for its start; a started one runs on."""
    left_s = max(1, (order.deadline_ms - order.now_ms) // 1_000)
    return account.headers(
        **{
            "Content-Type": "application/json",
            "X-Fal-Queue-Priority": order.priority,
            "X-Fal-Request-Start-Timeout": str(left_s),
            "X-Fal-Object-Lifecycle-Preference": f'{{"expiration_duration_seconds":{OBJECT_LIFETIME_S}}}',
        }
    )


def _accepted(account: Account, order: Order, reply: Reply) -> Submitted:
    document = object_in(reply.body) or {}
    request_id = readable_id(document.get("request_id"))
    if request_id is None:
        return MaybeTaken(
            reason="fal took the submit, but its answer names no request id.", status=reply.status
        )
    links = account.urls.links(order.model, request_id)
    for name, member in (("status", "status_url"), ("result", "response_url"), ("cancel", "cancel_url")):
        url = text_member(document, member)
        if url is not None and account.urls.may_carry_key(url):
            links[name] = url
    accepted = SubmitAccepted(
        cause=CAUSE_SUBMIT,
        attempt_id=order.attempt_id,
        provider_request_id=request_id,
        links=links,
        queue_position=queue_position(document),
    )
    return (accepted,)


def _parked(order: Order, reply: Reply) -> NotTaken | None:
    """What provably was not queued and is no fault of the request: 401, 402, 403, 429.

    A locked account answers 403 `{"detail":"User is locked. Reason: Exhausted balance…"}` and queues nothing;
    only its prose tells it from a key without permission.
    """
    wait_ms = retry_after_ms(reply.headers, order.now_ms)
    if reply.status == 429:
        message = "fal limits our requests (429)."
        return NotTaken(refusal=Refusal.RATE_LIMITED, message=message, retry_after_ms=wait_ms)
    detail = (text_member(object_in(reply.body), "detail") or "").lower()
    if reply.status == 402 or (reply.status == 403 and ("locked" in detail or "balance" in detail)):
        message = f"The fal account is locked or its balance is exhausted ({reply.status})."
        return NotTaken(refusal=Refusal.INSUFFICIENT_CREDIT, message=message, retry_after_ms=wait_ms)
    if reply.status in (401, 403):
        message = f"fal does not accept our key ({reply.status})."
        return NotTaken(refusal=Refusal.AUTHENTICATION, message=message, retry_after_ms=wait_ms)
    return None


def _refused(account: Account, order: Order, reply: Reply) -> ProviderFailed | ProviderBlocked:
    failure = Failure(status=reply.status, body=value_in(reply.body), headers=reply.headers)
    return verdict(failure, attempt_id=order.attempt_id, cause=CAUSE_SUBMIT, quote=account.quote)
