"""`fluxgate listen`: events of a real server arrive at a local program as webhooks, in order, and it ends cleanly."""

import base64
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
import standardwebhooks

from service.cli.main import run
from tests.cli.process import Running, staying
from tests.cli.receiver import Receiver, receiving
from tests.client.scene import page, place, problem

KEY = "a-key-for-the-tests-of-listen"
ASKED = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}, "archive": False}
OWN_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@contextmanager
def serving(tmp_path: Path) -> Iterator[httpx.Client]:
    with staying("simulate", "--port", "0", "--seed", "4", log=tmp_path / "simulator") as simulator:
        at = simulator.ready.split()[3]
        settings = {
            "FLUXGATE_BOOTSTRAP_KEY": KEY,
            "FLUXGATE_POLL_AFTER_S": "0.3",
            "FAL_KEY": "test",
            "FLUXGATE_FAL_QUEUE_URL": f"{at}/fal-queue",
        }
        with (
            staying("serve", "--port", "0", log=tmp_path / "serve", **settings) as served,
            httpx.Client(
                base_url=served.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=40, trust_env=False
            ) as http,
        ):
            yield http


@contextmanager
def listening(http: httpx.Client, receiver: Receiver, log: Path, *more: str) -> Iterator[Running]:
    url = str(http.base_url).rstrip("/")
    with staying(
        "listen", "--forward-to", receiver.url, *more, log=log, FLUXGATE_API_KEY=KEY, FLUXGATE_URL=url
    ) as process:
        yield process


def finish_a_job(http: httpx.Client) -> str:
    job_id: str = http.post("/v1/jobs", json=ASKED).json()["id"]
    assert http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).json()["state"] == "succeeded"
    return job_id


def said(process: Running) -> list[str]:
    """Read until it tells of a job's success, end it by Ctrl-C, and give everything behind its first line."""
    assert process.process.stdout is not None
    lines = []
    for line in process.process.stdout:
        lines.append(line.rstrip("\n"))
        if " job.succeeded " in line:
            break
    code, _ = process.stop(signal.SIGINT)
    assert code == 0, process.log
    assert process.log == ""
    return lines + process.process.stdout.read().splitlines()


def events_of(http: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    kept = http.get("/v1/events", params={"limit": 200}).json()["data"]
    return [event for event in kept if event["job_id"] == job_id]


@pytest.mark.slow
def test_events_arrive_signed_in_order_and_a_failing_program_is_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        # What was before is not shown: it begins now.
        finish_a_job(http)
        with receiving(500, 404) as receiver, listening(http, receiver, tmp_path / "listen") as process:
            secret = process.ready.rpartition(" ")[2]
            job_id = finish_a_job(http)
            posts = receiver.until("job.succeeded")
            lines = said(process)
        verifier = standardwebhooks.Webhook(secret)
        told = [verifier.verify(body, headers)["data"] for headers, body in posts]
        kept = events_of(http, job_id)
        assert told == [kept[0], kept[0], *kept]
        assert posts[0][0]["content-type"] == "application/json"
        for (headers, _), event in zip(posts, told, strict=True):
            assert headers["webhook-id"] == event["id"]

        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
        expected = [
            rf"{stamp} job\.accepted {job_id} 500 Internal Server Error in \d+ ms: again in 0\.5 s",
            rf"{stamp} job\.accepted {job_id} 404 Not Found in \d+ ms: again in 1 s",
            *[rf"{stamp} {re.escape(event['type'])} {job_id} 204 in \d+ ms" for event in kept],
            r"fluxgate: stopped; --after \S+ goes on here",
        ]
        assert [
            line for rule, line in zip(expected, lines, strict=True) if not re.fullmatch(rule, line)
        ] == []

        # What happened while nobody listened comes now, and nothing else.
        later = finish_a_job(http)
        chosen = [
            "--after",
            lines[-1].split()[3],
            "--types",
            "job.succeeded,job.failed",
            "--secret",
            OWN_SECRET,
        ]
        with (
            receiving() as receiver,
            listening(http, receiver, tmp_path / "again", *chosen) as process,
        ):
            assert OWN_SECRET not in process.ready
            ((headers, body),) = receiver.until("job.succeeded")
            said(process)
        assert (
            standardwebhooks.Webhook(OWN_SECRET).verify(body, headers)["data"] == events_of(http, later)[-1]
        )

        # And everything that is kept, from the start.
        with (
            receiving() as receiver,
            listening(http, receiver, tmp_path / "all", "--after", "start") as process,
        ):
            receiver.until("job.succeeded")
            said(process)
        everything = http.get("/v1/events", params={"limit": 200}).json()["data"]
        posted = [headers["webhook-id"] for headers, _ in receiver.posts]
        assert posted == [event["id"] for event in everything][: len(posted)]


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(["listen", *arguments])
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("fluxgate: ")
    return code, error


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--forward-to", "127.0.0.1:3000"], "--forward-to"),
        (["--forward-to", "ftp://127.0.0.1/x"], "--forward-to"),
        (["--types", "job.done"], "job.done"),
        (["--secret", "whsec_short"], "--secret"),
        (["--secret", "secret"], "--secret"),
        (["--url", "gate.example"], "--url"),
    ],
)
def test_wrong_use_is_named(
    more: list[str], named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXGATE_API_KEY", KEY)
    code, error = failed(["--forward-to", "http://127.0.0.1:3000/hook", *more], capsys)
    assert (code, named in error) == (2, True), error


def test_without_a_key_the_command_that_makes_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failed(["--forward-to", "http://127.0.0.1:3000/hook"], capsys)
    assert (code, "FLUXGATE_API_KEY" in error, "fluxgate keys create" in error) == (1, True, True)


REFUSALS = [
    (problem(401, "unauthenticated"), "FLUXGATE_API_KEY"),
    (problem(403, "forbidden"), "events:read"),
    (problem(422, "invalid_input"), "--after"),
    (httpx.ConnectError("connection refused"), "--url"),
    (httpx.Response(200, text="<p>hello</p>"), "--url"),
]


@respx.mock
@pytest.mark.parametrize(("answer", "named"), REFUSALS)
def test_a_service_that_refuses_or_is_away_is_one_line(
    answer: httpx.Response | Exception,
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLUXGATE_API_KEY", KEY)
    monkeypatch.setattr("service.cli.listen._PATIENCE_S", 0.1)
    respx.get("http://127.0.0.1:8080/v1/events").mock(side_effect=[answer] * 100)
    code, error = failed(["--forward-to", "http://127.0.0.1:3000/hook"], capsys)
    assert (code, named in error) == (1, True), error
    assert KEY not in error


@respx.mock
def test_an_expired_cursor_names_the_oldest_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXGATE_API_KEY", KEY)
    respx.get("http://127.0.0.1:8080/v1/events").mock(return_value=page(following=9))
    expired = problem(410, "cursor_expired", oldest_cursor=place(5))
    respx.get("http://127.0.0.1:8080/v1/events/stream").mock(return_value=expired)
    code, error = failed(["--forward-to", "http://127.0.0.1:3000/hook", "--after", place(1)], capsys)
    assert (code, f"--after {place(5)}" in error) == (1, True), error
