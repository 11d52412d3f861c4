"""What every flow needs, made once by the composition root; clock, ids, chance and sleep are arguments here."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from service.domain.ids import MakeId
from service.domain.secrets import KeyRing
from service.egress import Egress
from service.flows.bell import Bell
from service.flows.measures import Measures
from service.providers.base import Provider
from service.storage.door import Door
from service.storage.files import Files

if TYPE_CHECKING:
    from service.flows.learn import Learned


class Talks(Protocol):
    """Drives the talks of one provider over HTTP."""

    async def run(self, talk: Any) -> Any:
        """This function will make the calls that a talk yields and return what it concludes."""
        ...


class Downloads(Protocol):
    """Fetches result files, without any key of ours."""

    async def download(
        self, url: str, *, sink: Callable[[bytes], Awaitable[None]], max_bytes: int, timeout_s: float
    ) -> Any:
        """This function will give a file to `sink`, piece by piece, and tell how that ended."""
        ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Waiting times that the operator may set, in milliseconds."""

    lease_ms: int = 15_000
    uncertain_ms: int = 120_000
    #: None: learned from past durations.
    poll_after_ms: int | None = None
    #: How long events and finished deliveries are kept.
    keep_events_ms: int = 30 * 86_400_000
    keep_deliveries_ms: int = 30 * 86_400_000


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The hands and senses of the flows."""

    door: Door
    #: Milliseconds since the epoch.
    now_ms: Callable[[], int]
    make_id: MakeId
    #: A number in [0, 1), for jitter.
    chance: Callable[[], float]
    #: 16 random bytes in hex, for the commitments of history lines.
    salt: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]]
    keys: KeyRing
    providers: Mapping[str, Provider]
    talks: Mapping[str, Talks]
    downloads: Downloads
    #: The only way to URLs that users gave.
    egress: Egress
    files: Files
    bell: Bell
    measures: Measures
    #: This process, in claims.
    process_id: str
    learned: "Learned"
    timing: Timing = field(default_factory=Timing)
    #: Base of the callback URLs; None: no provider gets one and polling finds every result.
    public_url: str | None = None

    def callback_url(self, provider: str, key_id: str, attempt_id: str) -> str | None:
        """This function will make the URL that a provider gets for an attempt; None without a public URL."""
        token = self.keys.token(key_id, attempt_id)
        if self.public_url is None or token is None:
            return None
        return f"{self.public_url}/callbacks/{provider}/{token}"
