"""Reconcile: look for a request of unknown fate in the provider's own listing.

Rule: a listing may adopt, never deny. Exactly one entry with equal input, sent in the window, that no other
attempt holds, is ours; none or several leave the attempt uncertain.
"""

from service.domain import exact_json, facts
from service.domain.job import Job
from service.domain.schedule import backoff_ms
from service.domain.states import AttemptState
from service.flows import learn
from service.flows.advance import Advance, Step
from service.flows.runtime import Runtime
from service.flows.subjects import attempt_of, without_subject
from service.providers.base import Listed, Search
from service.storage import jobs, work
from service.storage.database import Tx
from service.storage.drivers import CONSTRAINT_ERRORS
from service.storage.work import Due

#: The clocks of the provider and of this machine may differ by so much.
_CLOCK_SLACK_MS = 10_000
#: A request leaves within 5 s of its intent and is answered or given up within 30 s.
_WINDOW_MS = 35_000


async def reconcile(runtime: Runtime, advance: Advance, due: Due) -> None:
    """This function will look once for a lost request and adopt it, or say when to look again."""

    def look(tx: Tx) -> tuple[Job | None, str]:
        stored = jobs.load(tx, [due.job_id]).get(due.job_id)
        return (stored.job, jobs.inputs(tx, [due.job_id])[due.job_id]) if stored else (None, "")

    job, input_text = await runtime.door.read(look)
    attempt = attempt_of(job, due.number) if job else None
    adapter = runtime.providers.get(job.provider) if job else None
    talk = None
    if job and attempt and adapter and attempt.state is AttemptState.UNCERTAIN:
        talk = adapter.find(
            Search(
                attempt_id=attempt.id,
                model=attempt.model,
                input=exact_json.loads(input_text),
                from_ms=attempt.started_ms - _CLOCK_SLACK_MS,
                until_ms=attempt.started_ms + _WINDOW_MS + _CLOCK_SLACK_MS,
            )
        )
    if talk is None or job is None or attempt is None:
        await without_subject(runtime, due, job)
        return
    listed: tuple[Listed, ...] = await runtime.talks[job.provider].run(talk)
    if await _adopted(runtime, advance, job, attempt.id, listed):
        return
    later = runtime.now_ms() + backoff_ms(
        tries=due.tries, base_ms=4_000, cap_ms=60_000, jitter=runtime.chance()
    )
    await runtime.door.write(lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=later))


async def _adopted(
    runtime: Runtime, advance: Advance, job: Job, attempt_id: str, listed: tuple[Listed, ...]
) -> bool:
    def unheld(tx: Tx) -> list[Listed]:
        return [
            entry
            for entry in listed
            if jobs.holder_of(tx, provider=job.provider, request_id=entry.provider_request_id) is None
        ]

    free = await runtime.door.read(unheld) if listed else []
    if len(free) != 1:
        return False
    adopted = facts.SubmitAccepted(
        cause=facts.CAUSE_POLL,
        attempt_id=attempt_id,
        provider_request_id=free[0].provider_request_id,
        submitted_ms=free[0].sent_ms,
        ask_ms=min(runtime.now_ms(), learn.first_ask_ms(runtime, job, runtime.now_ms())),
    )
    try:
        await advance.tell(
            [Step(job_id=job.id, fact=adopted, evidence={"found_in": "the provider's listing"})]
        )
    except CONSTRAINT_ERRORS:
        return False
    return True
