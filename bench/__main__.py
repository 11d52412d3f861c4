"""`python -m bench`: measure, print, and write `bench/results.md` and `bench/results.json`. Asserts no speed."""

import argparse
import os
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, options, report
from bench.databases import NAMES, opened
from bench.processes import Broken
from bench.rows import ROWS

_HERE = Path(__file__).parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 3 minutes, rougher figures")
    parser.add_argument("--only", choices=ROWS, action="append", help="only this measurement (repeatable)")
    parser.add_argument("--database", choices=NAMES, action="append", help="only this database")
    parser.add_argument(
        "--out", type=Path, help="where to write the results of a run that leaves something out"
    )
    return parser.parse_args()


def _measured(given: argparse.Namespace, folder: Path, found: report.Report) -> None:
    size = options.quick(folder) if given.quick else options.Options(folder=folder)
    for name in given.database or NAMES:
        with opened(name, folder) as database:
            shown = ", ".join(f"{key} {value}" for key, value in database.settings.items())
            found.databases[name] = f"{database.version}, {shown}"
            for row in given.only or ROWS:
                print(f"{name}: {row}", flush=True)
                for line in ROWS[row](database, size):
                    print(*report.table([line])[2:], sep="\n", flush=True)
                    found.lines.append(line)


def main() -> int:
    """This function will run the bench and return 0, or 1 when something did not work (never: was slow)."""
    given = _arguments()
    # So that the processes we started are stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    found = report.Report(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.described(),
        quick=given.quick,
        load_before=round(os.getloadavg()[0], 2),
    )
    with tempfile.TemporaryDirectory(prefix="fluxgate-bench-") as folder:
        Path(folder).chmod(0o755)
        try:
            _measured(given, Path(folder), found)
        except Broken as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    found.took_s = round(time.monotonic() - began, 1)
    print("\n".join(["", *report.table(found.lines), "", f"took {found.took_s} s"]))
    out = given.out or (None if given.only or given.database else _HERE)
    if out is not None:
        found.write(out)
        print(f"written: {out / 'results.md'}, {out / 'results.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
