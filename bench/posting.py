"""The limit of delivering: the service's own egress client posts one webhook again and again, and keeps no record.

Usage: python -m bench.posting URL FILE AT-ONCE SECONDS; the file holds `{"headers": ..., "body": ...}`.
"""

import asyncio
import gc
import ipaddress
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.processes import Broken
from service.egress import Egress
from service.providers.transport import tls_context

_LOCAL = ipaddress.ip_network("127.0.0.0/8")


async def main(url: str, sample: dict[str, Any], at_once: int, seconds: float) -> dict[str, float]:
    """This function will post for a while and tell how often a second, and with how much CPU each."""
    headers, body = sample["headers"], sample["body"].encode("latin-1")
    egress = Egress([_LOCAL], tls=tls_context())
    sent = 0

    async def keep_posting(until: float) -> None:
        nonlocal sent
        while time.monotonic() < until:
            answer = await egress.post(
                url, headers=headers, body=body, timeout_s=15.0, max_answer_bytes=65_536
            )
            if answer.status != 204:
                raise Broken(f"the consumer answered {answer.status}")
            sent += 1

    gc.freeze()
    began, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(keep_posting(began + seconds) for _ in range(at_once)))
    took_s, spent_s = time.monotonic() - began, time.process_time() - cpu_s
    await egress.aclose()
    return {"per_s": sent / took_s, "cpu_ms_each": 1000 * spent_s / sent}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(main(sys.argv[1], given, int(sys.argv[3]), float(sys.argv[4])))
    print(json.dumps(seen))
