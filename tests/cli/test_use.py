"""The command line as such: help, wrong use, exit codes, and that nothing heavy is loaded before it is needed."""

import subprocess
import sys

import pytest

from service.cli.failing import line
from service.cli.main import run
from tests.cli.process import COMMAND, ROOT, failed_in_one_line, fluxgate

COMMANDS = [
    "serve", "work", "migrate", "demo", "simulate", "listen",
    "keys create", "keys list", "keys revoke", "jobs list", "jobs show", "jobs cancel", "jobs retry",
    "endpoints list", "endpoints show", "endpoints create", "endpoints update", "endpoints delete",
    "endpoints rotate-secret", "endpoints test", "endpoints replay",
    "deliveries list", "deliveries show", "deliveries retry",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert f"Usage: fluxgate {command}" in said
    assert "Example:" in said
    options = [row for row in said.splitlines() if row.startswith("  --")]
    assert options
    assert [row for row in options if len(row.split(maxsplit=1)) < 2] == []


def test_the_list_of_commands_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(command.split()[0] in said for command in COMMANDS)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fluxgate 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "serv",
        "keys",
        "jobs shw",
        "serve --nope",
        "serve --port x",
        "serve --port 70000",
        "serve --tls-cert cert.pem",
        "simulate --tls-key key.pem",
        "listen",
        "simulate --faults dorp=1",
        "simulate --faults drop=2",
        "demo --jobs 3",
        "demo more",
        "keys create",
        "keys create --name x --scope everything",
        "keys create --name x --tenant a/b",
        "keys create --name ''",
        "keys revoke",
        "jobs show",
        "jobs list --state done",
        "jobs list --limit 0",
        "endpoints",
        "endpoints create",
        "endpoints create https://x --types job.done",
        "endpoints create https://x --types ''",
        "endpoints create https://x --format xml",
        "endpoints create https://x --signatures v1a",
        "endpoints create https://x --signatures v2",
        "endpoints create https://x --concurrency 65",
        "endpoints create https://x --rate 1001",
        "endpoints update ep_0",
        "endpoints update ep_0 --state paused",
        "endpoints replay ep_0",
        "endpoints replay ep_0 --after yesterday",
        "endpoints delete",
        "deliveries list --state failed",
        "deliveries retry",
    ],
)
def test_wrong_use_ends_with_2_and_one_line(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([part.strip("'") for part in arguments.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (only,) = said.err.splitlines()
    assert only.startswith("fluxgate: ")
    assert only.count(": ") >= 2


def test_a_misspelt_command_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serv"]) == 2
    assert "'serve'" in capsys.readouterr().err


def test_what_an_error_quotes_stays_in_one_line_and_cannot_steer_a_terminal() -> None:
    assert line("there is no\n\x1b[31mjob", "look") == "fluxgate: there is no ?[31mjob: look"


@pytest.mark.slow
def test_wrong_use_in_a_process_of_its_own_ends_with_2_and_one_line() -> None:
    said = failed_in_one_line(fluxgate("serve", "--port", "x"), 2)
    assert "see 'fluxgate serve --help'" in said


@pytest.mark.slow
def test_a_wrong_setting_ends_with_1_and_one_line_for_each() -> None:
    done = fluxgate("keys", "list", FLUXGATE_LEASE="3", FLUXGATE_LOG_FORMAT="s3cret")
    assert (done.returncode, done.stdout) == (1, "")
    assert [said.split()[1] for said in done.stderr.splitlines()] == ["FLUXGATE_LEASE", "FLUXGATE_LOG_FORMAT"]
    assert "FLUXGATE_LEASE_S" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.slow
def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from service.cli.main import run; run(['--help']); run(['serve', '--help']);"
        "print([name for name in ('sqlalchemy', 'sqlmodel', 'pydantic_settings', 'httpx', 'starlette', 'uvicorn',"
        " 'cryptography', 'rich') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
