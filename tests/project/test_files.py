"""What may stand in the files of the repository."""

import re

import pytest

from tests.project.repository import ROOT, files

# Folders of one machine, and hosts that packages come from: neither exists elsewhere. Written so that this file,
# which is read like any other, does not name them.
MACHINE_PATH = re.compile(r"(?<![\w.})])/(?:work|root|home|Users|workspace|mnt)/")
REGISTRY_HOST = re.compile(r"pypi\.org|python\w*hosted|registry\.npm\w+|deb\.deb\w+\.org")


def texts() -> dict[str, str]:
    """Read every file that is text; a picture or another binary has nothing to say here."""
    found = {}
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data:
            found[path.relative_to(ROOT).as_posix()] = data.decode("utf-8", errors="replace")
    return found


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine paths", "registry hosts"])
def test_no_file_names_what_exists_only_here(pattern: re.Pattern[str]) -> None:
    read = texts()
    assert {"Makefile", "pyproject.toml", "requirements.txt", "tests/project/test_files.py"} <= set(read)
    found = [
        f"{name}:{number}"
        for name, text in read.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_a_machine_path_is_seen(folder: str) -> None:
    assert MACHINE_PATH.search(f"cd /{folder}/somebody/checkout")
    assert not MACHINE_PATH.search(f"service/{folder}/claim.py")


def test_a_registry_host_is_seen() -> None:
    assert REGISTRY_HOST.search("https://" + ".".join(["pypi", "org"]) + "/simple")
