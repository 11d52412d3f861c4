"""The table, as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.outcome import Line


@dataclass
class Report:
    """One run."""

    at: str
    machine: Mapping[str, str]
    quick: bool
    databases: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    load_before: float = 0.0
    took_s: float = 0.0

    def write(self, folder: Path) -> None:
        """This function will write `results.md` and `results.json`."""
        (folder / "results.md").write_text(self.markdown())
        document = {
            "at": self.at,
            "machine": self.machine,
            "databases": self.databases,
            "quick": self.quick,
            "load_before": self.load_before,
            "took_s": self.took_s,
            "lines": [line.as_json() for line in self.lines],
        }
        (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")

    def markdown(self) -> str:
        """This function will give the report as Markdown."""
        facts = {
            **self.machine,
            **self.databases,
            "date": self.at,
            "load when it began": str(self.load_before),
        }
        head = "# Bench\n\nMade by `make bench`" + (" (`--quick`: rough)" if self.quick else "")
        return "\n".join(
            [
                f"{head}; all safety on. Ratios are to a limit measured in the same run.",
                "The goal is the product's; `for now` is what the first release has to reach.",
                "",
                *table(self.lines),
                "",
                *(f"- {name}: {value}" for name, value in facts.items()),
                "",
            ]
        )


_HEAD = ("what", "database", "figure", "limit", "ratio", "goal", "for now", "p50 / p95 / p99 ms", "notes")


def table(lines: Sequence[Line]) -> list[str]:
    """This function will give the lines of a Markdown table."""
    body = [_row(line) for line in sorted(lines, key=lambda line: line.what)]
    return [
        f"| {' | '.join(_HEAD)} |",
        f"|{'---|' * len(_HEAD)}",
        *(f"| {' | '.join(row)} |" for row in body),
    ]


def _row(line: Line) -> list[str]:
    sign = "<= " if line.at_most else ">= "
    took = line.took_ms
    return [
        line.what,
        line.database,
        f"{_number(line.figure)} {line.unit}",
        "" if line.limit is None else f"{_number(line.limit)} {line.unit} ({line.limit_is})",
        "" if line.ratio is None else f"{line.ratio:.3f}",
        "" if line.goal is None else f"{sign}{line.goal:g}",
        "" if line.for_now is None else f"{sign}{line.for_now:g}",
        "" if took is None else f"{took['p50']:.1f} / {took['p95']:.1f} / {took['p99']:.1f}",
        ", ".join(f"{name} {value}" for name, value in line.notes.items()),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
