"""Whose word the answer to a result request is: the model's, the queue's, or the gateway's on the way to it.

fal hands out the model's own status, headers and body as the result, so a 500 may be the ended request or trouble
with our question; the first is final, the second only means: ask again. No document says how to tell them apart
(UNCONFIRMED). What is known, read 2026-11-20:

- Only an app writes `detail` as a list of typed entries, and only an ended request has an `error_type` of the
  request-errors page, in the body or as `X-Fal-Error-Type`
  (https://fal.ai/docs/documentation/model-apis/request-errors.md).
- fal marks 502, 503 and 504 of ended requests that way, so an unmarked one is the gateway's; fal's own client
  takes 502/503/504 without `x-fal-request-id` for its ingress
  (https://github.com/fal-ai/fal/tree/main/projects/fal_client).
- Another 5xx is the model's when it has an app's shape (`detail`) and came through fal's queue (`x-fal-request-id`).
- 401, 402, 403, 408, 429 are about our question: the queue answered it, the model did not.
- Only answers of a model carry `x-fal-billable-units`, 422 and 404 of it included
  (https://github.com/fal-ai/fal/blob/c6f0afa/projects/fal/tests/e2e/test_apps.py); any other 404 after COMPLETED
  is a result that is no longer kept.
- 400 is also said of a result that is not there yet (same tests, marked unreliable).

Where this errs it errs towards asking again, which the deadline ends.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from service.domain import exact_json
from service.domain.exact_json import NotJson
from service.providers.base import Reply
from service.providers.fal.errors import REQUEST_ERRORS, Failure, code_in, detail_types
from service.providers.fal.reading import text_member
from service.providers.reading import object_in

_ABOUT_OUR_QUESTION = (401, 402, 403, 407, 408, 425, 429)
_GATEWAY_TROUBLE = (502, 503, 504)
_NOT_THERE = (404, 410)
_UNFINISHED = re.compile(r"in[ _](progress|queue)|not (yet )?(complete|finish|ready)|still", re.IGNORECASE)


class Whose(StrEnum):
    #: The model's result or failure, in the reply.
    MODEL = "model"
    #: The failure that the status told; the reply adds nothing.
    STATUS = "status"
    #: The result is no longer kept.
    GONE = "gone"
    #: Trouble on the way: ask again.
    GATEWAY = "gateway"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a COMPLETED status said of a failure."""

    error: str | None = None
    error_type: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.error_type is not None

    def agrees_with(self, status: int) -> bool:
        """Whether a result with this status is the failure that was told."""
        code = code_in(self.error)
        if code is not None:
            return code == status
        meaning = REQUEST_ERRORS.get(self.error_type or "")
        return self.failed and (status >= 500 or (meaning is not None and meaning.status == status))


def whose_answer(told: Told, reply: Reply) -> Whose:
    """This function will tell whose word the answer to a result request is, after a COMPLETED status."""
    if reply.status == 200:
        if told.failed:
            return Whose.STATUS
        return Whose.MODEL if _is_json(reply.body) else Whose.GATEWAY
    if not 400 <= reply.status < 600:
        return Whose.GATEWAY
    body = object_in(reply.body)
    failure = Failure(status=reply.status, body=body, headers=reply.headers)
    if failure.blocked or told.agrees_with(reply.status):
        return Whose.MODEL
    if told.failed and reply.status in _NOT_THERE:
        return Whose.STATUS
    if reply.status in _ABOUT_OUR_QUESTION:
        return Whose.GATEWAY
    if _is_marked(failure):
        return Whose.MODEL
    if reply.status in _NOT_THERE:
        return Whose.MODEL if "x-fal-billable-units" in reply.headers else Whose.GONE
    return _by_shape(failure)


def _is_json(body: bytes) -> bool:
    try:
        exact_json.loads(body)
    except NotJson:
        return False
    return True


def _is_marked(failure: Failure) -> bool:
    return (
        failure.start_deadline_passed
        or bool(detail_types(failure.body))
        or any(word in REQUEST_ERRORS for word in failure.words)
    )


def _by_shape(failure: Failure) -> Whose:
    """Neither marked nor about our question: what is left to go by is the shape of the body."""
    has_detail = isinstance(failure.body, dict) and failure.body.get("detail") is not None
    match failure.status:
        case 422 | 499:
            models_own = True
        case 400:
            models_own = has_detail and not _UNFINISHED.search(text_member(failure.body, "detail") or "")
        case int(status) if status in _GATEWAY_TROUBLE:
            models_own = False
        case int(status) if status >= 500:
            models_own = has_detail and "x-fal-request-id" in failure.headers
        case _:
            models_own = has_detail
    return Whose.MODEL if models_own else Whose.GATEWAY
