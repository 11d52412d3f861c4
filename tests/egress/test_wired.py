"""The running service has the client, with what the operator allows, and leaves no connection behind."""

from pathlib import Path

import pytest

from service import wiring
from service.egress import UrlRefused
from tests.egress.servers import PUBLIC, Authority, answer, saying, serving
from tests.paths.visitors import settings


async def test_the_operators_networks_are_those_of_the_client_and_its_connections_end_with_the_service(
    sqlite_url: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "tls_context", authority.trusting)
    allow = {"FLUXGATE_EGRESS_ALLOW": f"10.0.0.0/8,{PUBLIC}/32"}
    async with (
        serving(saying(answer())) as plain,
        serving(saying(answer()), tls=authority.serving(PUBLIC)) as secure,
    ):
        async with wiring.running(settings(sqlite_url, tmp_path, **allow), work=False) as service:
            egress = service.runtime.egress
            await egress.check("http://10.1.2.3/hook")
            with pytest.raises(UrlRefused):
                await egress.check("http://127.0.0.2/hook")
            for url in (f"http://{PUBLIC}:{plain.port}/", f"https://{PUBLIC}:{secure.port}/"):
                came = await egress.post(url, headers={}, body=b"{}", timeout_s=5, max_answer_bytes=100)
                assert came.status == 200
            assert len(egress._open) == 2
        assert egress._open == set()


async def test_without_the_setting_nothing_private_may_be_called(
    sqlite_url: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "tls_context", authority.trusting)
    async with wiring.running(settings(sqlite_url, tmp_path), work=False) as service:
        for url in ("http://127.0.0.1/", "https://127.0.0.1/", "https://[::1]/", "http://8.8.8.8/"):
            with pytest.raises(UrlRefused):
                await service.runtime.egress.check(url)
        await service.runtime.egress.check("https://8.8.8.8/")
