"""What the tests of the paths share: callers with keys, sample jobs, and moving a job on without a provider."""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select
from starlette.applications import Starlette

from service.domain import facts
from service.domain.failures import ErrorCode, JobError
from service.domain.job import Attempt, Job
from service.domain.results import Image, Output
from service.flows import keys as key_flow
from service.flows.advance import Step
from service.settings import Settings
from service.storage import jobs
from service.storage.statements import Statement
from service.storage.tables import METADATA
from service.wiring import Service
from tests.paths import conformance

ALL_SCOPES = frozenset(key_flow.SCOPES)
BFL_JOB: dict[str, Any] = {"provider": "bfl", "model": "flux-2-pro", "input": {"prompt": "a fox"}}
FAL_JOB: dict[str, Any] = {"provider": "fal", "model": "fal-ai/flux-2-pro", "input": {"prompt": "a fox"}}
OUTPUT = Output(
    images=(Image(url="https://files.example/1.png", content_type="image/png"),),
    seed="15860307465884635512",
    raw={"seed": 15860307465884635512, "more": 123456789012345678901234567890},
)


def settings(database_url: str, folder: Path, **more: str) -> Settings:
    """Make settings with both providers on, as an operator would."""
    return Settings.load(
        {
            "FLUXGATE_DATABASE_URL": database_url,
            "FLUXGATE_STORAGE_URL": f"file:{folder / 'artifacts'}",
            "FLUXGATE_SECRET_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "FAL_KEY": "fal-key",
            "BFL_API_KEY": "bfl-key",
            **more,
        },
        env_file=None,
    )


@dataclass(frozen=True)
class House:
    """A running service with its application, without background work, and callers of it."""

    service: Service
    app: Starlette
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def visitor(
        self, *, tenant: str = "default", scopes: Iterable[str] = ALL_SCOPES
    ) -> httpx.AsyncClient:
        """Make a caller with a key of its own."""
        secret = secrets.token_urlsafe(24)
        made = await key_flow.create(
            self.service.runtime, tenant=tenant, name="test", scopes=frozenset(scopes), secret=secret
        )
        assert made is not None
        return self.stranger(headers={"Authorization": f"Bearer {secret}"})

    def stranger(self, *, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
        """Make a caller without a key."""
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app),
            base_url="http://fluxgate.test",
            headers=headers,
            event_hooks={"response": [conformance.check]},
        )
        self.clients.append(client)
        return client

    async def rows(self) -> dict[str, int]:
        """Count the rows of every table but the keys."""
        tables = [table for table in METADATA.sorted_tables if table.name != "api_key"]
        return await self.service.runtime.door.read(
            lambda tx: {
                table.name: tx.rows(Statement(select(func.count().label("n")).select_from(table)))[0]["n"]
                for table in tables
            }
        )

    async def job(self, job_id: str) -> Job:
        stored = await self.service.runtime.door.read(lambda tx: jobs.load(tx, [job_id]))
        return stored[job_id].job

    async def tell(self, job_id: str, *told: facts.Fact) -> None:
        """Let facts be told as a flow would."""
        await self.service.advance.tell([Step(job_id=job_id, fact=fact) for fact in told])

    async def sent(self, job_id: str, request_id: str = "req-1") -> Attempt:
        """Move a job on as if the provider had taken it."""
        attempt_id = self.service.runtime.make_id("att")
        key = self.service.runtime.keys.current
        await self.tell(
            job_id,
            facts.SubmitStarted(cause="submit", attempt_id=attempt_id, secret_key_id=key),
            facts.SubmitAccepted(cause="submit", attempt_id=attempt_id, provider_request_id=request_id),
        )
        attempt = (await self.job(job_id)).current
        assert attempt is not None
        return attempt

    async def succeeded(self, job_id: str, output: Output = OUTPUT) -> None:
        """Move a job on to its success, learned by asking."""
        attempt = await self.sent(job_id, f"req-{job_id}")
        await self.tell(job_id, facts.ProviderSucceeded(cause="poll", attempt_id=attempt.id, output=output))

    async def failed(self, job_id: str, provider_error: Any = None) -> None:
        attempt = await self.sent(job_id, f"req-{job_id}")
        error = JobError(code=ErrorCode.PROVIDER_FAILED, message="It broke.", provider_error=provider_error)
        await self.tell(job_id, facts.ProviderFailed(cause="poll", attempt_id=attempt.id, error=error))


async def submit(visitor: httpx.AsyncClient, body: Mapping[str, Any] = BFL_JOB, **changes: Any) -> str:
    """Submit a job and give its id."""
    response = await visitor.post("/v1/jobs", json={**body, **changes})
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem, and give the document."""
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["code"], document["status"]) == (status, code, status), (
        response.text
    )
    assert response.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == response.headers["x-request-id"]
    assert set(document) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
    return document


def paths_of(document: Mapping[str, Any]) -> list[str]:
    return [error["path"] for error in document["errors"]]


def exact(text: str) -> Any:
    """Read JSON with every integer as it is."""
    return json.loads(text)
