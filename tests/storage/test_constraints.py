"""The constraints that stand behind the machine: what it never does, the databases refuse."""

from collections.abc import Mapping
from typing import Any

from service.domain.callback import Verdict
from service.domain.effects import Work
from service.domain.endpoint import Disabled
from service.domain.machine import TERMINAL
from service.domain.states import AttemptState, JobState
from service.storage.database import Driver, Tx
from service.storage.drivers import CONSTRAINT_ERRORS
from service.storage.tables import METADATA
from tests.storage.world import NOW, count_in, only, put, rows_in

ROWS: dict[str, dict[str, Any]] = {
    "job": {
        "id": "job_1", "tenant": "default", "provider": "fal", "model": "m", "state": "queued", "version": 1,
        "priority": "normal", "on_uncertain": "hold", "archive": True, "input": "{}", "metadata_json": "{}",
        "retry_of": "job_0", "deadline_s": 60, "deadline_ms": NOW, "created_ms": NOW, "updated_ms": NOW,
        "completed_ms": None, "waiting": None, "error": None, "output": None, "history_seq": 1,
        "history_hash": "h", "event_seq": 1, "webhook_url": None,
    },
    "job_tag": {"job_id": "job_1", "key": "k", "tenant": "default", "value": "v"},
    "attempt": {
        "id": "att_1", "job_id": "job_1", "number": 1, "provider": "fal", "model": "m", "state": "queued",
        "token_hash": "t1", "secret_key_id": "k", "started_ms": NOW, "provider_request_id": "req_1",
    },
    "work": {
        "job_id": "job_1", "kind": "ask", "number": 1, "queue": "ask", "due_ms": NOW, "tries": 0, "claim": None,
    },
    "callback": {
        "id": "cb_1", "job_id": "job_1", "attempt_id": "att_1", "received_ms": NOW, "verdict": "verified",
        "reason": "", "status": 200, "key_id": None, "body_sha256": "s", "headers": "{}", "body": b"{}",
    },
    "history": {
        "job_id": "job_1", "seq": 1, "tenant": "default", "at_ms": NOW, "type": "job.accepted", "cause": "api:k",
        "moved": True, "before": None, "after": "accepted", "detail": "{}", "salt": "00", "commitment": "c",
        "prev": "p", "hash": "h",
    },
    "event": {
        "id": "evt_1", "seq": 1, "tenant": "default", "type": "job.accepted", "job_id": "job_1", "job_seq": 1,
        "at_ms": NOW, "data": "{}",
    },
    "idempotency": {"tenant": "default", "key": "k", "body_hash": "h", "job_id": "job_1", "created_ms": NOW},
    "api_key": {
        "id": "key_1", "tenant": "default", "name": "n", "secret_hash": "h", "scopes": "", "created_ms": NOW,
        "revoked_ms": None,
    },
    "artifact": {
        "id": "art_1", "job_id": "job_1", "attempt_id": "att_1", "tenant": "default", "position": 0,
        "state": "wanted", "source_url": "https://files.example/1.png", "sha256": None, "created_ms": NOW,
    },
    "endpoint": {
        "id": "ep_1", "tenant": "default", "url": "https://consumer.example/", "job_key": None, "types": "[]",
        "description": "", "state": "active", "disabled_reason": None, "format": "standard", "signatures": "v1",
        "concurrency": 16, "rate_per_s": None, "secret": "s", "created_ms": NOW, "updated_ms": NOW, "failures": 0,
        "replay_after": None, "replay_until": None, "version": 1, "due_ms": None, "claim": None,
    },
    "delivery": {
        "id": "dlv_1", "tenant": "default", "endpoint_id": "ep_1", "event_id": "evt_1", "event_seq": 1,
        "event_type": "job.queued", "job_id": "job_1", "state": "pending", "created_ms": NOW, "next_ms": NOW,
        "tries": 0, "step": 0, "completed_ms": None, "status": None, "error": None,
    },
    "delivery_try": {
        "delivery_id": "dlv_1", "number": 1, "at_ms": NOW, "took_ms": 1, "status": 500, "error": None, "answer": None,
    },
    "tenant_secret": {"tenant": "default", "secret": "s", "created_ms": NOW, "updated_ms": NOW},
    "sink": {"name": "nats", "seq": 0, "claim": None, "until_ms": None},
}  # fmt: skip
ENDED_BADLY = sorted(TERMINAL - {JobState.SUCCEEDED})

