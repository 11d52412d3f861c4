"""The diagram of the machine, drawn from its table: `python -m service.domain.diagram`."""

import sys
from collections.abc import Mapping

from service.domain import facts
from service.domain.machine import TERMINAL, TRANSITIONS
from service.domain.states import JobState

_Row = Mapping[type[facts.Fact], JobState]


def _open_rows() -> dict[JobState, _Row]:
    return {state: row for state, row in TRANSITIONS.items() if row}


def _shared(rows: Mapping[JobState, _Row]) -> dict[type[facts.Fact], JobState]:
    """The moves that every state that is not final has: drawn once, from the box around them."""
    first, *others = rows.values()
    return {fact: target for fact, target in first.items() if all(row.get(fact) is target for row in others)}


def mermaid() -> str:
    """This function will draw `TRANSITIONS` as a Mermaid state diagram, the same text every time."""
    rows = _open_rows()
    shared = _shared(rows)
    lines = ["stateDiagram-v2", '    state "not final" as open {', f"        [*] --> {JobState.ACCEPTED}"]
    for state, row in rows.items():
        own = {fact: target for fact, target in row.items() if fact not in shared}
        lines += [f"        {state} --> {target}: {fact.type}" for fact, target in own.items()]
    lines.append("    }")
    lines += [f"    open --> {target}: {fact.type}" for fact, target in shared.items()]
    lines += [f"    {state} --> [*]" for state in TRANSITIONS if state in TERMINAL]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(mermaid())
