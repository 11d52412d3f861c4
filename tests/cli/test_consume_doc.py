"""docs/consume.md works as it is written: its commands and programs, in the order of the page, on free ports."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.cli.test_readme_first_job import HARMLESS, free_port, wait_until_it_answers
from tests.project.repository import ROOT

PAGE = (ROOT / "docs/consume.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- consume: (?P<name>[^>]+?) -->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = {found["name"]: found["text"] for found in BLOCK.finditer(PAGE)}
PROGRAMS = [name for name in BLOCKS if "." in name]
PORTS = ("8080", "9090", "3000", "3001", "3002", "3003")


def written(name: str, ports: dict[str, int]) -> str:
    """Give a block with the ports and the interpreter of this test."""
    text = BLOCKS[name].replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    for shown, taken in ports.items():
        text = re.sub(rf"\b{shown}\b", str(taken), text)
    return text


class Terminal:
    """A shell that stays, as a person would use it: variables, functions and background programs live on."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self._folder = folder
        self._ports = ports
        self._count = 0
        self._said = (folder / "terminal.txt").open("wb")
        self._shell = subprocess.Popen(
            ["bash"], cwd=folder, env=HARMLESS, stdin=subprocess.PIPE, stdout=self._said, stderr=self._said,
            start_new_session=True,
        )  # fmt: skip

    def type(self, text: str, *, within_s: float = 60) -> str:
        """Type lines, wait until they are done, and give all that was printed since the start."""
        self._count += 1
        done = self._folder / f"done-{self._count}"
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\necho > {done}\n".encode())
        self._shell.stdin.flush()
        until(done.exists, within_s=within_s, saying=text)
        return self.said

    def follow(self, name: str) -> str:
        """Type a block of the page."""
        return self.type(written(name, self._ports))

    def start(self, program: str, port: int) -> None:
        """Start a program of the page in the background, as the page does."""
        self.type(f"{sys.executable} {program} & ready http://127.0.0.1:{port}")

    @property
    def said(self) -> str:
        return (self._folder / "terminal.txt").read_text()

    def close(self) -> None:
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        _close(self._shell.stdin)
        self._said.close()


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def until(true: Callable[[], object], *, saying: str, within_s: float = 30) -> None:
    last = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < last, saying
        time.sleep(0.05)


@contextmanager
def background(script: str, folder: Path, answers_at: str) -> Iterator[None]:
    *before, command = script.rstrip().splitlines()
    lines = "\n".join([*before, f"exec {command}"])
    with subprocess.Popen(
        ["bash", "-ec", lines], cwd=folder, env=HARMLESS, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_it_answers(answers_at)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0


@pytest.fixture
def ports() -> dict[str, int]:
    return {shown: free_port() for shown in PORTS}


@pytest.fixture
def running(tmp_path: Path, ports: dict[str, int]) -> Iterator[dict[str, int]]:
    """Run what the page starts in the first two terminals, and write down its programs."""
    for name in PROGRAMS:
        (tmp_path / name).write_text(written(name, ports))
    with (
        background(written("simulator", ports), tmp_path, f"http://127.0.0.1:{ports['9090']}/_sim/stats"),
        background(written("service", ports), tmp_path, f"http://127.0.0.1:{ports['8080']}/healthz"),
    ):
        yield ports


@pytest.fixture
def terminal(running: dict[str, int], tmp_path: Path) -> Iterator[Terminal]:
    shell = Terminal(tmp_path, running)
    try:
        shell.follow("terminal")
        yield shell
    finally:
        shell.close()


def states(tmp_path: Path) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "consumer.db")) as database:
        return [row[0] for row in database.execute("SELECT state FROM job").fetchall()]


FOLLOWED = {
    "simulator", "service", "terminal", "endpoint", "consumer.py", "try the consumer", "take.py", "cloud.py",
    "try the others", "operate", "webhook of a job", "curl the stream", "follow.js", "feed", "client.py",
    "try the client", "listen",
}  # fmt: skip


def test_every_command_and_program_of_the_page_is_followed_here() -> None:
    fences = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert len([language for language in fences if language != "json"]) == len(BLOCKS)
    assert set(BLOCKS) == FOLLOWED


