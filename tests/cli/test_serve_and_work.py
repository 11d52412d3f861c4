"""serve and work as processes: ready, alone on their file, stopped by signals."""

import json
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from tests.cli.process import STOPS_WITHIN_S, failed_in_one_line, fluxgate, staying

pytestmark = pytest.mark.slow

API_KEY = "a-key-for-tests-of-serve-and-work"
SECRET_KEYS = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="  # 32 times A
BODY = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}


def client(url: str) -> httpx.Client:
    return httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=40, trust_env=False
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_makes_its_database_answers_and_stops_with_0(number: signal.Signals, tmp_path: Path) -> None:
    with staying(
        "serve", "--port", "0", log=tmp_path / "log", FLUXGATE_BOOTSTRAP_KEY=API_KEY, FAL_KEY="test"
    ) as process:
        assert process.url.startswith("http://127.0.0.1:")
        with client(process.url) as http:
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").status_code == 200
            assert http.get("/v1/jobs").json()["data"] == []
        code, seconds = process.stop(number)
        assert (code, seconds < STOPS_WITHIN_S) == (0, True)
        lines = [json.loads(row) for row in process.log.splitlines()]
        assert {"event", "level", "timestamp"} <= set(lines[0])


def test_a_waiting_reader_is_answered_when_serve_stops(tmp_path: Path) -> None:
    answers: list[int] = []
    with staying("serve", "--port", "0", log=tmp_path / "log", FLUXGATE_BOOTSTRAP_KEY=API_KEY) as process:
        with client(process.url) as http:

            def wait() -> None:
                answers.append(http.get("/v1/events", params={"wait": 30}).status_code)

            reader = threading.Thread(target=wait)
            reader.start()
            with client(process.url) as other:
                other.get("/healthz")
            code, seconds = process.stop()
            reader.join()
        assert (code, answers) == (0, [200])
        assert seconds < STOPS_WITHIN_S


def test_serve_stops_although_a_caller_sends_nothing_more(tmp_path: Path) -> None:
    with staying("serve", "--port", "0", log=tmp_path / "log", FLUXGATE_BOOTSTRAP_KEY=API_KEY) as process:
        port = int(process.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as hanging:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n"
            hanging.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode())
            code, seconds = process.stop()
        assert (code, seconds < STOPS_WITHIN_S) == (0, True)


def test_one_serve_owns_its_sqlite_file_and_short_commands_write_beside_it(tmp_path: Path) -> None:
    with staying("serve", "--port", "0", log=tmp_path / "log", FAL_KEY="test") as process:
        for arguments in (["serve", "--port", "0"], ["serve", "--no-work", "--port", "0"], ["work"]):
            assert "PostgreSQL" in failed_in_one_line(fluxgate(*arguments), 1)
        made = dict(row.split(": ") for row in fluxgate("keys", "create", "--name", "x").stdout.splitlines())
        with httpx.Client(base_url=process.url, trust_env=False) as http:
            headers = {"Authorization": f"Bearer {made['secret']}"}
            assert http.get("/v1/jobs", headers=headers).status_code == 200
        assert process.stop()[0] == 0
    # The file is free again, although its lock file is still there.
    with staying("serve", "--port", "0", log=tmp_path / "log") as process:
        assert process.stop()[0] == 0


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "--port" in failed_in_one_line(fluxgate("serve", "--port", port), 1)
        assert "--port" in failed_in_one_line(fluxgate("simulate", "--port", port), 1)


def test_a_bad_certificate_is_one_line(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    done = fluxgate("serve", "--port", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    assert "certificate" in failed_in_one_line(done, 1)


def test_the_token_of_a_callback_is_in_no_log(tmp_path: Path) -> None:
    token = "t0ken-that-nobody-may-read-in-a-log"
    with staying("serve", "--port", "0", log=tmp_path / "log", FAL_KEY="test") as process:
        with client(process.url) as http:
            assert http.post(f"/callbacks/fal/{token}", json={}).status_code == 404
            assert http.post(f"/callbacks/none/{token}/x?{token}", content=b"\xff").status_code == 404
        process.stop()
        assert token not in process.log


def test_web_and_workers_share_a_postgresql_database(postgresql_url: str, tmp_path: Path) -> None:
    with staying("simulate", "--port", "0", "--seed", "4", log=tmp_path / "simulator") as simulator:
        url = simulator.ready.split()[3]
        settings = {
            "FLUXGATE_DATABASE_URL": postgresql_url,
            "FLUXGATE_SECRET_KEYS": SECRET_KEYS,
            "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
            "FLUXGATE_POLL_AFTER_S": "0.5",
            "FAL_KEY": "test",
            "FLUXGATE_FAL_QUEUE_URL": f"{url}/fal-queue",
        }
        with (
            staying("serve", "--no-work", "--port", "0", log=tmp_path / "web", **settings) as web,
            staying("work", log=tmp_path / "one", **settings) as one,
            staying("work", log=tmp_path / "two", **settings) as two,
            client(web.url) as http,
        ):
            ids = [http.post("/v1/jobs", json=BODY).json()["id"] for _ in range(6)]
            states = [http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).json()["state"] for job_id in ids]
            assert states == ["succeeded"] * 6
            for process in (one, two, web):
                code, seconds = process.stop()
                assert (code, seconds < STOPS_WITHIN_S) == (0, True), process.log


@pytest.mark.parametrize("arguments", ["serve --port 0", "serve --no-work --port 0", "work"])
def test_a_postgresql_database_that_is_behind_is_not_touched(
    arguments: str, empty_postgresql_url: str
) -> None:
    done = fluxgate(
        *arguments.split(), FLUXGATE_DATABASE_URL=empty_postgresql_url, FLUXGATE_SECRET_KEYS=SECRET_KEYS
    )
    assert "fluxgate migrate" in failed_in_one_line(done, 1)
