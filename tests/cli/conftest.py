"""The settings of commands that run in the process of the test."""

import pytest

from service.settings import Settings
from tests.cli.commands import SECRET_KEYS


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Point the commands, which run in this process, to a fresh database of either kind."""
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLUXGATE_SECRET_KEYS", SECRET_KEYS)
    monkeypatch.setenv("FAL_KEY", "test")
    return Settings.load()
