"""BFL as a provider: submit, poll, judge callbacks. There is no cancel, no list of tasks and no idempotency key.

https://api.bfl.ai/openapi.json, https://docs.bfl.ai/api_integration/errors and
https://docs.bfl.ml/api_integration/integration_guidelines.md, read 2026-11-20.
"""

from collections.abc import Generator, Mapping
from decimal import Decimal
from typing import Any

from service.domain import exact_json
from service.domain.callback import Addressee, Judgement, Received
from service.domain.facts import (
    CAUSE_POLL,
    CAUSE_SUBMIT,
    CancelAnswered,
    Fact,
    ProviderFailed,
    ProviderQueued,
    ProviderStarted,
    SubmitAccepted,
)
from service.domain.failures import ErrorCode, FieldError, JobError
from service.domain.schedule import Pace
from service.providers import reading
from service.providers.base import (
    Answer,
    Call,
    KeysNeeded,
    Listed,
    MaybeTaken,
    NoNews,
    NotTaken,
    Order,
    Refusal,
    Reply,
    Search,
    Stage,
    Subject,
    Submitted,
    Trouble,
)
from service.providers.bfl import inputs, models, outcomes, webhook
from service.providers.bfl.outcomes import Quote, Word
from service.providers.bfl.urls import PUBLIC_URL, Urls, origin_of, readable_id

#: A poll is a look-up; several clusters may have to be asked one after the other.
_ASK_TIMEOUT_S = 10.0
#: What a malformed key gets, as a 422 (seen live, August 2026).
_BAD_KEY = "invalid api key format"

_PARKED: Mapping[int, tuple[Refusal, str]] = {
    401: (Refusal.AUTHENTICATION, "BFL does not accept the API key."),
    403: (Refusal.AUTHENTICATION, "BFL does not accept the API key, or it may not do this."),
    402: (Refusal.INSUFFICIENT_CREDIT, "The BFL account has no credits or no payment method."),
    429: (Refusal.RATE_LIMITED, "BFL has too many active tasks of this account."),
}


