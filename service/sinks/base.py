"""What every broker looks like to the flow that feeds it.

Rule 1: what a sink has confirmed is always the beginning of what it was given; nothing stands in the broker before
something older that is missing there.
Rule 2: no error of a sink repeats what a client library says: that may quote a URL with a password in it.

    SinkMissing             the client library is not installed
    SinkTrouble             the broker cannot be used now; `kind` says how
      └── TooLarge          it will never take the first message as it is
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

#: What the log says of a handshake that failed.
NO_TLS = "no TLS connection: it does not speak TLS, or its certificate is not trusted"


class Kind(StrEnum):
    """Why a broker cannot be used, for metrics and logs."""

    #: No connection, or it broke.
    UNREACHABLE = "unreachable"
    #: Connected, but it did not confirm in time.
    TIMEOUT = "timeout"
    #: It does not know us, or we may not do this there.
    DENIED = "denied"
    #: The stream or topic is not there and cannot be made by us.
    MISSING = "missing"
    #: It answered with an error.
    REFUSED = "refused"
    #: The stream holds what this installation has not written.
    FOREIGN = "foreign"
    #: It holds less or more than was confirmed to us: it lost something, or another process was quicker.
    MOVED = "moved"
    #: A defect, of ours or of a client library.
    DEFECT = "defect"


class SinkMissing(Exception):
    """A sink is set whose client library is not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"the client library of the {extra} sink is not installed")
        self.extra = extra


class SinkTrouble(Exception):
    """The broker cannot be used now. What was given to it last may be there or not."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class TooLarge(SinkTrouble):
    """The first message is larger than the broker takes; nothing of what was given is there."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(Kind.REFUSED, f"a message of {size_bytes} bytes is larger than it takes")
        self.size_bytes = size_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One event on its way; `body` is the event as the feed shows it."""

    seq: int
    #: The deduplication id.
    id: str
    tenant: str
    type: str
    job_id: str | None
    job_seq: int | None
    at_ms: int
    body: bytes
    #: Its `data` was left out, because the broker does not take messages as large.
    thinned: bool = False

    @property
    def key(self) -> str:
        """What keeps events in order that belong together: the job, or the tenant for an event without one."""
        return self.job_id or self.tenant

    def labels(self) -> dict[str, str]:
        """This function will give what stands beside the body, for readers that do not look into it."""
        labels = {"id": self.id, "seq": str(self.seq), "type": self.type, "tenant": self.tenant}
        if self.job_id is not None:
            labels["job_id"] = self.job_id
        if self.job_seq is not None:
            labels["job_seq"] = str(self.job_seq)
        if self.thinned:
            labels["thinned"] = "1"
        return labels


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest event that a broker holds or has held; `seq` 0: it never had one of ours."""

    seq: int
    #: None: the broker no longer has the message itself.
    event_id: str | None = None


class Sink(Protocol):
    """One broker and the stream in it. Used by one task at a time."""

    #: Names the kind and the stream: another stream is another sink, with a cursor of its own.
    name: str

    async def open(self) -> Tail | None:
        """This function will connect, and tell the newest event in the broker; None when it cannot tell.

        :raises SinkTrouble: if the broker cannot be used.
        """
        ...

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        """This function will write messages behind the event numbered `after` and wait for the confirmation.

        Returns how many of them, from the first on, are confirmed: at least one.

        :raises TooLarge: if the first message is larger than the broker takes.
        :raises SinkTrouble: if not even the first was confirmed.
        """
        ...

    async def close(self) -> None:
        """This function will end the connection, whatever state it is in; it raises nothing."""
        ...
