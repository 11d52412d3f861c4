"""The README's first job works as it is written: the same commands, on free ports."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.project.repository import ROOT

BLOCK = r"<!-- first-job: {name} -->\n```sh\n(?P<text>.*?)```"
HARMLESS = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def block(name: str, ports: dict[str, int]) -> str:
    found = re.findall(BLOCK.format(name=name), (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1, f"the README has one block named {name}"
    text = str(found[0]).replace(".venv/bin/fluxgate", f"exec {Path(sys.executable).parent}/fluxgate")
    for shown, taken in ports.items():
        text = text.replace(shown, str(taken))
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def shell(script: str, folder: Path, answers_at: str) -> Iterator[None]:
    with subprocess.Popen(
        ["bash", "-ec", script], cwd=folder, env=HARMLESS, stdout=subprocess.DEVNULL
    ) as running:
        try:
            wait_until_it_answers(answers_at)
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(timeout=10) == 0


def wait_until_it_answers(url: str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < until, f"{url} does not answer"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def ports() -> dict[str, int]:
    return {"8080": free_port(), "9090": free_port()}


def test_the_first_job_of_the_readme_ends_and_shows_its_history(
    tmp_path: Path, ports: dict[str, int]
) -> None:
    simulator, service = (f"http://127.0.0.1:{ports[name]}" for name in ("9090", "8080"))
    with (
        shell(block("simulator", ports), tmp_path, f"{simulator}/_sim/stats"),
        shell(block("service", ports), tmp_path, f"{service}/healthz"),
    ):
        client = ["bash", "-ec", block("client", ports)]
        shown = subprocess.run(client, cwd=tmp_path, env=HARMLESS, check=True, capture_output=True, text=True)
    assert re.search(r'"object":"job","state":"(succeeded|failed|blocked)"', shown.stdout), shown.stdout
    assert '"type":"job.accepted","cause":"api:key_' in shown.stdout
    assert '"next_cursor"' in shown.stdout
