"""Wishing a request canceled: to fal a wish, a running request may still complete and be charged.

https://fal.ai/docs/documentation/model-apis/inference/queue.md (read 2026-11-20): 202 CANCELLATION_REQUESTED,
400 ALREADY_COMPLETED, 404 NOT_FOUND; a newer schema adds OK.
"""

import re
from collections.abc import Generator

from service.domain.facts import CAUSE_POLL, CancelAnswered
from service.providers.base import Answer, Call, NoNews, Subject, Trouble
from service.providers.fal.account import Account
from service.providers.fal.reading import text_member
from service.providers.reading import object_in, retry_after_ms

TIMEOUT_S = 15.0
#: Trouble with our question, not an answer to it.
_NO_ANSWER = (401, 402, 403, 407, 408, 425, 429)
_WORD = re.compile(r"[A-Z_]{1,60}")


def cancel(account: Account, subject: Subject) -> Generator[Call, Answer, CancelAnswered | NoNews]:
    """This function will ask fal to stop a request and report its word; nothing here ends a job."""
    links = account.links(subject)
    if links is None:
        return NoNews(reason="The model or the request id cannot be part of a URL at fal.")
    answer = yield Call(method="PUT", url=links["cancel"], headers=account.headers(), timeout_s=TIMEOUT_S)
    if isinstance(answer, Trouble):
        return NoNews(reason=answer.reason)
    heard = 200 <= answer.status < 300 or (400 <= answer.status < 500 and answer.status not in _NO_ANSWER)
    if not heard:
        return NoNews(
            reason=f"fal answered the wish to cancel with {answer.status}.",
            retry_after_ms=retry_after_ms(answer.headers, subject.now_ms),
        )
    word = text_member(object_in(answer.body), "status") or ""
    said = word if _WORD.fullmatch(word) else f"HTTP {answer.status}"
    return CancelAnswered(cause=CAUSE_POLL, attempt_id=subject.attempt_id, answer=said)
