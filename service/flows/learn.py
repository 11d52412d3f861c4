"""Learn how long a model takes, so that the first question comes when a callback is overdue and not before."""

import contextlib

from service.domain import schedule
from service.domain.job import Job
from service.flows.runtime import Runtime
from service.storage import jobs

#: How long a learned delay is used before it is looked up again.
_FRESH_MS = 30_000


class Learned:
    """First delays by provider and model; what one process forgets is read from the attempts again."""

    def __init__(self) -> None:
        self._first_ms: dict[tuple[str, str], tuple[int, int | None]] = {}

    def first_ms(self, provider: str, model: str) -> int | None:
        """This function will tell the delay learned last; None when there is none yet."""
        return self._first_ms.get((provider, model), (0, None))[1]

    async def refresh(self, runtime: Runtime, provider: str, model: str) -> None:
        """This function will learn anew from past attempts, unless that was done a moment ago."""
        now_ms = runtime.now_ms()
        known = self._first_ms.get((provider, model))
        if known is not None and now_ms - known[0] < _FRESH_MS:
            return
        self._first_ms[provider, model] = (now_ms, known[1] if known else None)
        took = await runtime.door.read(lambda tx: jobs.durations_ms(tx, provider=provider, model=model))
        self._first_ms[provider, model] = (now_ms, schedule.learned_first_ms(took))


async def meanwhile(runtime: Runtime, job: Job) -> None:
    """This function will learn what the answer to a submit needs, while that is under way; it does not fail."""
    if runtime.public_url is None or runtime.timing.poll_after_ms is not None:
        return
    with contextlib.suppress(Exception):
        await runtime.learned.refresh(runtime, job.provider, job.model)


def first_ask_ms(runtime: Runtime, job: Job, now_ms: int) -> int:
    """This function will say when to ask first about a request of this job that is with the provider now.

    Without a public URL no callback can come, so asking starts at the provider's ordinary pace.
    """
    pace = runtime.providers[job.provider].pace
    if runtime.public_url is None and runtime.timing.poll_after_ms is None:
        set_ms: int | None = pace.interval_ms
    else:
        set_ms = runtime.timing.poll_after_ms
    return schedule.first_ask_ms(
        now_ms=now_ms,
        deadline_ms=job.deadline_ms,
        pace=pace,
        set_ms=set_ms,
        learned_ms=runtime.learned.first_ms(job.provider, job.model),
        jitter=runtime.chance(),
    )
