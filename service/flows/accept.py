"""Take a job in: validated, idempotent, committed before it is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.domain.effects import WHOLE_JOB, Work
from service.domain.failures import FieldError
from service.domain.history import GENESIS, HistoryLine, chain
from service.domain.ids import JobId
from service.domain.job import Job
from service.domain.states import JobState, OnUncertain, Priority
from service.flows.advance import announcement
from service.flows.runtime import Runtime
from service.storage import events, history, idempotency, jobs, work
from service.storage.batch import Batch
from service.storage.database import Tx
from service.storage.jobs import NewJob, Stored


class IdempotencyMismatch(Exception):
    """The key was used before, for another body."""


class InputRefused(Exception):
    """The input of a known model is wrong; nothing was stored."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("the input is not valid for this model")
        self.errors = tuple(errors)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job as a caller asks for it, of checked types; `input_text` is the same input as JSON text."""

    tenant: str
    #: Who asked, for the history: `api:key_…` or `operator`.
    cause: str
    provider: str
    model: str
    input: Mapping[str, Any]
    input_text: str
    deadline_s: int = 3600
    priority: Priority = Priority.NORMAL
    on_uncertain: OnUncertain = OnUncertain.HOLD
    archive: bool = True
    metadata: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    #: SHA-256 of the canonical body; set where there is a key.
    body_hash: str = ""
    #: Where this job's own events go, too; checked by whoever asked.
    webhook_url: str | None = None
    retry_of: JobId | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job, and whether it was there before (same key and body, or the successor of the same job)."""

    job: Job
    replayed: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: Request
    job: Job
    line: HistoryLine


class Accept:
    """Accepts jobs, many to a commit."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batch = Batch(runtime.door, self._handle, lanes=1)

    async def __call__(self, request: Request) -> Accepted:
        """This function will commit a new job, or find the one that the same request made before.

        :raises InputRefused: if a known model would refuse the input.
        :raises IdempotencyMismatch: if the key stands for another body.
        :raises DatabaseUnavailable: if nothing could be committed.
        """
        provider = self._runtime.providers[request.provider]
        problems = provider.validate(request.model, request.input)
        if problems:
            raise InputRefused(problems)
        accepted = await self._batch(self._prepare(request))
        if accepted is None:
            raise IdempotencyMismatch
        if not accepted.replayed:
            self._runtime.measures.accepted.labels(request.provider).inc()
            self._runtime.bell.ring((Work.SUBMIT.value, "feed"))
        return accepted

    def _prepare(self, request: Request) -> _Prepared:
        runtime, now_ms = self._runtime, self._runtime.now_ms()
        job = Job(
            id=JobId(runtime.make_id("job")),
            tenant=request.tenant,
            provider=request.provider,
            model=request.model,
            state=JobState.ACCEPTED,
            version=1,
            created_ms=now_ms,
            updated_ms=now_ms,
            deadline_ms=now_ms + request.deadline_s * 1000,
            deadline_s=request.deadline_s,
            on_uncertain=request.on_uncertain,
            priority=request.priority,
            archive=request.archive,
            metadata=request.metadata or {},
            webhook_url=request.webhook_url,
            retry_of=request.retry_of,
            estimated_usd=runtime.providers[request.provider].estimate_usd(request.model, request.input),
        )
        return _Prepared(request, job, _first_line(runtime, request, job))

    def _handle(self, tx: Tx, items: list[_Prepared]) -> list[Accepted | None]:
        earlier = self._earlier(tx, items)
        new = [item for item in items if item.job.id not in earlier]
        self._insert(tx, new)
        found = jobs.load(tx, [job_id for job_id in earlier.values() if job_id is not None])
        out: list[Accepted | None] = []
        for item in items:
            if item.job.id not in earlier:
                out.append(Accepted(item.job, replayed=False))
            else:
                job_id = earlier[item.job.id]
                out.append(None if job_id is None else Accepted(found[job_id].job, replayed=True))
        return out

    def _earlier(self, tx: Tx, items: list[_Prepared]) -> dict[str, str | None]:
        """By new job id: the job that stands in its place, or None where the key stands for another body."""
        earlier: dict[str, str | None] = {}
        for item in items:
            if item.request.retry_of is not None:
                successor = jobs.successor(tx, item.request.retry_of)
                if successor is not None:
                    earlier[item.job.id] = successor
        keyed = sorted(
            (item for item in items if item.request.idempotency_key is not None),
            key=lambda item: (item.request.tenant, item.request.idempotency_key or "", item.job.id),
        )
        holders = idempotency.take(
            tx,
            [
                idempotency.Claimed(
                    tenant=item.request.tenant,
                    key=item.request.idempotency_key or "",
                    body_hash=item.request.body_hash,
                    job_id=item.job.id,
                    created_ms=item.job.created_ms,
                )
                for item in keyed
            ],
        )
        for item in keyed:
            holder = holders[item.request.tenant, item.request.idempotency_key or ""]
            if holder["job_id"] != item.job.id:
                same = holder["body_hash"] == item.request.body_hash
                earlier[item.job.id] = holder["job_id"] if same else None
        return earlier

    def _insert(self, tx: Tx, new: list[_Prepared]) -> None:
        if not new:
            return
        announced = [
            announcement(self._runtime, item.job, "job.accepted", 1, item.job.created_ms) for item in new
        ]
        jobs.insert_many(
            tx,
            [NewJob(Stored(item.job, 1, item.line.hash, 1), item.request.input_text) for item in new],
        )
        history.append(tx, [(item.job.tenant, item.line) for item in new])
        events.append(tx, announced)
        work.schedule(
            tx,
            [
                work.Scheduled(
                    item.job.id,
                    Work.SUBMIT,
                    WHOLE_JOB,
                    item.job.created_ms,
                    item.job.priority is Priority.LOW,
                )
                for item in new
            ],
        )


def _first_line(runtime: Runtime, request: Request, job: Job) -> HistoryLine:
    return chain(
        job_id=job.id,
        seq=1,
        at_ms=job.created_ms,
        type="job.accepted",
        cause=request.cause,
        moved=True,
        before=None,
        after=job.state.value,
        detail={"provider": job.provider, "model": job.model, "retry_of": job.retry_of},
        salt=runtime.salt(),
        prev=GENESIS,
    )
