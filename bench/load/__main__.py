"""Reads one specification from stdin, sends, and writes what it saw to stdout; both are JSON."""

import asyncio
import gc
import json
import sys
import time
from typing import Any

import uvloop

from bench.load.loops import Loop, Plan, Seen
from bench.load.sources import requests
from bench.numbers import percentiles_ms


async def _main(spec: dict[str, Any]) -> tuple[Seen, float]:
    source = requests(spec["source"], f"{spec['host']}:{spec['port']}")
    gc.freeze()
    loop, before = Loop(Plan(**spec["plan"]), source), time.process_time()
    seen = await loop.run(spec["host"], spec["port"])
    return seen, time.process_time() - before


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        came, cpu_s = runner.run(_main(json.load(sys.stdin)))
    json.dump(
        {
            "sent": came.sent,
            "answered": came.answered,
            "statuses": came.statuses,
            "per_s": came.counted / came.window_s,
            "window_s": came.window_s,
            "took_ms": percentiles_ms(came.took_s),
            "cpu_s": cpu_s,
            "first_at": came.first_at,
            "last_at": came.last_at,
        },
        sys.stdout,
    )
