"""Programs that wait for their own jobs: `fal` by fal's client, which polls, `fluxgate` by ours.

Usage: python -m bench.waiters fal|fluxgate WAITERS JOBS-EACH [URL]. Prints who was known to be over when: pairs of
the provider's request id (`fal`) or the job's id (`fluxgate`) and seconds since the epoch.
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from bench import samples
from bench.gate import API_KEY

_Known = list[tuple[str, float]]


def _polled(waiters: int, each: int) -> _Known:
    # It reads the environment as it is imported, and nobody else here needs it.
    import fal_client

    def follow(_: int) -> _Known:
        known: _Known = []
        for number in range(each):
            job, ids = json.loads(samples.job_body(number)), list[str]()
            fal_client.subscribe(job["model"], job["input"], on_enqueue=ids.append)
            known.append((ids[0], time.time()))
        return known

    with ThreadPoolExecutor(waiters) as threads:
        return [pair for known in threads.map(follow, range(waiters)) for pair in known]


async def _told(url: str, waiters: int, each: int) -> _Known:
    # In the other kind of process it would only cost.
    from service.client import Fluxgate

    async def follow(client: Fluxgate) -> _Known:
        known: _Known = []
        for number in range(each):
            job = json.loads(samples.job_body(number))
            submitted = await client.submit(
                provider=job["provider"], model=job["model"], input=job["input"], archive=False
            )
            await submitted.result(timeout=60)
            known.append((submitted.id, time.time()))
        return known

    async with Fluxgate(url, API_KEY) as client:
        found = await asyncio.gather(*(follow(client) for _ in range(waiters)))
    return [pair for known in found for pair in known]


if __name__ == "__main__":
    how_many, jobs_each = int(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "fal":
        print(json.dumps(_polled(how_many, jobs_each)))
    else:
        print(json.dumps(asyncio.run(_told(sys.argv[4], how_many, jobs_each))))
