"""Poll: ask the provider about a request whose callback has not come; the ordinary path with another cause."""

from dataclasses import dataclass, replace

from service.domain import facts
from service.domain.job import Attempt, Job
from service.domain.machine import LATE_ASKS_MS, TERMINAL
from service.domain.schedule import next_ask_ms
from service.domain.states import AttemptState
from service.flows.advance import Advance, Step
from service.flows.runtime import Runtime
from service.flows.subjects import attempt_of, subject_of, without_subject
from service.providers.base import NoNews, Subject
from service.storage import work
from service.storage.drivers import CONSTRAINT_ERRORS
from service.storage.work import Due


async def ask(runtime: Runtime, advance: Advance, due: Due) -> None:
    """This function will ask once and record what it brought, or when to ask again."""
    subject, job = await subject_of(runtime, due)
    if subject is None or job is None:
        await without_subject(runtime, due, job)
        return
    adapter = runtime.providers[job.provider]
    answer: tuple[facts.Fact, ...] | NoNews = await runtime.talks[job.provider].run(adapter.ask(subject))
    told = answer.facts if isinstance(answer, NoNews) else answer
    runtime.measures.calls.labels(job.provider, "ask", "news" if told else "no_news").inc()
    await _tell(runtime, advance, _Question(job, due, subject), told)
    if isinstance(answer, NoNews):
        await _again(runtime, job, due, answer)
        return
    await runtime.learned.refresh(runtime, job.provider, job.model)


@dataclass(frozen=True, slots=True)
class _Question:
    job: Job
    due: Due
    subject: Subject


async def _tell(
    runtime: Runtime, advance: Advance, question: _Question, told: tuple[facts.Fact, ...]
) -> None:
    """Record the facts that are news. An id that only a callback had claimed is proved by the provider's answer."""
    job, due, subject = question.job, question.due, question.subject
    attempt = attempt_of(job, due.number)
    assert attempt is not None, "there is a subject"
    named = [replace(fact, cause=facts.CAUSE_POLL, attempt_id=subject.attempt_id) for fact in told]
    news: list[facts.Fact] = [fact for fact in named if not _known(fact, attempt)]
    if told and attempt.provider_request_id is None:
        news.insert(
            0,
            facts.SubmitAccepted(
                cause=facts.CAUSE_POLL,
                attempt_id=subject.attempt_id,
                provider_request_id=subject.provider_request_id,
                ask_ms=runtime.now_ms() + runtime.providers[job.provider].pace.interval_ms,
            ),
        )
    if not news:
        return
    try:
        await advance.tell([Step(job_id=job.id, fact=fact) for fact in news])
    except CONSTRAINT_ERRORS:
        if attempt.provider_request_id is not None:
            raise
        # The claimed id belongs to another attempt after all: it was never ours to ask about.
        await runtime.door.write(lambda tx: work.done(tx, due, mine=runtime.process_id))


def _known(fact: facts.Fact, attempt: Attempt) -> bool:
    match fact:
        case facts.ProviderStarted():
            return attempt.state is AttemptState.RUNNING
        case facts.ProviderQueued():
            moved_up = fact.queue_position not in (None, attempt.queue_position)
            return attempt.state is AttemptState.QUEUED and not moved_up
    return False


async def _again(runtime: Runtime, job: Job, due: Due, answer: NoNews) -> None:
    now_ms = runtime.now_ms()
    if job.state in TERMINAL:
        assert job.completed_ms is not None, "a final job has an end"
        left = [job.completed_ms + after for after in LATE_ASKS_MS if job.completed_ms + after > now_ms]
        if not left:
            await runtime.door.write(lambda tx: work.done(tx, due, mine=runtime.process_id))
            return
        later = left[0]
    else:
        later = next_ask_ms(
            now_ms=now_ms,
            deadline_ms=job.deadline_ms,
            pace=runtime.providers[job.provider].pace,
            asked=due.tries,
            retry_after_ms=answer.retry_after_ms,
            jitter=runtime.chance(),
        )
    await runtime.door.write(lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=later))
