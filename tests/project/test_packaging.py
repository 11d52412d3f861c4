"""The locked requirements, the wheel, and the commands of the Makefile and Procfile."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.project.repository import ROOT

LOCKS = ["requirements.txt", "requirements-dev.txt", "requirements-setup.txt"]
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;]+)")


def project() -> dict[str, list[str]]:
    """Give the requirements that each lock stands for."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = table["project"]["dependencies"]
    groups = table["dependency-groups"]
    return {
        "requirements.txt": runtime,
        "requirements-dev.txt": runtime + groups["dev"],
        "requirements-setup.txt": groups["setup"],
    }


def pins(lock: str) -> dict[str, Version]:
    found = {}
    for line in (ROOT / lock).read_text().splitlines():
        if pin := PINNED.match(line):
            found[canonicalize_name(pin["name"])] = Version(pin["version"])
    assert found, f"{lock} pins nothing"
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host(lock: str) -> None:
    assert re.findall(r"https?:|--(?:extra-)?index|--find-links|git\+", (ROOT / lock).read_text()) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_pinned_and_carries_a_hash(lock: str) -> None:
    text = re.sub(r"#.*", "", (ROOT / lock).read_text()).replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip()]
    assert len(entries) == len(pins(lock))
    assert [entry for entry in entries if not PINNED.match(entry) or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_fits_what_pyproject_asks_for(lock: str) -> None:
    locked = pins(lock)
    for text in project()[lock]:
        wanted = Requirement(text)
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier, text


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_has_a_lower_bound(lock: str) -> None:
    wanted = [Requirement(text) for text in project()[lock]]
    assert [one.name for one in wanted if not any(part.operator == ">=" for part in one.specifier)] == []


def test_the_locks_agree_where_they_overlap() -> None:
    dev = pins("requirements-dev.txt")
    assert {name: version for name, version in pins("requirements.txt").items() if dev[name] != version} == {}
    shared = {name: version for name, version in pins("requirements-setup.txt").items() if name in dev}
    assert {name: version for name, version in shared.items() if dev[name] != version} == {}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_migrations_and_the_command(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("service", "service"), ("migrations", "service/_migrations")):
        here = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")]
        assert here
        assert {f"{inside}/{path.as_posix()}" for path in here} <= names
    assert "service/_migrations/env.py" in names
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert "fluxgate = service.cli.main:main" in zipfile.ZipFile(wheel).read(entry_points).decode()
    assert [name for name in names if name.startswith(("tests/", "bench/", "migrations/"))] == []


@pytest.mark.slow
def test_an_installed_wheel_migrates_a_database_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    database = tmp_path / "fresh.db"
    run = (
        "import service, sys; from service.storage.migrate import upgrade; "
        f"upgrade('sqlite:///{database}'); print(service.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", run], env={"PYTHONPATH": str(site)}, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip().startswith(str(site))
    assert database.stat().st_size > 0


def test_the_makefile_has_the_targets_that_the_documents_name() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"setup", "demo", "test", "lint", "bench"} <= targets


def test_the_procfile_releases_serves_and_works() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    processes = dict(line.split(": ", 1) for line in lines)
    assert set(processes) == {"release", "web", "worker"}
    assert all(command.startswith("fluxgate ") for command in processes.values())
    assert "--no-work" in processes["web"].split()
