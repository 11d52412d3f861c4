"""The newest events in memory, without a hole, bounded in number and in bytes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from service.storage.events import Event


@dataclass(frozen=True, slots=True)
class Size:
    """How much a ring may hold: events, and bytes of their data."""

    events: int = 4_096
    bytes: int = 16 * 1024 * 1024


class Ring:
    """Every event after `low`, up to `head`."""

    def __init__(self, size: Size) -> None:
        self.low = 0
        self.head = 0
        self._size = size
        self._events: list[Event] = []
        self._seqs: list[int] = []
        self._bytes = 0

    def begin(self, seq: int) -> None:
        """This function will forget everything and begin behind a number."""
        self.low = self.head = seq
        self._events, self._seqs, self._bytes = [], [], 0

    def since(self, position: int) -> Sequence[Event]:
        """This function will give what is held after a position."""
        return self._events[bisect_right(self._seqs, position) :] if position < self.head else ()

    def keep(self, news: Sequence[Event]) -> None:
        """This function will take in the next events and let go of the oldest, should they be too many."""
        self._events += news
        self._seqs += [event.seq for event in news]
        self._bytes += sum(len(event.data) for event in news)
        self.head = self._seqs[-1]
        too_many = 0
        while len(self._events) - too_many > self._size.events or self._bytes > self._size.bytes:
            self._bytes -= len(self._events[too_many].data)
            too_many += 1
        if too_many:
            self.low = self._seqs[too_many - 1]
            del self._events[:too_many], self._seqs[:too_many]
