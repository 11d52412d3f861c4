"""What the tests of the way out share: a private authority, and clients that trust it and are closed at the end."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.domain.addresses import Network
from service.egress import Egress
from tests.egress.servers import ALLOWED, Authority, Names

MakeEgress = Callable[..., Egress]


@pytest.fixture(scope="session", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each test on both loops: the service runs on uvloop, whose transports are others."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def egress_with(authority: Authority) -> AsyncIterator[MakeEgress]:
    """Make clients by their resolver; the operator allows 127.0.0.1 alone, which stands for the public net."""
    async with AsyncExitStack() as stack:

        def make(names: Names | None = None, *, allowed: Sequence[Network] = ALLOWED) -> Egress:
            egress = Egress(allowed, tls=authority.trusting(), resolve=names)
            stack.push_async_callback(egress.aclose)
            return egress

        yield make
