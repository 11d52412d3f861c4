"""`fluxgate events tail`: the stream on a terminal, live, beside a running serve or on PostgreSQL."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from service.storage import events, retention
from service.storage.database import Tx
from service.storage.events import Event
from service.wiring import Service
from tests.cli.commands import said, within
from tests.cli.process import COMMAND, environment, failed_in_one_line, fluxgate, staying

pytestmark = pytest.mark.slow

API_KEY = "a-key-for-the-tests-of-events-tail"
SECRET_KEYS = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
BODY = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}


class Lines:
    """What a process prints, as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._rest = b""
        self._lines: list[str] = []

    def take(self, count: int, *, within_s: float = 20) -> list[str]:
        """Wait for so many lines and take them."""
        assert self.process.stdout is not None
        handle, until = self.process.stdout.fileno(), time.monotonic() + within_s
        while len(self._lines) < count:
            ready, _, _ = select.select([handle], [], [], max(0, until - time.monotonic()))
            assert ready, f"{len(self._lines)} of {count} lines: {self._lines}"
            piece = os.read(handle, 1 << 16)
            assert piece, "it ended"
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines += [line.decode() for line in lines]
        taken, self._lines = self._lines[:count], self._lines[count:]
        return taken


@contextmanager
def tailing(*arguments: str, log: Path, **settings: str) -> Iterator[Lines]:
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*COMMAND, "events", "tail", *arguments],
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            yield Lines(process)
        finally:
            process.kill()


def submit(http: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = http.post("/v1/jobs", json=BODY).json()
    return answer


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_follows_live_beside_a_running_serve(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = {
        "FLUXGATE_DATABASE_URL": request.getfixturevalue(f"{database}_url"),
        "FLUXGATE_SECRET_KEYS": SECRET_KEYS,
    }
    serving = {
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FAL_KEY": "test",
        "FLUXGATE_FAL_QUEUE_URL": "http://127.0.0.1:9",
    }
    with staying("serve", "--port", "0", log=tmp_path / "serve", **settings, **serving) as server:
        with (
            httpx.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
            ) as http,
            tailing(log=tmp_path / "people", **settings) as people,
            tailing(
                "--json", "--types", "job.accepted,job.canceled", log=tmp_path / "json", **settings
            ) as programs,
        ):
            job = submit(http)
            http.post(f"/v1/jobs/{job['id']}/cancel")
            first, second = (json.loads(line) for line in programs.take(2))
            assert [first["type"], second["type"]] == ["job.accepted", "job.canceled"]
            assert second["data"]["state"] == "canceled"
            lines = [line.split("\t") for line in people.take(2)]
            assert [line[1:4] for line in lines] == [
                [event["type"], job["id"], event["id"]] for event in (first, second)
            ]
            feed = http.get("/v1/events").json()
            assert lines[-1][4] == feed["next_cursor"]
            assert feed["data"] == [first, second]

            done = fluxgate("events", "tail", "--no-follow", "--json", "--after", lines[0][4], **settings)
            assert [json.loads(line) for line in done.stdout.splitlines()] == [second]
            done = fluxgate("events", "tail", "--no-follow", "--json", "--after", "0", **settings)
            assert [json.loads(line) for line in done.stdout.splitlines()] == [first, second]
            assert (done.returncode, done.stderr) == (0, "")

            for process, number in ((people.process, signal.SIGINT), (programs.process, signal.SIGTERM)):
                process.send_signal(number)
                assert process.wait(10) == 0
        assert (tmp_path / "people").read_text() == (tmp_path / "json").read_text() == ""


def test_it_begins_with_what_happens_from_now_on(sqlite_url: str, tmp_path: Path) -> None:
    settings = {"FLUXGATE_DATABASE_URL": sqlite_url}
    serving = {
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FAL_KEY": "test",
        "FLUXGATE_FAL_QUEUE_URL": "http://127.0.0.1:9",
    }
    with (
        staying("serve", "--port", "0", log=tmp_path / "serve", **settings, **serving) as server,
        httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
        ) as http,
    ):
        old = submit(http)["id"]
        with tailing("--after", "now", log=tmp_path / "log", **settings) as lines:
            newer: list[str] = []
            # Nothing tells when it has begun: something happens until it says so.
            for _ in range(100):
                newer.append(submit(http)["id"])
                assert lines.process.stdout is not None
                if select.select([lines.process.stdout.fileno()], [], [], 0.2)[0]:
                    break
            [line] = lines.take(1)
            assert line.split("\t")[2] in newer
            assert old not in line


def test_another_tenants_events_are_not_shown(sqlite_url: str) -> None:
    done = fluxgate("events", "tail", "--no-follow", "--tenant", "other", FLUXGATE_DATABASE_URL=sqlite_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_expired_cursor_names_the_one_to_go_on_with(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prune(service: Service) -> None:
        now_ms = service.runtime.now_ms()
        made = [
            Event(
                id=f"evt_{place}",
                tenant="default",
                type="job.queued",
                job_id=None,
                job_seq=None,
                at_ms=now_ms,
                data="{}",
            )
            for place in range(3)
        ]

        def work(tx: Tx) -> None:
            events.append(tx, made[:2])
            tx.run_many(retention._NOTE, [{"name": retention.FAN_OUT, "value": 2}])

        await service.runtime.door.write(work)
        await service.runtime.door.write(lambda tx: retention.prune_events(tx, before_ms=now_ms + 1, most=9))
        await service.runtime.door.write(lambda tx: events.append(tx, made[2:]))

    within(settings, prune)
    line = said(capsys, "events", "tail", "--no-follow", "--after", "1", code=1)
    assert "no longer kept" in line
    assert "--after 2" in line
    for arguments in (["--after", "2"], []):
        (shown,) = said(capsys, "events", "tail", "--no-follow", *arguments).splitlines()
        assert shown.split("\t")[3] == "evt_2"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--types", "job.done"], "job.done"),
        (["--after", "yesterday"], "--after"),
        (["--after", "-1"], "--after"),
    ],
)
def test_wrong_use_is_one_line_that_names_it(arguments: list[str], named: str, sqlite_url: str) -> None:
    done = fluxgate("events", "tail", "--no-follow", *arguments, FLUXGATE_DATABASE_URL=sqlite_url)
    assert named in failed_in_one_line(done, 2)
