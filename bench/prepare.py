"""Makes jobs that wait for their callback, by the service's own flows, and writes their tokens and request ids.

Usage: python -m bench.prepare COUNT FILE, with the service's settings in the environment.
"""

import asyncio
import pickle
import sys
import uuid
from pathlib import Path

import orjson
import uvloop

from bench import samples
from service import wiring
from service.domain import exact_json, facts
from service.flows.accept import Request
from service.flows.advance import Step
from service.settings import Settings
from service.storage import migrate

_AT_ONCE = 1000
_FIRST_ASK_MS = 3_600_000


async def _queued(service: wiring.Service, number: int) -> tuple[str, str]:
    """One job, accepted, sent and taken, as far as the database knows."""
    runtime = service.runtime
    body = orjson.loads(samples.job_body(number))
    accepted = await service.accept(
        Request(
            tenant="default",
            cause="api:key_bench",
            provider=body["provider"],
            model=body["model"],
            input=body["input"],
            input_text=exact_json.dumps(body["input"]),
            deadline_s=86_400,
            archive=False,
            metadata=body["metadata"],
        )
    )
    attempt_id, request_id = runtime.make_id("att"), str(uuid.uuid4())
    started = facts.SubmitStarted(
        cause=facts.CAUSE_SUBMIT, attempt_id=attempt_id, secret_key_id=runtime.keys.current
    )
    taken = facts.SubmitAccepted(
        cause=facts.CAUSE_SUBMIT,
        attempt_id=attempt_id,
        provider_request_id=request_id,
        submitted_ms=runtime.now_ms(),
        ask_ms=runtime.now_ms() + _FIRST_ASK_MS,
    )
    await service.advance.tell([Step(job_id=accepted.job.id, fact=fact) for fact in (started, taken)])
    token = runtime.keys.token(runtime.keys.current, attempt_id)
    assert token is not None
    return token, request_id


async def main(count: int) -> list[tuple[str, str]]:
    """This function will make the jobs."""
    settings = Settings.load(env_file=None)
    made: list[tuple[str, str]] = []
    async with wiring.running(settings, work=False) as service:
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            made += await asyncio.gather(*(_queued(service, number) for number in numbers))
    return made


if __name__ == "__main__":
    migrate.upgrade(Settings.load(env_file=None).database_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        Path(sys.argv[2]).write_bytes(pickle.dumps(runner.run(main(int(sys.argv[1])))))
