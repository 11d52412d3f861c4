"""Lists for people: a small table on a terminal, plain lines with tabs otherwise; and JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def clean(text: object) -> str:
    """This function will write a value in one line that cannot steer a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in ("-" if text is None else str(text)))


def rows(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """This function will print lines under their columns; without a terminal only the lines, for other programs."""
    if not sys.stdout.isatty():
        for line in lines:
            print("\t".join(clean(value) for value in line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(*(Text(clean(value), overflow="fold") for value in line))
    Console().print(table)


def listing(data: list[dict[str, Any]], next_cursor: str | None = None) -> None:
    """This function will print a list as the API would answer it."""
    print(json.dumps({"data": data, "next_cursor": next_cursor}, ensure_ascii=False, indent=2))


def document(value: dict[str, Any]) -> None:
    """This function will print one thing as the API would answer it."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def facts(values: Mapping[str, object]) -> None:
    """This function will print one fact a line, for people; what is absent is left out."""
    for name, value in values.items():
        if value not in (None, "", {}, []):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            print(f"{name}: {clean(text)}")
