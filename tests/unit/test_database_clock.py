"""The database's clock as a process knows it: near the truth, however slow the answers and whatever ours does."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.flows.database_clock import DatabaseClock

AHEAD_MS = 7_000


class World:
    """Our clock, and a database whose clock is ahead of it and whose answers take their time."""

    def __init__(self, *takes_ms: int) -> None:
        self.ours_ms = 1_795_000_000_000
        self.theirs_ms = self.ours_ms + AHEAD_MS
        self.asked = 0
        self._takes_ms = list(takes_ms)
        runtime: Any = SimpleNamespace(now_ms=lambda: self.ours_ms, door=SimpleNamespace(read=self._read))
        self.clock = DatabaseClock(runtime)

    def go(self, milliseconds: int) -> None:
        self.ours_ms += milliseconds
        self.theirs_ms += milliseconds

    async def _read(self, _: object) -> int:
        self.asked += 1
        takes_ms = self._takes_ms.pop(0) if self._takes_ms else 0
        self.go(takes_ms // 2)
        told_ms = self.theirs_ms
        self.go(takes_ms - takes_ms // 2)
        return told_ms

    @property
    def wrong_ms(self) -> int:
        """How much too late it is; never too early, or what is due would not be found."""
        return self.clock.now_ms() - self.theirs_ms


async def test_a_first_answer_that_is_slow_does_not_make_it_wrong() -> None:
    world = World(120, 2)
    await world.clock.ask()
    assert 0 <= world.wrong_ms <= 2


async def test_it_asks_a_few_times_at_most_and_then_not_for_a_while() -> None:
    world = World(90, 60, 80, 70, 50)
    for _ in range(3):
        await world.clock.ask()
        world.go(1_000)
    assert world.asked == 3
    assert 0 <= world.wrong_ms <= 60
    world.go(5_000)
    await world.clock.ask()
    assert world.asked > 3


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
async def test_a_jump_of_ours_is_noticed(jump_ms: int) -> None:
    world = World()
    await world.clock.ask()
    world.ours_ms += jump_ms
    await world.clock.ask()
    assert world.wrong_ms == 0
