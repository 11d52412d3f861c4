"""What one fake provider brings: its routes, and how its callbacks look, true and false."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.routing import BaseRoute

from service.simulator.ledger import TakenRequest
from service.simulator.plan import SubmitFate


@dataclass(frozen=True, slots=True)
class Message:
    """One callback as it goes over the wire."""

    headers: dict[str, str]
    body: bytes


class Provider(ABC):
    """A fake provider. To add one: a folder with a subclass, and a line in `app.PROVIDERS`."""

    name: str
    #: waits before the second, third … delivery of a callback that was not answered 2xx
    retry_delays_ms: Sequence[int]
    #: limits for the first delivery and the repeated ones
    timeout_s: float
    retry_timeout_s: float
    #: a 3xx answer loses the callback for good
    redirect_is_final: bool

    @abstractmethod
    def routes(self) -> list[BaseRoute]:
        """Return the mounts of this provider, each under its own prefix."""

    @abstractmethod
    def refusal(self, fate: SubmitFate) -> Response:
        """Return the answer to a submit that fails in this way."""

    @abstractmethod
    def acceptance(self, request: TakenRequest) -> Response:
        """Return the answer to a submit that was taken."""

    @abstractmethod
    def callback(self, request: TakenRequest, *, now_ms: int) -> Message:
        """Return the true callback of an ended request; asked for anew at every delivery."""

    @abstractmethod
    def forgery(self, request: TakenRequest, *, now_ms: int) -> tuple[str, Message]:
        """Return a false callback for the same URL that claims another result, and its kind."""

    def progress(self, request: TakenRequest, *, now_ms: int) -> Message | None:
        """Return a callback that ends nothing and comes before the true one, if this provider sends such."""
        return None
