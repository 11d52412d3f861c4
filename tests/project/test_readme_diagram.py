"""The diagram in the README is the one that the machine's table gives."""

import re
import subprocess
import sys

import pytest

from service.domain.diagram import mermaid
from service.domain.machine import TRANSITIONS
from tests.project.repository import ROOT

BLOCK = re.compile(r"<!-- diagram -->\n+```mermaid\n(?P<diagram>.*?)```\n+<!-- /diagram -->", re.DOTALL)
HOW = "put the output of `python -m service.domain.diagram` into a mermaid block between <!-- diagram --> and <!-- /diagram -->"


def test_the_readme_shows_the_machine_as_it_is() -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.fail(f"there is no README.md: {HOW}")
    blocks = [found["diagram"] for found in BLOCK.finditer(readme.read_text(encoding="utf-8"))]
    assert blocks == [mermaid()], HOW


def test_the_diagram_says_every_move_of_the_table_once() -> None:
    text = mermaid()
    states = {state for state, row in TRANSITIONS.items() if row}
    drawn = re.findall(r"^ +(\w+) --> (\w+): (\S+)$", text, re.MULTILINE)
    moves = [
        (state, target, fact)
        for source, target, fact in drawn
        for state in (states if source == "open" else {source})
    ]
    table = {(state, target, fact.type) for state, row in TRANSITIONS.items() for fact, target in row.items()}
    assert len(moves) == len(table)
    assert set(moves) == table
    assert "[*] --> accepted" in text
    assert {state for state in TRANSITIONS if f"    {state} --> [*]" in text} == set(TRANSITIONS) - states


def test_the_diagram_is_printed_by_its_module() -> None:
    command = [sys.executable, "-m", "service.domain.diagram"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == mermaid()
