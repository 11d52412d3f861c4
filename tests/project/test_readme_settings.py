"""The README's table of settings is the one that the settings give."""

import re
import subprocess
import sys

from service.cli.settings_table import table
from service.settings import names
from tests.project.repository import ROOT

BLOCK = re.compile(r"<!-- settings -->\n+(?P<table>.*?)\n*<!-- /settings -->", re.DOTALL)
HOW = "put the output of `python -m service.cli.settings_table` between <!-- settings --> and <!-- /settings -->"


def test_the_readme_shows_every_setting_as_it_is() -> None:
    blocks = [found["table"] for found in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert blocks == [table().strip()], HOW


def test_the_table_has_one_row_with_a_meaning_for_each_setting() -> None:
    rows = [line.split(" | ") for line in table().splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == names()
    assert all(len(row) == 3 and row[1] and row[2].strip(" |") for row in rows)


def test_the_table_is_printed_by_its_module() -> None:
    command = [sys.executable, "-m", "service.cli.settings_table"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == table()
