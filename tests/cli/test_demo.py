"""The demo and the simulator as processes."""

import json
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.cli.process import COMMAND, environment, fluxgate, staying

pytestmark = pytest.mark.slow


def test_the_demo_holds_every_check_and_says_so_as_json() -> None:
    # A real key and a real URL in the shell must not reach the demo, which may talk to its simulator alone.
    done = fluxgate(
        "demo", "--seed", "7", "--json", FAL_KEY="real", FLUXGATE_FAL_QUEUE_URL="https://real.example"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert (told["ok"], told["seed"], len(told["jobs"])) == (True, 7, 12)
    assert [check["name"] for check in told["checks"] if not check["held"]] == []
    assert len(told["checks"]) == 6
    for provider in ("fal", "bfl"):
        ways = {job["callback"]: job["learned_by"] for job in told["jobs"] if job["provider"] == provider}
        assert (ways["arrives"], ways["lost"]) == ("callback", "poll")
    assert {job["state"] for job in told["jobs"]} == {"succeeded"}
    assert all(job["lag_ms"] >= 0 for job in told["jobs"])
    verdicts = {verdict for job in told["jobs"] for verdict in job["callbacks"]}
    assert {"verified", "duplicate"} < verdicts


def test_the_demo_shows_its_progress_and_its_tables_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = fluxgate("demo", "--jobs", "4", "--seed", "1", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    rows = done.stdout.splitlines()
    assert rows[0] == "job  1  fal  accepted"
    assert {row.split()[-1] for row in rows if row.startswith("job  1")} >= {
        "accepted",
        "submitted",
        "succeeded",
    }
    assert "forged callbacks moved nothing" in done.stdout
    assert "learned by" in done.stdout
    assert rows[-1].endswith("fluxgate demo --jobs 4 --seed 1")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_goes_on_running_when_it_is_told_to(tmp_path: Path) -> None:
    command = [*COMMAND, "demo", "--jobs", "4", "--keep", "--json"]
    environ = environment({"TMPDIR": str(tmp_path)})
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            with httpx.Client(trust_env=False) as http:
                headers = {"Authorization": f"Bearer {told['api_key']}"}
                jobs = http.get(f"{told['service_url']}/v1/jobs", headers=headers).json()["data"]
                assert {job["id"] for job in jobs} == {job["id"] for job in told["jobs"]}
                assert http.get(f"{told['simulator_url']}/_sim/stats").json()["seed"] == told["seed"]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


def test_the_simulator_serves_alone_with_the_dials_and_the_seed_that_it_was_given(tmp_path: Path) -> None:
    with staying(
        "simulate", "--port", "0", "--seed", "9", "--faults", "drop=1", log=tmp_path / "log"
    ) as process:
        url = process.ready.split()[3]
        assert process.ready.endswith("with seed 9")
        with httpx.Client(base_url=url, trust_env=False) as http:
            assert http.get("/_sim/faults").json()["drop"] == 1
        assert process.stop(signal.SIGINT)[0] == 0
