"""Real processes: started, watched and stopped."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[1]
_START_S = 30.0
_STOP_S = 15.0
#: Nothing that runs to its end here takes longer than this by itself.
_RUN_S = 300.0


class Broken(Exception):
    """A process ended, or did not answer; the message has the end of its log."""


def free_port() -> int:
    """This function will find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This function will give the environment of a process: ours without anybody's settings, and these."""
    foreign = ("FLUXGATE_", "FAL_", "BFL_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**ours, "PYTHONPATH": str(CHECKOUT), **settings}


def _pinned_to(cores: set[int] | None) -> Callable[[], None]:
    """Before the program starts, so that its threads inherit it."""
    return lambda: os.sched_setaffinity(0, cores) if cores else None


class Process:
    """One process that is running, with its log."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        cores: set[int] | None = None,
        user: str | None = None,
    ) -> None:
        self._log = folder / f"{Path(command[-1]).name}-{time.monotonic_ns()}.log"

        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                list(command),
                cwd=folder,
                env=environment(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_pinned_to(cores),  # noqa: PLW1509 - no threads here
                user=user,
            )
        self._watched = psutil.Process(self._popen.pid)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    def cpu_s(self) -> float:
        """This function will tell how many seconds of CPU it has used."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def family_cpu_s(self) -> float:
        """This function will tell how many seconds of CPU it and its living children have used."""
        total = self.cpu_s()
        for child in self._watched.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return total

    def rss_bytes(self) -> int:
        """This function will tell how much memory is resident."""
        return int(self._watched.memory_info().rss)

    def until_answers(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        """This function will wait until a GET of the URL is answered 200.

        :raises Broken: if that does not happen.
        """
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            self.must_run()
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2, context=tls) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.05)
        raise Broken(f"{url} does not answer: {self.log()}")

    def must_run(self) -> None:
        """This function will see that the process lives.

        :raises Broken: if it ended.
        """
        if self._popen.poll() is not None:
            raise Broken(f"it ended with {self._popen.returncode}: {self.log()}")

    def log(self) -> str:
        """This function will give the end of what the process said."""
        return self._log.read_text(errors="replace")[-2000:]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """This function will end the process, with force when it does not go by itself."""
        if self._popen.poll() is None:
            self._popen.send_signal(how)
            try:
                self._popen.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


@contextlib.contextmanager
def started(
    command: Sequence[str], *, ready_url: str, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[Process]:
    """This function will run a process that answers HTTP while the block runs."""
    process = Process(command, **options)
    try:
        process.until_answers(ready_url, tls=tls)
        yield process
    finally:
        process.stop()


def python(*arguments: str) -> list[str]:
    """This function will give the command that runs a module with our own interpreter."""
    return [sys.executable, "-m", *arguments]


def run(command: Sequence[str], *, folder: Path, settings: Mapping[str, str], user: str | None = None) -> str:
    """This function will run a process to its end and return what it printed.

    :raises Broken: if it failed.
    """
    done = subprocess.run(
        list(command),
        cwd=folder,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        user=user,
        timeout=_RUN_S,
        check=False,
    )
    if done.returncode:
        raise Broken(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def load(spec: Mapping[str, Any], *, cores: set[int] | None = None) -> dict[str, Any]:
    """This function will run the load generator and return what it saw.

    :raises Broken: if it failed.
    """
    done = subprocess.run(
        python("bench.load"),
        input=json.dumps(spec),
        env=environment({}),
        capture_output=True,
        text=True,
        preexec_fn=_pinned_to(cores),
        timeout=_RUN_S,
        check=False,
    )
    if done.returncode:
        raise Broken(f"the load generator failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
