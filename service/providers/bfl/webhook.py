"""Judging BFL's callbacks.

Official sources contradict each other on how a callback proves itself: the docs say that the secret comes back in
X-Webhook-Secret (https://docs.bfl.ml/flux_2/flux2_image_editing.md), BFL's skill repository that X-BFL-Signature
holds an HMAC of the raw body (https://github.com/black-forest-labs/skills, webhook-integration.md; both read
2026-11-20). One proof suffices: who knows the secret could also compute the HMAC.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from service.domain.callback import Addressee, Judgement, Received, Verdict
from service.domain.facts import Fact, SubmitAccepted
from service.providers import reading
from service.providers.bfl import outcomes
from service.providers.bfl.outcomes import Quote, Word
from service.providers.bfl.urls import Urls, readable_id

_SECRET_HEADER = "x-webhook-secret"  # noqa: S105  the header's name
_SIGNATURE_HEADER = "x-bfl-signature"
#: The receive flow knows the callback's id and fills it in.
_CAUSE = ""


def judge(callback: Received, addressee: Addressee, *, urls: Urls, quote: Quote) -> Judgement:
    """This function will judge a callback by its raw bytes; nothing of a body without proof is used."""
    proofs = {name: callback.headers.get(name, "") for name in (_SECRET_HEADER, _SIGNATURE_HEADER)}
    if not any(value.strip() for value in proofs.values()):
        return _asked(Verdict.UNAUTHENTICATED, "it carries neither X-Webhook-Secret nor X-BFL-Signature")
    if not addressee.secret:
        return _asked(Verdict.UNAUTHENTICATED, "the secret of this attempt is no longer known")
    if not _proves(proofs, addressee.secret, callback.body):
        return Judgement(verdict=Verdict.FORGED, reason="its secret or signature is not that of this attempt")
    document = reading.object_in(callback.body)
    if document is None:
        return _asked(Verdict.MALFORMED, "the body is not a JSON object")
    task_id = readable_id(document.get("task_id")) or readable_id(document.get("id"))
    if task_id is None:
        return _asked(Verdict.MALFORMED, "the body names no task")
    if addressee.provider_request_id not in (None, task_id):
        return _asked(Verdict.MISMATCHED, "it is about another task")
    return _believed(document, task_id, addressee, urls, quote)


def _asked(verdict: Verdict, reason: str) -> Judgement:
    return Judgement(verdict=verdict, reason=reason, ask=True)


def _proves(proofs: Mapping[str, str], secret: str, body: bytes) -> bool:
    """Compare bytes: text with other than ASCII letters would make the comparison raise."""
    key = secret.encode()
    signature = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    plain = hmac.compare_digest(proofs[_SECRET_HEADER].encode("utf-8", "surrogatepass"), key)
    signed = hmac.compare_digest(
        proofs[_SIGNATURE_HEADER].encode("utf-8", "surrogatepass"), signature.encode()
    )
    return plain or signed


def _believed(
    document: Mapping[str, Any], task_id: str, addressee: Addressee, urls: Urls, quote: Quote
) -> Judgement:
    """A task's id comes first where our own submit has not told it yet; what is no end changes nothing else.

    A failed or moderated task ends here even if it does not say why: the poll that could tell more may fail until
    the deadline, and an end that BFL proved must not become `expired`. It is asked for once more all the same,
    for its cost.
    """
    word = outcomes.word_in(document)
    facts: tuple[Fact, ...] = ()
    if addressee.provider_request_id is None:
        facts = (SubmitAccepted(cause=_CAUSE, attempt_id=addressee.attempt_id, provider_request_id=task_id),)
    verdict = _verdict(document, word, addressee.attempt_id, urls, quote)
    if verdict is not None:
        return Judgement(
            verdict=Verdict.VERIFIED,
            reason=f"BFL says {word.value}",
            facts=(*facts, verdict),
            message_key=f"{task_id}:{word.value}",
            ask=word is not Word.READY and not outcomes.explains_itself(document),
        )
    incomplete = word is Word.READY
    return Judgement(
        verdict=Verdict.VERIFIED,
        reason="BFL says ready without a result that may be fetched" if incomplete else "it is no end",
        facts=facts,
        ask=incomplete,
    )


def _verdict(
    document: Mapping[str, Any], word: Word, attempt_id: str, urls: Urls, quote: Quote
) -> outcomes.Verdict | None:
    match word:
        case Word.READY:
            sample = outcomes.sample_in(document)
            if sample is None or not urls.may_download(sample):
                return None
            return outcomes.succeeded(document, sample=sample, attempt_id=attempt_id, cause=_CAUSE)
        case Word.FAILED:
            return outcomes.failed(document, attempt_id=attempt_id, cause=_CAUSE, quote=quote)
        case Word.REQUEST_MODERATED | Word.CONTENT_MODERATED:
            return outcomes.blocked(document, word, attempt_id=attempt_id, cause=_CAUSE, quote=quote)
    return None
