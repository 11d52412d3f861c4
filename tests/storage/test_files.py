"""Result files on the local disk: whole and durable, or not there at all."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.storage.files import Files, Incoming, NoSpace, path_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def open_handles() -> set[Path]:
    """Give what this process has open in the files of a test; other threads may open what they like."""
    handles = Path("/proc/self/fd")
    found = set()
    for handle in handles.iterdir():
        with suppress(OSError):
            found.add(handle.readlink())
    return {path for path in found if "artifacts" in path.parts}


def all_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def arriving(root: Path, *chunks: bytes) -> Incoming:
    incoming = Files(root).incoming()
    for chunk in chunks:
        incoming.write(chunk)
    return incoming


def test_a_kept_file_is_found_under_its_digest(root: Path) -> None:
    incoming = arriving(root, b"first ", b"", b"second")
    assert Files(root).open(hashlib.sha256(b"first second").hexdigest()) is None, "not before it is whole"
    digest = incoming.keep()
    assert digest == hashlib.sha256(b"first second").hexdigest()
    assert (incoming.size_bytes, incoming.head) == (12, b"first second")
    place = Files(root).open(digest)
    assert place == path_of(root, digest)
    assert place is not None
    assert place.read_bytes() == b"first second"
    assert all_files(root) == [place], "nothing is left behind"


def test_the_same_content_is_kept_once(root: Path) -> None:
    digests = {arriving(root, b"same").keep() for _ in range(3)}
    assert len(digests) == len(all_files(root)) == 1


def test_a_large_file_shows_only_its_head(root: Path) -> None:
    incoming = arriving(root, *[bytes([number]) * 50_000 for number in range(20)])
    assert (len(incoming.head), incoming.size_bytes) == (64, 1_000_000)
    place = Files(root).open(incoming.keep())
    assert place is not None
    assert place.stat().st_size == 1_000_000


def test_what_is_discarded_leaves_nothing(root: Path) -> None:
    incoming = arriving(root, b"half of it")
    incoming.discard()
    incoming.discard()
    assert all_files(root) == []


def test_discarding_a_kept_file_keeps_it(root: Path) -> None:
    incoming = arriving(root, b"whole")
    digest = incoming.keep()
    incoming.discard()
    assert Files(root).open(digest) is not None


def test_a_file_is_durable_before_it_has_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First its bytes, then its name, then the folders that hold the name: a crash shows all of it or nothing."""
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def told_sync(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().relative_to(root).parts[:1]}")
        sync(handle)

    def told_replace(path: Path, target: Path) -> Path:
        done.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", told_sync)
    monkeypatch.setattr(Path, "replace", told_replace)
    digest = arriving(root, b"x").keep()
    first = digest[:2]
    assert done == ["sync ('incoming',)", "name", f"sync ('{first}',)", f"sync ('{first}',)", "sync ()"]


def test_a_folder_that_cannot_be_written_is_no_space(root: Path) -> None:
    root.write_text("a file where the folder should be")
    with pytest.raises(NoSpace):
        Files(root).incoming()
    root.unlink()
    assert arriving(root, b"now").keep()


def test_a_place_that_cannot_be_made_is_no_space_and_leaves_nothing(root: Path) -> None:
    incoming = arriving(root, b"x")
    blocked = root / hashlib.sha256(b"x").hexdigest()[:2]
    blocked.write_text("in the way")
    with pytest.raises(NoSpace):
        incoming.keep()
    incoming.discard()
    assert all_files(root) == [blocked]


def test_a_full_disk_is_no_space_and_leaves_nothing(root: Path) -> None:
    """In a process of its own, whose files may not grow beyond 4 KB."""
    program = """
import resource, sys
from pathlib import Path
from service.storage.files import Files, NoSpace
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for small in (True, False):
    incoming = Files(Path(sys.argv[1])).incoming()
    try:
        incoming.write(b"x" * (6_000 if small else 60_000))
        incoming.keep()
    except NoSpace as error:
        print("no space", error.args[0])
    incoming.discard()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["no space File too large"] * 2
    assert all_files(root) == []


def test_a_sweep_takes_only_old_leftovers(root: Path) -> None:
    files = Files(root)
    assert files.sweep(now_s=0, older_than_s=0, log=print) == 0, "also before anything arrived"
    kept = arriving(root, b"kept").keep()
    old, young = arriving(root, b"old"), arriving(root, b"young")
    now_s = time.time()
    for incoming, age_s in ((old, 7_200), (young, 60)):
        os.utime(incoming._path, (now_s - age_s, now_s - age_s))
    os.utime(path_of(root, kept), (1, 1))
    told: list[str] = []
    assert files.sweep(now_s=now_s, older_than_s=3_600, log=told.append) == 1
    assert told == []
    assert all_files(root) == sorted([young._path, path_of(root, kept)])
    assert young.keep() == hashlib.sha256(b"young").hexdigest()
    old.discard()


def test_what_cannot_be_swept_is_told_and_passed_over(root: Path) -> None:
    arriving(root, b"x").discard()
    (root / "incoming" / "a folder").mkdir()
    old = arriving(root, b"old")
    told: list[str] = []
    assert Files(root).sweep(now_s=time.time() + 9_000, older_than_s=1, log=told.append) == 1
    assert len(told) == 1
    assert told[0].startswith("a folder: ")
    old.discard()


@pytest.fixture(autouse=True)
def no_handle_is_left_open() -> Iterator[None]:
    yield
    assert open_handles() == set()
