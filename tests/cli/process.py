"""Runs the command as its users do: a process of its own, with an environment of its own, in a folder of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-W", "error", "-m", "service.cli.main"]
ROOT = Path(__file__).resolve().parents[2]
STOPS_WITHIN_S = 10.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Give a process what it needs and nothing of the shell that runs the tests."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **settings}


def fluxgate(*arguments: str, timeout: float = 60, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end in the current folder."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def failed_in_one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Make sure that a command failed as promised, and give what it said."""
    assert done.returncode == code, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fluxgate: ")
    # What is wrong, and what to do about it.
    assert line.count(": ") >= 2, line
    return line


class Running:
    """A process that stays: what it said when it was ready, and how it ends."""

    def __init__(self, process: subprocess.Popen[str], ready: str, log: Path) -> None:
        self.process = process
        self.ready = ready
        self._log = log

    @property
    def url(self) -> str:
        return self.ready.rpartition(" ")[2]

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; give the exit code and the seconds that the end took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=STOPS_WITHIN_S + 5)
        return code, time.monotonic() - began


@contextmanager
def staying(*arguments: str, log: Path, **settings: str) -> Iterator[Running]:
    """Start a command that serves, wait for its first line, and kill it at the end if it is still there."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().rstrip("\n")
            assert ready.startswith("fluxgate: "), log.read_text()
            yield Running(process, ready, log)
        finally:
            process.kill()
