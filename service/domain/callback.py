"""What a provider sent us, and how it was judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.domain.facts import Fact


class Verdict(StrEnum):
    #: The signature or secret proves the sender, and it belongs to this attempt.
    VERIFIED = "verified"
    #: Without proof, from a provider that need not sign, or whose secret we no longer have: a hint to ask.
    UNAUTHENTICATED = "unauthenticated"
    FORGED = "forged"
    #: Genuine, but its timestamp is out of tolerance: a hint to ask.
    STALE = "stale"
    #: Genuine, but of another request or another account.
    MISMATCHED = "mismatched"
    MALFORMED = "malformed"
    #: Cannot be judged now (no keys to be had); kept, and the sender is told to come again.
    UNJUDGED = "unjudged"
    #: Verified, and a verified one of this attempt with the same message was there before.
    DUPLICATE = "duplicate"


#: The HTTP status the sender gets for each verdict (contract, section 5).
STATUS: Mapping[Verdict, int] = {
    Verdict.VERIFIED: 200,
    Verdict.DUPLICATE: 200,
    Verdict.UNAUTHENTICATED: 200,
    Verdict.FORGED: 401,
    Verdict.STALE: 401,
    Verdict.MISMATCHED: 401,
    Verdict.MALFORMED: 400,
    Verdict.UNJUDGED: 503,
}

#: Verdicts after which the job is asked for (at most once in 30 s for each attempt).
ASK_AFTER = frozenset(
    (
        Verdict.UNAUTHENTICATED,
        Verdict.FORGED,
        Verdict.STALE,
        Verdict.MISMATCHED,
        Verdict.MALFORMED,
        Verdict.UNJUDGED,
    )
)


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request to a callback URL, as it came: lower-case header names, the raw body."""

    headers: Mapping[str, str]
    body: bytes
    received_ms: int


@dataclass(frozen=True, kw_only=True)
class Addressee:
    """The attempt that the URL's token names, as far as judging needs it."""

    attempt_id: str
    model: str
    #: What the provider called the request in its answer to our submit; None while that is not recorded.
    provider_request_id: str | None
    #: The secret given to the provider for this attempt; None when the key it is derived from is gone.
    secret: str | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a callback is worth.

    Only `verified` ones carry facts. `message_key` names what the callback says (the provider's id and its
    terminal state): a second verified one with the same key is a duplicate; None for what is not terminal.
    """

    verdict: Verdict
    reason: str
    facts: tuple[Fact, ...] = ()
    message_key: str | None = None
    #: Ask the provider now, with our key (missing payload, missing reasons, unknown request id).
    ask: bool = False
    #: The id a genuine callback claims for an attempt whose id is not recorded yet: asked for, never believed.
    candidate_request_id: str | None = None
    #: Which public key verified it.
    key_id: str | None = None
