"""migrate, keys and jobs: what they print, what they leave in the database, and how they fail."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service import wiring
from service.domain import facts
from service.domain.failures import ErrorCode, JobError
from service.flows import read
from service.flows.accept import Request
from service.flows.advance import Step
from service.settings import Settings
from tests.cli.commands import SECRET_KEYS, said, within
from tests.cli.process import failed_in_one_line, fluxgate

BIG = 15860307465884635512


def accepted(settings: Settings, **changes: Any) -> str:
    """Put a job into the database, as the API would."""
    request = Request(
        **{
            "tenant": "default", "cause": "api:key_1", "provider": "fal", "model": "fal-ai/flux-2",
            "input": {"prompt": "a fox", "seed": BIG}, "input_text": f'{{"prompt":"a fox","seed":{BIG}}}', **changes,
        }
    )  # fmt: skip

    async def act(service: wiring.Service) -> str:
        return (await service.accept(request)).job.id

    job_id: str = within(settings, act)
    return job_id


def failed_job(settings: Settings) -> str:
    """Put a job into the database that its provider failed."""
    job_id = accepted(settings)
    error = JobError(code=ErrorCode.PROVIDER_FAILED, message="it broke", retryable=True)

    async def act(service: wiring.Service) -> None:
        key_id, attempt_id = service.runtime.keys.current, service.runtime.make_id("att")
        started = facts.SubmitStarted(cause="submit", attempt_id=attempt_id, secret_key_id=key_id)
        ended = facts.ProviderFailed(cause="submit", attempt_id=attempt_id, error=error)
        decisions = await service.advance.tell([Step(job_id=job_id, fact=fact) for fact in (started, ended)])
        assert all(decision is not None and decision.moved for decision in decisions)

    within(settings, act)
    return job_id


def history(settings: Settings, job_id: str) -> list[tuple[str, str, bool]]:
    """Give type, cause and moved of each line."""

    async def act(service: wiring.Service) -> list[tuple[str, str, bool]]:
        lines = await read.history_of(service.runtime, tenant="default", job_id=job_id, after=0, most=200)
        return [(line.type, line.cause, line.moved) for line in lines]

    lines: list[tuple[str, str, bool]] = within(settings, act)
    return lines


def test_a_key_is_made_found_by_its_secret_listed_and_revoked(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    made = dict(row.split(": ") for row in said(capsys, "keys", "create", "--name", "backend").splitlines())
    assert list(made) == ["id", "secret"]
    found = within(settings, lambda service: service.keys.find(made["secret"]))
    assert (found.id, found.tenant, found.name) == (made["id"], "default", "backend")
    assert found.scopes == {"jobs:write", "jobs:read", "events:read", "endpoints:write", "audit:read"}

    (row,) = said(capsys, "keys", "list").splitlines()
    assert row.split("\t")[:3] == [made["id"], "backend", "default"]
    assert made["secret"] not in said(capsys, "keys", "list", "--json")

    assert made["id"] in said(capsys, "keys", "revoke", made["id"])
    assert within(settings, lambda service: service.keys.find(made["secret"])) is None
    (listed,) = json.loads(said(capsys, "keys", "list", "--json"))["data"]
    assert listed["revoked_at"].endswith("Z")
    assert "fluxgate keys list" in said(capsys, "keys", "revoke", made["id"], code=1)


def test_a_key_has_the_scopes_and_the_tenant_that_were_named(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    said(
        capsys,
        *("keys", "create", "--name", "x", "--tenant", "acme", "--scope", "jobs:read", "--scope", "admin"),
    )
    (listed,) = json.loads(said(capsys, "keys", "list", "--json"))["data"]
    assert (listed["tenant"], listed["scopes"]) == ("acme", ["admin", "jobs:read"])


def test_jobs_are_listed_newest_first_and_page_by_page(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [accepted(settings) for _ in range(3)]
    accepted(settings, tenant="other")
    rows = [row.split("\t") for row in said(capsys, "jobs", "list").splitlines()]
    assert [row[0] for row in rows] == ids[::-1]
    assert rows[0][1:4] == ["accepted", "fal", "fal-ai/flux-2"]
    first = json.loads(said(capsys, "jobs", "list", "--limit", "2", "--json"))
    rest = json.loads(
        said(capsys, "jobs", "list", "--limit", "2", "--json", "--cursor", first["next_cursor"])
    )
    assert [job["id"] for job in first["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert said(capsys, "jobs", "list", "--state", "failed,expired") == ""


def test_a_job_is_shown_whole_with_every_digit(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = accepted(settings, metadata={"order": "7"})
    shown = json.loads(said(capsys, "jobs", "show", job_id, "--json"))
    assert (shown["id"], shown["input"]["seed"], shown["metadata"]) == (job_id, BIG, {"order": "7"})
    plain = said(capsys, "jobs", "show", job_id)
    assert f"id: {job_id}" in plain
    assert "state: accepted" in plain


def test_a_canceled_job_says_that_the_operator_did_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = accepted(settings)
    assert said(capsys, "jobs", "cancel", job_id) == f"{job_id}: canceled\n"
    assert history(settings, job_id)[-1] == ("cancel.requested", "operator", True)
    assert "canceled and that is final" in said(capsys, "jobs", "cancel", job_id, code=1)


def test_a_failed_job_is_retried_once_as_a_new_job(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = failed_job(settings)
    first = said(capsys, "jobs", "retry", job_id)
    assert said(capsys, "jobs", "retry", job_id) == first
    new_id = first.partition(":")[0]
    assert new_id != job_id
    shown = json.loads(said(capsys, "jobs", "show", new_id, "--json"))
    assert (shown["retry_of"], shown["state"], shown["input"]["seed"]) == (job_id, "accepted", BIG)


def test_a_job_that_has_not_failed_is_not_retried(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = accepted(settings)
    assert "only a failed or expired job" in said(capsys, "jobs", "retry", job_id, code=1)
    assert len(json.loads(said(capsys, "jobs", "list", "--json"))["data"]) == 1


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
def test_another_tenants_job_is_as_unknown_as_none(
    command: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = accepted(settings, tenant="other")
    unknown = said(capsys, "jobs", command, "job_0", code=1)
    assert said(capsys, "jobs", command, job_id, code=1) == unknown
    assert history_is_untouched(settings, job_id)


def history_is_untouched(settings: Settings, job_id: str) -> bool:
    async def act(service: wiring.Service) -> int:
        lines = await read.history_of(service.runtime, tenant="other", job_id=job_id, after=0, most=200)
        return len(lines)

    return bool(within(settings, act) == 1)


def test_a_database_is_brought_up_and_says_so(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", empty_database_url)
    assert "run 'fluxgate migrate'" in said(capsys, "migrate", "--check", code=1)
    assert "at revision" in said(capsys, "migrate")
    assert said(capsys, "migrate", "--check") == said(capsys, "migrate")


def test_looking_whether_a_file_is_behind_does_not_make_it(
    empty_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", empty_sqlite_url)
    said(capsys, "migrate", "--check", code=1)
    assert "fluxgate migrate" in said(capsys, "keys", "list", code=1)
    assert "fluxgate serve" in said(capsys, "jobs", "list", code=1)
    assert list(Path(empty_sqlite_url.removeprefix("sqlite:///")).parent.iterdir()) == []


@pytest.mark.parametrize("command", ["keys list", "jobs list", "migrate --check"])
def test_a_database_that_is_behind_is_named_with_the_command_that_helps(
    command: str,
    empty_postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", empty_postgresql_url)
    monkeypatch.setenv("FLUXGATE_SECRET_KEYS", SECRET_KEYS)
    assert "run 'fluxgate migrate'" in said(capsys, *command.split(), code=1)
    with psycopg.connect(empty_postgresql_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)


def test_a_database_of_a_newer_release_is_left_alone(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", sqlite_url)
    assert "another release" in said(capsys, "migrate", code=1)


def test_a_missing_secret_key_is_named(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUXGATE_DATABASE_URL", postgresql_url)
    assert "FLUXGATE_SECRET_KEYS" in said(capsys, "keys", "list", code=1)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["keys list", "jobs list", "migrate", "migrate --check", "serve", "work"])
def test_a_database_that_cannot_be_reached_is_one_line_without_the_password(command: str) -> None:
    done = fluxgate(
        *command.split(),
        FLUXGATE_DATABASE_URL="postgresql://user:s3cret@127.0.0.1:1/db",
        FLUXGATE_SECRET_KEYS=SECRET_KEYS,
    )
    assert "s3cret" not in failed_in_one_line(done, 1)


@pytest.mark.slow
def test_a_file_that_is_no_database_is_one_line() -> None:
    Path("fluxgate.db").write_bytes(b"a letter to a friend, and no database. " * 100)
    for command in ("keys list", "migrate", "serve"):
        assert "not a database" in failed_in_one_line(fluxgate(*command.split()), 1)