#: Changes of the row above that the machine never makes. What is unique is made free first, where it is not meant.
FREE_JOB = {"id": "job_2", "retry_of": None}
FREE_ATTEMPT = {"id": "att_2", "number": 2, "token_hash": "t2", "provider_request_id": "req_2"}
FREE_CALLBACK = {"id": "cb_2"}
FREE_EVENT = {"id": "evt_2", "seq": 2, "job_seq": 2}
FREE_ARTIFACT = {"id": "art_2", "position": 1}
FREE_KEY = {"id": "key_2", "secret_hash": "h2"}
FREE_ENDPOINT = {"id": "ep_2"}
FREE_DELIVERY = {"id": "dlv_2", "event_id": "evt_2"}
FOR_JOBS = {"job_key": "k", "secret": None}
IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("job", {**FREE_JOB, "state": "lost"}),
    ("job", {**FREE_JOB, "state": "QUEUED"}),
    ("job", {**FREE_JOB, "state": ""}),
    ("job", {**FREE_JOB, "id": "job_1"}),
    ("job", {**FREE_JOB, "retry_of": "job_0"}),
    ("job", {**FREE_JOB, "completed_ms": NOW}),
    ("job", {**FREE_JOB, "waiting": "{}"}),
    ("job", {**FREE_JOB, "state": "succeeded", "completed_ms": NOW}),
    ("job", {**FREE_JOB, "state": "succeeded", "output": "{}"}),
    *[("job", {**FREE_JOB, "state": state, "completed_ms": NOW}) for state in ENDED_BADLY],
    *[("job", {**FREE_JOB, "state": state, "error": "{}"}) for state in ENDED_BADLY],
    *[
        ("job", {**FREE_JOB, "state": state, "waiting": "{}"})
        for state in ("submitting", "uncertain", "running")
    ],
    *[
        ("job", {**FREE_JOB, name: None})
        for name in ("tenant", "version", "history_seq", "deadline_ms", "input")
    ],
    ("job_tag", {"job_id": "job_of_nobody"}),
    ("job_tag", {"value": "another"}),
    ("attempt", {**FREE_ATTEMPT, "state": "accepted"}),
    ("attempt", {**FREE_ATTEMPT, "state": "lost"}),
    ("attempt", {**FREE_ATTEMPT, "job_id": "job_of_nobody"}),
    ("attempt", {**FREE_ATTEMPT, "id": "att_1"}),
    ("attempt", {**FREE_ATTEMPT, "number": 1}),
    ("attempt", {**FREE_ATTEMPT, "token_hash": "t1"}),
    ("attempt", {**FREE_ATTEMPT, "provider_request_id": "req_1"}),
    ("attempt", {**FREE_ATTEMPT, "secret_key_id": None}),
    ("work", {"number": 2, "kind": "rest"}),
    ("work", {}),
    ("work", {"job_id": "job_of_nobody"}),
    ("work", {"number": 2, "due_ms": None}),
    ("callback", {**FREE_CALLBACK, "verdict": "believed"}),
    ("callback", {**FREE_CALLBACK, "id": "cb_1"}),
    ("callback", {**FREE_CALLBACK, "job_id": "job_of_nobody"}),
    ("callback", {**FREE_CALLBACK, "body": None}),
    ("history", {}),
    ("history", {"seq": 2, "hash": None}),
    ("event", {**FREE_EVENT, "seq": 1}),
    ("event", {**FREE_EVENT, "job_seq": 1}),
    ("event", {**FREE_EVENT, "data": None}),
    ("idempotency", {"job_id": "job_2"}),
    ("idempotency", {"key": "k2", "body_hash": None}),
    ("api_key", {**FREE_KEY, "secret_hash": "h"}),
    ("api_key", {**FREE_KEY, "id": "key_1"}),
    ("artifact", {**FREE_ARTIFACT, "state": "lost"}),
    ("artifact", {**FREE_ARTIFACT, "state": "kept"}),
    ("artifact", {**FREE_ARTIFACT, "position": 0}),
    ("artifact", {**FREE_ARTIFACT, "job_id": "job_of_nobody"}),
    ("endpoint", {}),
    ("endpoint", {**FREE_ENDPOINT, "state": "lost"}),
    ("endpoint", {**FREE_ENDPOINT, "state": "disabled"}),
    ("endpoint", {**FREE_ENDPOINT, "state": "disabled", "disabled_reason": "bored"}),
    ("endpoint", {**FREE_ENDPOINT, "disabled_reason": "gone"}),
    ("endpoint", {**FREE_ENDPOINT, "format": "xml"}),
    ("endpoint", {**FREE_ENDPOINT, "secret": None}),
    ("endpoint", {**FREE_ENDPOINT, "job_key": "k"}),
    ("endpoint", {**FREE_ENDPOINT, "concurrency": 0}),
    ("endpoint", {**FREE_ENDPOINT, "concurrency": 65}),
    ("endpoint", {**FREE_ENDPOINT, "rate_per_s": 0}),
    ("endpoint", {**FREE_ENDPOINT, "rate_per_s": 1001}),
    ("endpoint", {**FREE_ENDPOINT, "replay_after": 1}),
    ("endpoint", {**FREE_ENDPOINT, "replay_until": 1}),
    ("delivery", {**FREE_DELIVERY, "state": "lost"}),
    ("delivery", {**FREE_DELIVERY, "completed_ms": NOW}),
    ("delivery", {**FREE_DELIVERY, "state": "dead"}),
    ("delivery", {**FREE_DELIVERY, "state": "succeeded"}),
    ("delivery", {"id": "dlv_2"}),
    ("delivery", {**FREE_DELIVERY, "id": "dlv_1"}),
    ("delivery_try", {}),
    ("delivery_try", {"delivery_id": "dlv_of_nobody"}),
    ("tenant_secret", {"secret": "another"}),
    ("sink", {"seq": 1}),
]
POSSIBLE: list[tuple[str, dict[str, Any]]] = [
    *[("job", {**FREE_JOB, "state": state}) for state in sorted(set(JobState) - TERMINAL)],
    ("job", {**FREE_JOB, "state": "accepted", "waiting": "{}"}),
    ("job", {**FREE_JOB, "state": "succeeded", "completed_ms": NOW, "output": "{}"}),
    *[("job", {**FREE_JOB, "state": state, "completed_ms": NOW, "error": "{}"}) for state in ENDED_BADLY],
    *[("attempt", {**FREE_ATTEMPT, "state": state}) for state in sorted(AttemptState)],
    ("attempt", {**FREE_ATTEMPT, "provider_request_id": None}),
    ("attempt", {**FREE_ATTEMPT, "provider_request_id": "req_1", "provider": "bfl"}),
    *[("work", {"number": 2, "kind": kind}) for kind in sorted(Work)],
    *[("callback", {**FREE_CALLBACK, "verdict": verdict}) for verdict in sorted(Verdict)],
    ("history", {"seq": 2, "job_id": "job_of_nobody"}),
    ("event", {**FREE_EVENT, "job_id": None, "job_seq": None}),
    ("idempotency", {"tenant": "other"}),
    ("artifact", {**FREE_ARTIFACT, "state": "kept", "sha256": "s"}),
    ("artifact", {**FREE_ARTIFACT, "state": "gone"}),
    ("endpoint", {**FREE_ENDPOINT, **FOR_JOBS}),
    ("endpoint", {**FREE_ENDPOINT, "state": "paused"}),
    *[("endpoint", {**FREE_ENDPOINT, "state": "disabled", "disabled_reason": why}) for why in sorted(Disabled)],
    *[("endpoint", {**FREE_ENDPOINT, "concurrency": count, "rate_per_s": count}) for count in (1, 64)],
    ("endpoint", {**FREE_ENDPOINT, "rate_per_s": 1000, "format": "cloudevents"}),
    ("endpoint", {**FREE_ENDPOINT, "replay_after": 0, "replay_until": 9}),
    *[("delivery", {**FREE_DELIVERY, "state": state, "completed_ms": NOW}) for state in ("succeeded", "dead")],
    ("delivery", {**FREE_DELIVERY, "job_id": None}),
    ("delivery", {"id": "dlv_2", "endpoint_id": "ep_2"}),
    ("delivery_try", {"number": 2, "status": None}),
]  # fmt: skip


