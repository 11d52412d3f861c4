"""What the tests about the repository read: its files, and its modules as syntax trees."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Module:
    """One Python file: its path in the repository, with slashes, and its syntax tree."""

    path: str
    tree: ast.Module


def module(path: str, source: str) -> Module:
    return Module(path=path, tree=ast.parse(source))


@cache
def modules(folder: str) -> tuple[Module, ...]:
    """Read every Python file below a folder of the repository; that there is none is an error."""
    found = tuple(
        module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    assert found, f"no Python file below {folder}"
    return found


@cache
def files() -> tuple[Path, ...]:
    """List the files that are tracked or would be: everything that .gitignore does not name."""
    # A checkout may belong to another user than the one who tests it, which git refuses by default.
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = tuple(ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file())
    assert ROOT / "pyproject.toml" in found
    return found
