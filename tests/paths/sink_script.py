"""A broker in memory that does what a test tells it: fails before or after it took something, forgets, is too small."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.sinks.base import Kind, Message, SinkTrouble, Tail, TooLarge


@dataclass
class Memory:
    """What a broker has, whoever publishes to it."""

    #: Whether it can tell its end, as NATS and Redis can and Kafka cannot.
    tells: bool = True
    held: list[Message] = field(default_factory=list)
    #: The next calls fail so, each once.
    refusals: list[Kind] = field(default_factory=list)
    #: The next set is taken, and the answer is lost.
    answer_lost: bool = False
    most_at_once: int = 1_000
    most_bytes: int = 1_000_000
    calls: list[str] = field(default_factory=list)

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.held]


class ScriptedSink:
    """One process's connection to the broker in memory."""

    def __init__(self, memory: Memory, name: str = "memory:test") -> None:
        self.name = name
        self._memory = memory
        self._open = False
        self.closed = 0

    async def open(self) -> Tail | None:
        self._refuse("open")
        self._open = True
        if not self._memory.tells:
            return None
        held = self._memory.held
        return Tail(held[-1].seq, held[-1].id) if held else Tail(0)

    async def publish(self, messages: Sequence[Message], *, after: int) -> int:
        assert self._open, "publish comes after open"
        assert [one.seq for one in messages] == sorted({one.seq for one in messages})
        assert after < messages[0].seq
        self._refuse("publish")
        memory = self._memory
        if memory.tells and (memory.seqs[-1] if memory.held else 0) != after:
            raise SinkTrouble(Kind.MOVED, "it ends elsewhere")
        taken = list(messages[: memory.most_at_once])
        for place, message in enumerate(taken):
            if len(message.body) > memory.most_bytes:
                if place == 0:
                    raise TooLarge(len(message.body))
                taken = taken[:place]
                break
        memory.held += taken
        if memory.answer_lost:
            memory.answer_lost = False
            raise SinkTrouble(Kind.TIMEOUT, "no confirmation in time")
        return len(taken)

    async def close(self) -> None:
        self._open = False
        self.closed += 1

    def _refuse(self, call: str) -> None:
        self._memory.calls.append(call)
        if self._memory.refusals:
            raise SinkTrouble(self._memory.refusals.pop(0), "as the script says")