@pytest.mark.slow
def test_webhooks_reach_the_consumers_of_the_page(terminal: Terminal, tmp_path: Path) -> None:
    terminal.follow("endpoint")
    terminal.follow("try the consumer")
    until(lambda: "endpoint.test None new" in terminal.said, saying=terminal.said)
    until(lambda: states(tmp_path) == ["succeeded"], saying=terminal.said)

    terminal.follow("try the others")
    until(lambda: re.search(r"job\.succeeded job_\w+ succeeded", terminal.said), saying=terminal.said)
    until(
        lambda: re.search(r"dev\.fluxgate\.job\.succeeded evt_\w+ job_", terminal.said), saying=terminal.said
    )

    terminal.follow("webhook of a job")
    until(lambda: terminal.said.count(" succeeded\n") >= 3, saying=terminal.said)
    until(lambda: len(states(tmp_path)) == 3, saying=terminal.said)

    before = terminal.said.count("job.succeeded job_")
    terminal.follow("operate")
    # Everything came again under the same ids, and the consumer knew it.
    until(lambda: len(re.findall(r"job\.succeeded job_\w+ again", terminal.said)) >= 3, saying=terminal.said)
    assert terminal.said.count("job.succeeded job_") > before
    assert re.search(r"^whsec_\S+$", terminal.said, re.MULTILINE)
    # Genuine webhooks go on under the old secret, which the consumer still has.
    job = terminal.type("submit | field id").split()[-1]
    until(lambda: f"job.succeeded {job} new" in terminal.said, saying=terminal.said)
    assert "refused" not in terminal.said
    assert '"request_id"' not in terminal.said, "a command was answered with a problem"


@pytest.mark.slow
def test_a_consumer_of_the_page_refuses_what_is_forged(terminal: Terminal, running: dict[str, int]) -> None:
    terminal.follow("endpoint")
    terminal.start("consumer.py", running["3000"])
    url = f"http://127.0.0.1:{running['3000']}/hook"
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": f"{time.time():.0f}",
        "webhook-signature": "v1,AAAA",
    }
    forged = [{}, headers, {**headers, "webhook-signature": "v1"}, {**headers, "webhook-timestamp": "x"}]
    answers = [httpx.post(url, content=b'{"data":{}}', headers=said, trust_env=False) for said in forged]
    assert [answer.status_code for answer in answers] == [400] * 4
    assert httpx.post(url, content=b"\xff", headers=headers, trust_env=False).status_code == 400


@pytest.mark.slow
def test_the_stream_the_feed_the_client_and_listen_do_what_the_page_says(
    terminal: Terminal, running: dict[str, int], tmp_path: Path
) -> None:
    said = terminal.follow("try the client")
    assert re.search(r"^job_\w+ http\S+$", said, re.MULTILINE), said
    assert re.search(r"^\d+ job\.succeeded job_\w+$", said, re.MULTILINE), said
    cursor = (tmp_path / "client-cursor.txt").read_text()

    streamed = terminal.follow("curl the stream")[len(said) :]
    assert re.search(rf"^id: {cursor}\nevent: job\.succeeded\ndata: {{", streamed, re.MULTILINE), streamed

    terminal.follow("feed")
    assert re.search(r"^1 job\.accepted job_\w+$", terminal.said, re.MULTILINE), terminal.said
    assert (tmp_path / "cursor.txt").read_text().strip()

    terminal.follow("endpoint")
    terminal.start("consumer.py", running["3000"])
    terminal.type(written("listen", running).rstrip() + " > listen.txt &")
    until(lambda: re.search(r"job\.succeeded job_\w+ new", terminal.said), saying=terminal.said)
    terminal.type('kill -TERM $!; wait $!; echo "listen ended with $?"')
    assert "listen ended with 0" in terminal.said
    lines = (tmp_path / "listen.txt").read_text().splitlines()
    assert lines[0].startswith("fluxgate: forwarding from ")
    assert re.search(r"job\.succeeded job_\w+ 204 in \d+ ms", "\n".join(lines))
    assert '"request_id"' not in terminal.said, "a command was answered with a problem"
