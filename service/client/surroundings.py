"""The client's clock, chance and sleep: it runs in other people's programs, where no composition root of ours does.

Rule: nothing else in the client asks for a time or for chance; a test brings its own.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


def _clock_s() -> float:
    return time.time()  # noqa: TID251 - see the module's docstring


def _elapsed_s() -> float:
    return time.monotonic()


def _chance() -> float:
    return secrets.randbelow(1_000_000) / 1_000_000


def _make_key() -> str:
    return f"client-{secrets.token_hex(16)}"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the client takes from the machine that it runs on."""

    #: Seconds since the epoch.
    clock_s: Callable[[], float] = _clock_s
    #: Seconds since some moment; never goes back.
    elapsed_s: Callable[[], float] = _elapsed_s
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    #: From 0 up to, not including, 1.
    chance: Callable[[], float] = _chance
    #: A new idempotency key.
    make_key: Callable[[], str] = _make_key
