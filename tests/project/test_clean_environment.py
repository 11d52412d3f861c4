"""No test sees the shell of whoever runs it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHELL = {
    "FLUXGATE_PUBLIC_URL": "https://real.example",
    "FAL_KEY": "real",
    "HTTPS_PROXY": "http://proxy.example",
}


@pytest.fixture(scope="module", autouse=True)
def shell_of_a_developer() -> Iterator[None]:
    """Set variables before the cleaning fixture of each test runs, as a shell would."""
    before = {name: os.environ.get(name) for name in SHELL}
    os.environ.update(SHELL)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.mark.parametrize("name", SHELL)
def test_a_variable_of_the_shell_does_not_reach_a_test(name: str) -> None:
    assert name not in os.environ


def test_a_test_starts_in_an_empty_folder_of_its_own(tmp_path: Path) -> None:
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
