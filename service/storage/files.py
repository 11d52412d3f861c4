"""Result files on a local disk: durable before they are named, named by what they hold."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class NoSpace(Exception):
    """The disk is full or cannot be written; the file may be fetched again later."""


class Incoming:
    """A file while it arrives: a temporary file beside its later place, hashed as it is written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        incoming = root / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=incoming)
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.head = b""

    def write(self, chunk: bytes) -> None:
        """This function will take the next piece.

        :raises NoSpace: if it cannot be written.
        """
        try:
            self._file.write(chunk)
        except OSError as error:
            raise NoSpace(error.strerror) from error
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        if len(self.head) < 64:
            self.head = (self.head + chunk)[:64]

    def keep(self) -> str:
        """This function will make the file durable under its SHA-256 and return that.

        :raises NoSpace: if it cannot be made durable.
        """
        digest = self._hash.hexdigest()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            place = path_of(self._root, digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(place)
            for folder in (place.parent, place.parent.parent, self._root):
                _sync_folder(folder)
        except OSError as error:
            raise NoSpace(error.strerror) from error
        return digest

    def discard(self) -> None:
        """This function will throw the file away, if it was not kept."""
        # What could not be written is tried once more by the closing, and fails once more.
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def path_of(root: Path, sha256: str) -> Path:
    """This function will say where a file with this digest is kept."""
    return root / sha256[:2] / sha256[2:4] / sha256


class Files:
    """The kept files below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def incoming(self) -> Incoming:
        """This function will begin a new file.

        :raises NoSpace: if the folder cannot be written.
        """
        try:
            return Incoming(self._root)
        except OSError as error:
            raise NoSpace(error.strerror) from error

    def open(self, sha256: str) -> Path | None:
        """This function will find a kept file; None when it is not there."""
        place = path_of(self._root, sha256)
        return place if place.is_file() else None

    def sweep(self, *, now_s: float, older_than_s: float, log: Callable[[str], None]) -> int:
        """This function will delete what arrived only in part and was left behind by a process that died."""
        swept = 0
        for left in (self._root / "incoming").glob("*"):
            try:
                if now_s - left.stat().st_mtime > older_than_s:
                    left.unlink()
                    swept += 1
            except OSError as error:
                log(f"{left.name}: {error.strerror}")
        return swept
