"""Archive: keep the result files before the provider forgets them, and say so when one is gone for good."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from service.domain import facts
from service.domain.effects import Work
from service.domain.job import Job
from service.domain.results import Image
from service.domain.schedule import backoff_ms
from service.flows.advance import Advance, Step
from service.flows.fetch import Gone, Later, fetch
from service.flows.runtime import Runtime
from service.flows.subjects import attempt_of
from service.providers.base import NoNews, Subject
from service.storage import artifacts, jobs, work
from service.storage.artifacts import Artifact
from service.storage.database import Tx
from service.storage.work import Due

#: With the backoff below this goes on for about half an hour, longer than any provider's URL lives.
_TRIES = 30


@dataclass(frozen=True, slots=True)
class _Task:
    job: Job
    attempt_id: str
    wanted: tuple[Artifact, ...]


async def archive(runtime: Runtime, advance: Advance, due: Due) -> None:
    """This function will fetch a job's result files, tell what became of them, or try again later."""
    task = await _task(runtime, due)
    if task is None:
        await runtime.door.write(lambda tx: work.done(tx, due, mine=runtime.process_id))
        return
    later: Later | None = None
    for artifact in task.wanted:
        if artifact.state != "wanted":
            continue
        outcome = await _fetched(runtime, task, artifact, due)
        if isinstance(outcome, Later) and due.tries + 1 < _TRIES:
            # The other files do not wait for this one: their URLs may die meanwhile.
            later = outcome
            continue
        saved = outcome if isinstance(outcome, Artifact) else replace(artifact, state="gone")
        await runtime.door.write(partial(artifacts.save, artifact=saved))
    if later is not None:
        await _put_off(runtime, due, later)
        return
    await _tell(runtime, advance, task, due)


async def _task(runtime: Runtime, due: Due) -> _Task | None:
    """Note which files are wanted (once) and read how far they are."""

    def note(tx: Tx) -> _Task | None:
        stored = jobs.load(tx, [due.job_id]).get(due.job_id)
        job = stored.job if stored else None
        attempt = attempt_of(job, due.number) if job else None
        if job is None or attempt is None or job.output is None:
            return None
        artifacts.want(
            tx,
            [
                Artifact(
                    id=runtime.make_id("art"),
                    job_id=job.id,
                    attempt_id=attempt.id,
                    tenant=job.tenant,
                    position=position,
                    state="wanted",
                    source_url=image.url,
                    content_type=image.content_type,
                    created_ms=runtime.now_ms(),
                )
                for position, image in enumerate(job.output.images)
            ],
        )
        return _Task(job, attempt.id, tuple(artifacts.of_job(tx, job.id)))

    return await runtime.door.write(note)


async def _fetched(runtime: Runtime, task: _Task, artifact: Artifact, due: Due) -> Artifact | Gone | Later:
    """Fetch one file; when its URL is dead, ask the provider once for another."""
    if task.job.provider not in runtime.providers:
        return Later("the provider is switched off")
    outcome = await fetch(runtime, task.job.provider, artifact)
    if not isinstance(outcome, Gone):
        return outcome
    fresh = await _fresh_urls(runtime, task, due)
    if isinstance(fresh, Later):
        return fresh
    renewed = fresh.get(artifact.position)
    if renewed is None or renewed == artifact.source_url:
        return outcome
    return await fetch(runtime, task.job.provider, replace(artifact, source_url=renewed))


async def _fresh_urls(runtime: Runtime, task: _Task, due: Due) -> dict[int, str] | Later:
    """Ask the provider for the result again: its URLs may be signed anew. No answer says nothing of the file."""
    attempt = attempt_of(task.job, due.number)
    if attempt is None or attempt.provider_request_id is None:
        return {}
    subject = Subject(
        attempt_id=attempt.id,
        model=attempt.model,
        provider_request_id=attempt.provider_request_id,
        links=attempt.links,
        open=False,
        now_ms=runtime.now_ms(),
    )
    provider = task.job.provider
    answer: Sequence[facts.Fact] | NoNews = await runtime.talks[provider].run(
        runtime.providers[provider].ask(subject)
    )
    if isinstance(answer, NoNews):
        return Later(answer.reason, answer.retry_after_ms)
    for fact in answer:
        if isinstance(fact, facts.ProviderSucceeded):
            return {position: image.url for position, image in enumerate(fact.output.images)}
    return {}


async def _put_off(runtime: Runtime, due: Due, later: Later) -> None:
    at_ms = runtime.now_ms() + backoff_ms(
        tries=due.tries,
        base_ms=1_000,
        cap_ms=60_000,
        jitter=runtime.chance(),
        retry_after_ms=later.retry_after_ms,
    )
    await runtime.door.write(lambda tx: work.put_off(tx, due, mine=runtime.process_id, due_ms=at_ms))


async def _tell(runtime: Runtime, advance: Advance, task: _Task, due: Due) -> None:
    found = await runtime.door.read(lambda tx: artifacts.of_job(tx, task.job.id))
    assert task.job.output is not None, "there was one"
    images = tuple(
        _kept_image(image, artifact) for image, artifact in zip(task.job.output.images, found, strict=True)
    )
    gone = [artifact.position for artifact in found if artifact.state == "gone"]
    steps = []
    if len(gone) < len(found):
        kept = facts.ResultKept(cause=facts.CAUSE_CLOCK, attempt_id=task.attempt_id, images=images)
        steps.append(Step(job_id=task.job.id, fact=kept))
    if gone:
        reason = f"no longer to be had from the provider: file {', '.join(str(place + 1) for place in gone)}"
        lost = facts.ResultLost(cause=facts.CAUSE_CLOCK, attempt_id=task.attempt_id, reason=reason)
        steps.append(Step(job_id=task.job.id, fact=lost))
    await advance.tell(steps)
    await runtime.door.write(lambda tx: work.drop(tx, [(due.job_id, Work.ARCHIVE, due.number)]))


def _kept_image(image: Image, artifact: Artifact) -> Image:
    if artifact.state != "kept":
        return image
    return replace(
        image,
        artifact_id=artifact.id,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        content_type=artifact.content_type,
    )
