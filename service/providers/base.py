"""What every provider is to the rest of the service: a small protocol, and the shapes that cross it.

Rule 1: an adapter does no input or output. What takes a request and its answer is a *talk*: a generator that
yields `Call`s, is sent a `Reply` or a `Trouble` for each, and returns what it concluded. `exchange.py` drives it.
Rule 2: the provider's words become our facts in one table; a word that is not in it is never success and
never final.
Rule 3: a request that carries our key goes only to the provider's own domains over https, or to the exact
origin of the configured URL. A URL from a reply that points elsewhere is not used; ours is built instead.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from service.domain.callback import Addressee, Judgement, Received
from service.domain.facts import CancelAnswered, Fact
from service.domain.failures import FieldError
from service.domain.schedule import Pace


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that we want made, with our key already in its headers."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A complete answer: lower-case header names, the raw body (at most 8 MiB)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stage(StrEnum):
    #: No connection was made (DNS, refused, TLS, no free connection in time): the request provably did not leave.
    NOT_SENT = "not_sent"
    #: It may have left: timeout, reset, an answer cut short or larger than allowed.
    MAYBE_SENT = "maybe_sent"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A request without a complete answer. `reason` is safe to show: it holds no URL and no secret."""

    stage: Stage
    reason: str


Answer = Reply | Trouble


@dataclass(frozen=True, kw_only=True)
class Order:
    """One attempt to be sent."""

    attempt_id: str
    model: str
    input: Mapping[str, Any]
    #: None: no public URL is set, so the provider gets none and polling alone finds the result.
    callback_url: str | None
    #: For providers that prove themselves by a shared secret (BFL's `webhook_secret`).
    secret: str
    priority: str
    now_ms: int
    deadline_ms: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A request that the provider took, to be asked about or canceled."""

    attempt_id: str
    model: str
    provider_request_id: str
    links: Mapping[str, str]
    #: Whether the job still waits for it (False: a late result after the end).
    open: bool
    now_ms: int


class Refusal(StrEnum):
    """Why a submit provably was not taken; each parks the job and does not burn the attempt."""

    UNREACHABLE = "provider_unavailable"
    AUTHENTICATION = "authentication"
    INSUFFICIENT_CREDIT = "insufficient_credit"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, kw_only=True)
class NotTaken:
    """The submit provably was not taken and may be repeated as it is."""

    refusal: Refusal
    message: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class MaybeTaken:
    """Nobody can tell whether the submit was taken: a 5xx, 408, a timeout or a reset after sending."""

    reason: str
    status: int | None = None


#: What a submit came to: facts (`SubmitAccepted`, for synchronous providers with the result after it; or
#: `ProviderFailed`/`ProviderBlocked` when it was refused for good), or one of the two others.
Submitted = tuple[Fact, ...] | NotTaken | MaybeTaken


@dataclass(frozen=True, kw_only=True)
class NoNews:
    """The question brought nothing that ends the request: ask again."""

    reason: str
    retry_after_ms: int | None = None
    #: What it did bring, if anything: `ProviderQueued`, `ProviderStarted`.
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A request in the provider's own listing that may be the lost one: equal input, sent in the window."""

    provider_request_id: str
    sent_ms: int


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is known of a submit whose fate is not: its input and the window in which it may have left."""

    attempt_id: str
    model: str
    input: Mapping[str, Any]
    from_ms: int
    until_ms: int


class KeysNeeded(StrEnum):
    """A callback cannot be judged without (newer) keys: fetch them, then judge again."""

    MISSING = "missing"
    UNKNOWN_KEY = "unknown_key"


class Provider(Protocol):
    """One provider. All methods are synchronous and without input or output; talks are driven by others.

    Facts come with `cause` set to `submit` (submit), `poll` (ask, find) or `""` (judge: the receive flow knows
    the callback's id and fills it in).
    """

    name: str
    pace: Pace
    #: Whether the service may be asked for keys (`fetch_keys`) before a callback is judged.
    has_keys: bool

    def validate(self, model: str, input: Mapping[str, Any]) -> list[FieldError]:
        """This function will check an input of a known model; unknown models and fields pass.

        Paths begin with `input.`. `webhook_url` and `webhook_secret` are ours and always refused.
        """
        ...

    def estimate_usd(self, model: str, input: Mapping[str, Any]) -> Decimal | None:
        """This function will say what a request probably costs, or None where no price is known."""
        ...

    def submit(self, order: Order) -> Generator[Call, Answer, Submitted]:
        """This function will send one attempt; it yields exactly one `Call`."""
        ...

    def ask(self, subject: Subject) -> Generator[Call, Answer, tuple[Fact, ...] | NoNews]:
        """This function will ask for the state and, where it ended, for the result."""
        ...

    def cancel(self, subject: Subject) -> Generator[Call, Answer, CancelAnswered | NoNews]:
        """This function will ask the provider to stop; `NoNews`: the wish did not get through, try again."""
        ...

    def find(self, search: Search) -> Generator[Call, Answer, tuple[Listed, ...]] | None:
        """This function will look for a lost request in the provider's listing; None where there is none."""
        ...

    def judge(self, callback: Received, addressee: Addressee) -> Judgement | KeysNeeded:
        """This function will judge a callback by its raw bytes; it raises nothing, whatever was sent."""
        ...

    def wants_keys(self, why: KeysNeeded | None, now_ms: int) -> bool:
        """This function will say whether a fetch of keys is due and allowed now (they are rate-limited)."""
        ...

    def fetch_keys(self, now_ms: int) -> Generator[Call, Answer, bool]:
        """This function will renew the keys; False when that failed and the old ones stay."""
        ...

    def may_download(self, url: str) -> bool:
        """This function will tell whether a result file may be fetched from this URL."""
        ...