class Bfl:
    """See `Provider`.

    :raises ValueError: if the key is empty.
    """

    name = "bfl"
    #: Results live ten minutes, and how long a task stays pollable is not documented.
    pace = Pace(first_cap_ms=60_000, interval_ms=2_000, interval_cap_ms=30_000)
    has_keys = False

    def __init__(self, *, key: str, url: str = PUBLIC_URL) -> None:
        if not key.strip():
            raise ValueError("BFL needs a key")
        self._key = key.strip()
        self._urls = Urls(url.rstrip("/"))

    def validate(self, model: str, input: Mapping[str, Any]) -> list[FieldError]:
        """This function will check an input of a known model; unknown models and fields pass."""
        return inputs.errors_in(model, input)

    def estimate_usd(self, model: str, input: Mapping[str, Any]) -> Decimal | None:
        """This function will say what a request probably costs, or None where no price is known."""
        return inputs.estimate_usd(model, input)

    def submit(self, order: Order) -> Generator[Call, Answer, Submitted]:
        """This function will send one attempt; it yields exactly one `Call`."""
        model = models.find(order.model)
        body = {name: value for name, value in order.input.items() if name not in models.OURS}
        if order.callback_url is not None and model.takes_webhook:
            body["webhook_url"] = order.callback_url
            body["webhook_secret"] = order.secret
        answer = yield Call(
            method="POST",
            url=self._urls.submit(model.path),
            headers={"x-key": self._key, "content-type": "application/json", "accept": "application/json"},
            body=exact_json.dumps(body).encode(),
        )
        if isinstance(answer, Trouble):
            if answer.stage is Stage.NOT_SENT:
                return NotTaken(refusal=Refusal.UNREACHABLE, message=answer.reason)
            return MaybeTaken(reason=answer.reason)
        return self._submitted(answer, order)

    def _submitted(self, reply: Reply, order: Order) -> Submitted:
        document = reading.object_in(reply.body)
        if 200 <= reply.status < 300:
            return self._accepted(document or {}, reply.status, order)
        refusal, message = _PARKED.get(reply.status, (None, ""))
        if reply.status == 422 and _says_bad_key(document):
            refusal, message = _PARKED[401]
        if refusal is not None:
            wait_ms = reading.retry_after_ms(reply.headers, order.now_ms)
            return NotTaken(refusal=refusal, message=message, retry_after_ms=wait_ms)
        if 400 <= reply.status < 500 and reply.status != 408:
            return (self._rejected(reply, document, order),)
        return MaybeTaken(reason=f"BFL answered {reply.status}.", status=reply.status)

    def _accepted(self, document: Mapping[str, Any], status: int, order: Order) -> Submitted:
        """With a webhook the reply may lack `polling_url`; one that points elsewhere is not used."""
        task_id = readable_id(document.get("id"))
        if task_id is None:
            return MaybeTaken(reason=f"BFL answered {status} without a task id.", status=status)
        link = document.get("polling_url")
        return (
            SubmitAccepted(
                cause=CAUSE_SUBMIT,
                attempt_id=order.attempt_id,
                provider_request_id=task_id,
                links={"status": link} if isinstance(link, str) and self._urls.may_carry_key(link) else {},
                cost_usd=outcomes.credits_in(document),
            ),
        )

    def _rejected(self, reply: Reply, document: Mapping[str, Any] | None, order: Order) -> Fact:
        said = document if document is not None else reply.body[:4_000].decode("utf-8", "replace")
        error = JobError(
            code=ErrorCode.PROVIDER_REJECTED,
            message=f"BFL refused the request ({reply.status}){_places(document)}.",
            provider_status=reply.status,
            provider_error=self._quote(order.secret, _token_in(order.callback_url))(said),
        )
        return ProviderFailed(cause=CAUSE_SUBMIT, attempt_id=order.attempt_id, error=error)

    def ask(self, subject: Subject) -> Generator[Call, Answer, tuple[Fact, ...] | NoNews]:
        """This function will ask where the task may be known; "not found" only means: next host, later again."""
        news = NoNews(reason="BFL does not know the task (yet, or there).")
        for url in self._urls.to_ask(subject.provider_request_id, subject.links.get("status")):
            answer = yield Call(
                method="GET",
                url=url,
                headers={"x-key": self._key, "accept": "application/json"},
                timeout_s=_ASK_TIMEOUT_S,
            )
            told = self._told(answer, subject)
            if isinstance(told, tuple):
                return told
            news = told or news
            if news.facts or (isinstance(answer, Reply) and answer.status == 429):
                break
        return news

    def _told(self, answer: Answer, subject: Subject) -> tuple[Fact, ...] | NoNews | None:
        """What one host says of a task; None: it does not know it."""
        if isinstance(answer, Trouble):
            return NoNews(reason=answer.reason)
        if answer.status == 404:
            return None
        if answer.status != 200:
            wait_ms = reading.retry_after_ms(answer.headers, subject.now_ms)
            return NoNews(reason=f"BFL answered {answer.status}.", retry_after_ms=wait_ms)
        document = reading.object_in(answer.body)
        if document is None:
            return NoNews(reason="BFL's answer is not a JSON object.")
        if document.get("id") not in (None, subject.provider_request_id):
            return NoNews(reason="BFL's answer is about another task.")
        word = outcomes.word_in(document)
        return None if word is Word.NOT_FOUND else self._concluded(document, word, subject)

    def _concluded(
        self, document: Mapping[str, Any], word: Word, subject: Subject
    ) -> tuple[Fact, ...] | NoNews:
        quote, attempt_id = self._quote(), subject.attempt_id
        match word:
            case Word.READY:
                # What BFL delivers from a host that we do not know is delivered and paid all the same: the URL
                # is handed on, and `may_download` keeps us from fetching it.
                sample = outcomes.sample_in(document)
                if sample is None or not self._is_https_or_ours(sample):
                    return (outcomes.empty(document, attempt_id=attempt_id, cause=CAUSE_POLL, quote=quote),)
                return (outcomes.succeeded(document, sample=sample, attempt_id=attempt_id, cause=CAUSE_POLL),)
            case Word.FAILED:
                return (outcomes.failed(document, attempt_id=attempt_id, cause=CAUSE_POLL, quote=quote),)
            case Word.REQUEST_MODERATED | Word.CONTENT_MODERATED:
                return (
                    outcomes.blocked(document, word, attempt_id=attempt_id, cause=CAUSE_POLL, quote=quote),
                )
            case Word.QUEUED:
                queued = ProviderQueued(cause=CAUSE_POLL, attempt_id=attempt_id)
                return NoNews(reason="BFL has the task in its queue.", facts=(queued,))
            case Word.WORKING:
                started = ProviderStarted(cause=CAUSE_POLL, attempt_id=attempt_id)
                return NoNews(reason="BFL works on the task.", facts=(started,))
        return NoNews(reason="BFL says something that is neither success nor an end.")

    def _is_https_or_ours(self, url: str) -> bool:
        origin = origin_of(url)
        return origin is not None and (origin[0] == "https" or self._urls.may_download(url))

    def cancel(self, subject: Subject) -> Generator[Call, Answer, CancelAnswered | NoNews]:
        """This function will answer at once: BFL has no way to stop a task."""
        yield from ()
        return CancelAnswered(
            cause=CAUSE_POLL, attempt_id=subject.attempt_id, answer="not supported by the provider"
        )

    def find(self, search: Search) -> Generator[Call, Answer, tuple[Listed, ...]] | None:
        """This function will return None: BFL lists no tasks, so only a callback finds a lost one."""
        return None

    def judge(self, callback: Received, addressee: Addressee) -> Judgement | KeysNeeded:
        """This function will judge a callback by its raw bytes; it raises nothing, whatever was sent."""
        return webhook.judge(callback, addressee, urls=self._urls, quote=self._quote(addressee.secret))

    def wants_keys(self, why: KeysNeeded | None, now_ms: int) -> bool:
        """This function will return False: a callback proves itself by the attempt's own secret."""
        return False

    def fetch_keys(self, now_ms: int) -> Generator[Call, Answer, bool]:
        """This function will return False without a call."""
        yield from ()
        return False

    def may_download(self, url: str) -> bool:
        """This function will tell whether a result file may be fetched from this URL."""
        return self._urls.may_download(url)

    def _quote(self, *secrets: str | None) -> Quote:
        return lambda said: reading.quote(said, self._key, *secrets)


def _token_in(callback_url: str | None) -> str | None:
    """The last part of a callback URL, which is secret; None where it is too short to be one."""
    token = (callback_url or "").rpartition("/")[2]
    return token if len(token) >= 16 else None


def _says_bad_key(document: Mapping[str, Any] | None) -> bool:
    detail = document.get("detail") if document is not None else None
    return isinstance(detail, str) and _BAD_KEY in detail.lower()


def _places(document: Mapping[str, Any] | None) -> str:
    """Which fields a refusal names. Its prose may quote the prompt and stays in `provider_error`."""
    detail = document.get("detail") if document is not None else None
    named = []
    for entry in detail[:5] if isinstance(detail, list) else []:
        loc, kind = (entry.get("loc"), entry.get("type")) if isinstance(entry, dict) else (None, None)
        steps = [str(step) for step in loc[1:8]] if isinstance(loc, list) else []
        words = [*steps, kind] if isinstance(kind, str) else steps
        if words and all(len(word) <= 80 and word.replace("_", "a").isalnum() for word in words):
            named.append(f"{'.'.join(steps) or 'body'}: {kind}")
    return f": {', '.join(named)}" if named else ""
