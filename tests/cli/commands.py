"""Commands run in the process of the test: on a fresh database, with what they say and leave there."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from service import wiring
from service.cli.main import run
from service.settings import Settings

SECRET_KEYS = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="  # 32 times A


def within(settings: Settings, act: Callable[[wiring.Service], Awaitable[Any]]) -> Any:
    """Do something with the service on the commands' database, as another process would."""

    async def opened() -> Any:
        async with wiring.running(settings, work=False) as service:
            return await act(service)

    return anyio.run(opened)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command in this process; give its output, or its one line when it failed."""
    capsys.readouterr()
    got = run(list(arguments))
    told = capsys.readouterr()
    assert got == code, told.err
    if code:
        (only,) = told.err.splitlines()
        assert only.startswith("fluxgate: ")
        return only
    return told.out
