"""The Python client: hands in jobs, waits for them, follows events, and verifies webhooks.

async with Fluxgate("https://gate.example", api_key) as gate:
    job = await gate.submit(provider="fal", model="fal-ai/flux-2-pro", input={"prompt": "a red bicycle"})
    done = await job.result(timeout=300)
    print(done.output["images"][0]["url"])
"""

from service.client.errors import (
    BudgetExceeded,
    Conflict,
    CursorExpired,
    FieldError,
    FluxgateError,
    Forbidden,
    IdempotencyMismatch,
    InvalidInput,
    InvalidWebhook,
    JobBlocked,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotSucceeded,
    NotFound,
    NotSendable,
    ProblemAnswered,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WaitTimedOut,
)
from service.client.event import Event
from service.client.fluxgate import Fluxgate
from service.client.job import Job
from service.client.webhooks import verify_webhook

__all__ = [
    "BudgetExceeded",
    "Conflict",
    "CursorExpired",
    "Event",
    "FieldError",
    "Fluxgate",
    "FluxgateError",
    "Forbidden",
    "IdempotencyMismatch",
    "InvalidInput",
    "InvalidWebhook",
    "Job",
    "JobBlocked",
    "JobCanceled",
    "JobExpired",
    "JobFailed",
    "JobNotSucceeded",
    "NotFound",
    "NotSendable",
    "ProblemAnswered",
    "RateLimited",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "WaitTimedOut",
    "verify_webhook",
]
