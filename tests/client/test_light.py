"""The client is light: it loads quickly and nothing of the service's inside, and programs can check their types."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.repository import ROOT

HEAVY = (
    "sqlmodel", "sqlalchemy", "pydantic", "starlette", "uvicorn", "psycopg", "aiohttp", "structlog", "typer",
    "cryptography", "prometheus_client",
)  # fmt: skip
USE = """
from service.client import Fluxgate, Job

async def use(gate: Fluxgate) -> Job:
    job = await gate.submit(model="m", input={"prompt": "a fox"})
    async for event in gate.events(types=["job.succeeded"]):
        reveal_type(event)
    reveal_type(gate.verify_webhook({}, b"", "whsec_x"))
    return await job.result(timeout="soon")
"""


@pytest.mark.slow
def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, service.client; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_types_of_the_client_reach_programs_that_use_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(program)],
        cwd=tmp_path,
        env={"MYPYPATH": "", "PATH": "", "HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("service.client.event.Event") == 2, done.stdout + done.stderr
    assert 'has incompatible type "str"; expected "float | None"' in done.stdout
    assert "Found 1 error" in done.stdout
