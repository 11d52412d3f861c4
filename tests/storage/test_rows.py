"""Between rows and values nothing is lost: any job that can be is read back as it was written."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.domain import exact_json
from service.domain.exact_json import MAX_DEPTH
from service.domain.failures import ErrorCode, JobError, Waiting
from service.domain.ids import AttemptId, JobId
from service.domain.job import Attempt, Job
from service.domain.machine import TERMINAL
from service.domain.results import Image, Output
from service.domain.states import AttemptState, JobState, LearnedBy, OnUncertain, Priority
from service.storage import jobs
from service.storage.database import Driver, Tx
from service.storage.jobs import Change, NewJob, Stored
from service.storage.rows import attempt_of, attempt_values, job_of, job_values
from tests.storage.test_constraints import ROWS
from tests.storage.world import NOW, count_in, new_job, only

#: What no text of ours holds: JSON has no lone surrogates, and NUL is refused at the edge.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TIME = st.integers(0, 2**53)
USD = st.decimals(
    min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=24
) | st.decimals(min_value=0, max_value=100, places=4)
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**90), 2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


IMAGES = st.builds(
    Image,
    url=TEXT,
    content_type=maybe(TEXT),
    width=maybe(st.integers(0, 2**31)),
    height=maybe(st.integers(0, 2**31)),
    artifact_id=maybe(TEXT),
    sha256=maybe(TEXT),
    size_bytes=maybe(st.integers(0, 2**53)),
)
OUTPUTS = st.builds(
    Output,
    images=st.lists(IMAGES, max_size=3).map(tuple),
    seed=maybe(st.integers(0, 2**70).map(str)),
    raw=ANY_JSON,
)
ERRORS = st.builds(
    JobError,
    code=st.sampled_from(ErrorCode),
    message=TEXT,
    retryable=st.booleans(),
    provider_status=maybe(st.integers(100, 599)),
    provider_error=ANY_JSON,
)
WAITING = st.builds(Waiting, code=st.sampled_from(ErrorCode), message=TEXT, since_ms=TIME, next_try_ms=TIME)


@st.composite
def attempts(draw: st.DrawFn, number: int) -> Attempt:
    return Attempt(
        id=AttemptId(f"att_{number}"),
        number=number,
        provider=draw(TEXT),
        model=draw(TEXT),
        state=draw(st.sampled_from(AttemptState)),
        secret_key_id=draw(TEXT),
        started_ms=draw(TIME),
        postponed=draw(st.integers(0, 1_000)),
        postponed_since_ms=draw(maybe(TIME)),
        provider_request_id=draw(maybe(TEXT.map(lambda text: f"{number} {text}"))),
        links=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        queue_position=draw(maybe(st.integers(0, 10**6))),
        submitted_ms=draw(maybe(TIME)),
        completed_ms=draw(maybe(TIME)),
        learned_by=draw(maybe(st.sampled_from(LearnedBy))),
        lag_ms=draw(maybe(TIME)),
        cost_usd=draw(maybe(USD)),
        outcome=draw(maybe(st.sampled_from(AttemptState))),
        output=draw(maybe(OUTPUTS)),
    )


@st.composite
def whole_jobs(draw: st.DrawFn) -> Job:
    state = draw(st.sampled_from(JobState))
    count = draw(st.integers(0, 3))
    return Job(
        id=JobId("job_1"),
        tenant=draw(TEXT),
        provider=draw(TEXT),
        model=draw(TEXT),
        state=state,
        version=draw(st.integers(1, 2**40)),
        created_ms=draw(TIME),
        updated_ms=draw(TIME),
        deadline_ms=draw(TIME),
        deadline_s=draw(st.integers(10, 86_400)),
        on_uncertain=draw(st.sampled_from(OnUncertain)),
        priority=draw(st.sampled_from(Priority)),
        archive=draw(st.booleans()),
        metadata=draw(st.dictionaries(TEXT, TEXT, max_size=4)),
        retry_of=draw(maybe(TEXT.map(JobId))),
        estimated_usd=draw(maybe(USD)),
        completed_ms=draw(TIME) if state in TERMINAL else None,
        learned_by=draw(maybe(st.sampled_from(LearnedBy))),
        waiting=draw(maybe(WAITING)) if state is JobState.ACCEPTED else None,
        error=draw(ERRORS) if state in TERMINAL - {JobState.SUCCEEDED} else None,
        output=draw(OUTPUTS) if state is JobState.SUCCEEDED else None,
        attempts=tuple(draw(attempts(number)) for number in range(1, count + 1)),
    )


def without_raw(job: Job) -> Job:
    """Give a job as it is read: the raw part of an output is only read where it is shown."""

    def light(output: Output | None) -> Output | None:
        return None if output is None else replace(output, raw=None)

    lighter = tuple(replace(attempt, output=light(attempt.output)) for attempt in job.attempts)
    return replace(job, output=light(job.output), attempts=lighter)


class Undone(Exception):
    """Takes a transaction back that has been looked at."""


def written_and_read(driver: Driver, job: Job) -> tuple[Stored, jobs.Large]:
    """Insert a job as accepted, change it into what it is, and read it back, all in a transaction that is undone."""
    found: list[tuple[Stored, jobs.Large]] = []
    new = replace(
        job,
        state=JobState.ACCEPTED, version=1, completed_ms=None, waiting=None, error=None, output=None,
        attempts=(), learned_by=None,
    )  # fmt: skip

    def work(tx: Tx) -> None:
        jobs.insert_many(tx, [NewJob(Stored(new, 1, "h1", 1), '{"prompt":"a fox"}')])
        before = jobs.load(tx, [job.id], lock=True)[job.id]
        assert before == Stored(replace(new, updated_ms=job.updated_ms), 1, "h1", 1)
        hashes = {attempt.id: f"hash of {attempt.id}" for attempt in job.attempts}
        jobs.save_many(tx, [Change(before, Stored(job, 2, "h2", 7))], hashes)
        large = jobs.large(tx, job.id)
        assert large is not None
        found.append((jobs.load(tx, [job.id])[job.id], large))
        raise Undone

    [outcome] = driver.write([work])
    assert isinstance(outcome.error, Undone), outcome.error
    return found[-1]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole_jobs())
def test_any_job_is_read_as_it_was_written(driver: Driver, job: Job) -> None:
    stored, large = written_and_read(driver, job)
    assert stored == Stored(without_raw(job), 2, "h2", 7)
    assert large.input == '{"prompt":"a fox"}'
    if job.output is None:
        assert large.output_raw is None
    else:
        assert large.output_raw is not None
        assert exact_json.loads(large.output_raw) == job.output.raw
    raws = {attempt.id: attempt.output.raw for attempt in job.attempts if attempt.output is not None}
    assert {key: exact_json.loads(raw) for key, raw in large.attempt_outputs_raw.items()} == raws
    assert driver.read(lambda tx: count_in(tx, "job")) == 0


def test_an_attempt_is_changed_in_every_part_that_may_change(driver: Driver) -> None:
    first = Attempt(
        id=AttemptId("att_1"),
        number=1,
        provider="fal",
        model="m",
        state=AttemptState.SUBMITTING,
        secret_key_id="k",
        started_ms=NOW,
    )
    changed = replace(
        first,
        state=AttemptState.EXPIRED,
        started_ms=NOW + 1,
        postponed=3,
        postponed_since_ms=NOW + 2,
        provider_request_id="req",
        links={"status": "https://queue.fal.run/x"},
        queue_position=4,
        submitted_ms=NOW + 5,
        completed_ms=NOW + 6,
        learned_by=LearnedBy.POLL,
        lag_ms=7,
        cost_usd=Decimal("0.080"),
        outcome=AttemptState.SUCCEEDED,
        output=Output(images=(), seed="9", raw=None),
    )
    fixed = {"id", "number", "provider", "model", "secret_key_id"}
    assert {
        name for name in Attempt.__dataclass_fields__ if getattr(changed, name) == getattr(first, name)
    } == fixed
    before = new_job(state=JobState.SUBMITTING)
    stages = [before, replace(before, attempts=(first,)), replace(before, attempts=(changed,))]

    def work(tx: Tx) -> None:
        jobs.insert_many(tx, [NewJob(Stored(stages[0], 1, "h", 1), "{}")])
        for place, stage in enumerate(stages[1:], start=1):
            old = Stored(stages[place - 1], place, "h", 1)
            jobs.save_many(tx, [Change(old, Stored(stage, place + 1, "h", 1))], {"att_1": "t"})

    only(driver, work)
    [attempt] = driver.read(lambda tx: jobs.load(tx, ["job_1"]))["job_1"].job.attempts
    assert attempt == changed


@given(attempts(1))
def test_an_attempt_survives_its_row(attempt: Attempt) -> None:
    row = {**attempt_values(attempt), "number": 1, "provider": attempt.provider, "model": attempt.model}
    back = attempt_of({**row, "secret_key_id": attempt.secret_key_id})
    assert back == without_raw(new_job(attempts=(attempt,))).attempts[0]


@given(ERRORS, OUTPUTS)
@example(JobError(code=ErrorCode.INTERNAL, message="", provider_error={"seed": 2**80}), Output(images=()))
def test_columns_hold_only_plain_values(error: JobError, output: Output) -> None:
    """Nothing stands between the columns and the driver that would convert them."""
    failed = new_job(state=JobState.FAILED, completed_ms=NOW, error=error)
    values = {**job_values(failed), **job_values(new_job(output=output))}
    assert {type(value) for value in values.values()} <= {str, int, bool, type(None)}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1, MAX_DEPTH])
def test_what_may_be_received_can_be_kept(driver: Driver, depth: int) -> None:
    """A provider's strange answer, as deep as we read it, must not make its job unreadable."""
    strange = exact_json.loads(exact_json.dumps(nested(depth)))
    error = JobError(code=ErrorCode.PROVIDER_FAILED, message="It broke.", provider_error=strange)
    failed = new_job(state=JobState.FAILED, completed_ms=NOW, error=error)
    stored, _ = written_and_read(driver, failed)
    assert stored.job == failed
    succeeded = new_job(state=JobState.SUCCEEDED, completed_ms=NOW, output=Output(images=(), raw=strange))
    _, large = written_and_read(driver, succeeded)
    assert exact_json.loads(large.output_raw or "") == strange


def test_a_job_read_without_attempts_has_none() -> None:
    row = {**ROWS["job"], "learned_by": None, "estimated_usd": None, "metadata_json": '{"a":"1"}'}
    job = job_of(row, [])
    assert (job.attempts, job.metadata, job.archive) == ((), {"a": "1"}, True)
