"""What a callback of fal is worth, judged by its raw bytes.

Rule 1: a valid signature proves that fal sent it, not that it is ours: the account (where pinned), the signed
request id and the one we stored must all fit.
Rule 2: a callback concludes exactly what a poll would; where it leaves anything open it only makes us ask.
Source: https://docs.fal.ai/model-apis/model-endpoints/webhooks (read 2026-11-20).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.domain.callback import Addressee, Judgement, Received, Verdict
from service.domain.facts import Fact
from service.providers.base import KeysNeeded
from service.providers.fal import signature
from service.providers.fal.account import Account
from service.providers.fal.errors import TIMEOUTS, Failure, code_in, verdict
from service.providers.fal.jwks import KeyCache
from service.providers.fal.reading import text_member
from service.providers.fal.result import conclude
from service.providers.fal.signature import Signed
from service.providers.fal.urls import readable_id
from service.providers.reading import object_in

#: The receive flow knows the callback's id and puts the cause in.
_NO_CAUSE = ""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges callbacks with what the adapter has: the account, its keys, and the user they must come from."""

    account: Account
    keys: KeyCache
    user_id: str | None

    def judge(self, callback: Received, addressee: Addressee) -> Judgement | KeysNeeded:
        """This function will judge one callback; see `Provider.judge`."""
        signed = signature.read(callback.headers)
        if isinstance(signed, str):
            return _refused(Verdict.MALFORMED, signed)
        keys = self.keys.usable(callback.received_ms)
        if not keys:
            return KeysNeeded.MISSING
        key = signature.fitting_key(signed, callback.body, keys)
        if key is None:
            if self.keys.may_be_outdated(callback.received_ms):
                return KeysNeeded.UNKNOWN_KEY
            return _refused(Verdict.FORGED, "no key of fal verifies the signature")
        if signature.is_stale(signed, callback.received_ms):
            judgement = _refused(Verdict.STALE, "the signed time is more than 300 s from ours")
        else:
            judgement = self._genuine(signed, object_in(callback.body), addressee)
        return replace(judgement, key_id=key.id)

    def _genuine(self, signed: Signed, document: dict[str, Any] | None, addressee: Addressee) -> Judgement:
        """The sender is proved; whether it is ours, and what it says."""
        if self.user_id is not None and signed.user_id != self.user_id:
            return _refused(Verdict.MISMATCHED, "it comes from another account")
        request_id = readable_id(document.get("request_id")) if document is not None else None
        if document is None or request_id is None:
            return _refused(Verdict.MALFORMED, "the body is not what fal sends")
        if signed.request_id not in (request_id, document.get("gateway_request_id")):
            return _refused(Verdict.MISMATCHED, "the signed request id is not the body's")
        stored = addressee.provider_request_id
        if stored is not None and request_id != stored:
            return _refused(Verdict.MISMATCHED, "it is about another request")
        if document.get("status") not in ("OK", "ERROR"):
            return _refused(Verdict.MALFORMED, "the body's status is none that fal sends")
        if stored is None:
            return Judgement(
                verdict=Verdict.VERIFIED,
                reason="the request id is not recorded yet: fal is asked about the one claimed",
                ask=True,
                candidate_request_id=request_id,
            )
        return self._said(document, request_id, addressee)

    def _said(self, document: Mapping[str, Any], request_id: str, addressee: Addressee) -> Judgement:
        said = f"{request_id}:{document['status']}"
        fact = self._fact(document, addressee)
        if fact is None:
            # A key of its own: the same callback with its payload must not pass for a repeat of this one.
            return Judgement(
                verdict=Verdict.VERIFIED,
                reason="it leaves the outcome open: fal is asked",
                message_key=f"{said}:open",
                ask=True,
            )
        return Judgement(verdict=Verdict.VERIFIED, reason="verified", facts=(fact,), message_key=said)

    def _fact(self, document: Mapping[str, Any], addressee: Addressee) -> Fact | None:
        """The outcome, or None where only fal's queue can tell it.

        Payload null or `payload_error` say nothing of the outcome, not even with ERROR
        (https://github.com/fal-ai/fal-js/issues/153, read 2026-11-20: the job had worked).
        """
        payload = document.get("payload")
        if payload is None or document.get("payload_error") is not None:
            return None
        if document["status"] == "OK":
            return conclude(
                payload,
                model=addressee.model,
                attempt_id=addressee.attempt_id,
                cause=_NO_CAUSE,
                quote=self.account.quote,
            )
        failure = _failure(document, payload)
        if not _is_conclusive(failure):
            return None
        return verdict(failure, attempt_id=addressee.attempt_id, cause=_NO_CAUSE, quote=self.account.quote)


def _failure(document: Mapping[str, Any], payload: Any) -> Failure:
    error = text_member(document, "error")
    return Failure(
        status=code_in(error), body=payload, error=error, error_type=text_member(document, "error_type")
    )


def _is_conclusive(failure: Failure) -> bool:
    """Whether the callback alone tells the failure. Only the result's header tells our start deadline from fal's."""
    if failure.blocked:
        return True
    if TIMEOUTS.intersection(failure.words) or (failure.status == 504 and failure.meaning is None):
        return False
    if failure.status is None:
        return failure.meaning is not None
    return 400 <= failure.status < 600


def _refused(verdict: Verdict, reason: str) -> Judgement:
    return Judgement(verdict=verdict, reason=reason)