def given(tx: Tx) -> None:
    for table, values in ROWS.items():
        put(tx, table, values)


def refused(driver: Driver, table: str, row: Mapping[str, Any]) -> bool:
    [outcome] = driver.write([lambda tx: put(tx, table, row)])
    return isinstance(outcome.error, CONSTRAINT_ERRORS)


def taken(driver: Driver, table: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a row is taken beside the given ones; nothing stays."""

    def both(tx: Tx) -> None:
        given(tx)
        put(tx, table, row)
        raise Undone(count_in(tx, table))

    [outcome] = driver.write([both])
    return isinstance(outcome.error, Undone) and outcome.error.args == (2,)


def test_what_the_machine_never_writes_is_refused(driver: Driver) -> None:
    only(driver, given)
    believed = [(t, changes) for t, changes in IMPOSSIBLE if not refused(driver, t, {**ROWS[t], **changes})]
    assert believed == []
    assert {
        table: driver.read(lambda tx, table=table: count_in(tx, table)) for table in ROWS
    } == dict.fromkeys(ROWS, 1)


def test_what_the_machine_writes_is_taken(driver: Driver) -> None:
    assert [(t, changes) for t, changes in POSSIBLE if not taken(driver, t, {**ROWS[t], **changes})] == []


class Undone(Exception):
    """Takes a transaction back that went as it should."""


def test_the_history_and_the_events_outlive_their_job(driver: Driver) -> None:
    only(driver, given)
    job = METADATA.tables["job"]
    only(driver, lambda tx: tx.run(job.delete().where(job.c.id == "job_1")))
    left = {table: driver.read(lambda tx, table=table: count_in(tx, table)) for table in ROWS}
    gone = {"job", "job_tag", "attempt", "work", "callback", "artifact"}
    assert left == {table: 0 if table in gone else 1 for table in ROWS}


def test_every_table_is_here_with_a_row(driver: Driver) -> None:
    assert set(ROWS) == set(METADATA.tables) - {"counter"}
    counters = driver.read(lambda tx: rows_in(tx, "counter"))
    assert {row["name"]: row["value"] for row in counters} == {"event_seq": 0, "fan_out": 0, "pruned_seq": 0}


def test_the_endpoints_of_jobs_are_one_for_each_tenant_and_url(driver: Driver) -> None:
    own = {**ROWS["endpoint"], **FOR_JOBS}
    only(driver, lambda tx: put(tx, "endpoint", own))
    assert refused(driver, "endpoint", {**own, "id": "ep_2"})
    assert not refused(driver, "endpoint", {**own, "id": "ep_3", "tenant": "other"})
    assert not refused(driver, "endpoint", {**own, "id": "ep_4", "job_key": "k2"})
