"""What callers see of an endpoint and of a delivery; never a secret."""

from collections.abc import Sequence
from typing import Any

from service.domain.endpoint import Delivery, DeliveryState, Endpoint, Try
from service.domain.timestamps import maybe_rfc3339, rfc3339


def endpoint_object(endpoint: Endpoint) -> dict[str, Any]:
    """This function will show an endpoint as JSON values, in the API, in its own events and on the command line."""
    return {
        "id": endpoint.id,
        "object": "endpoint",
        "url": endpoint.url,
        "types": list(endpoint.types),
        "state": endpoint.state.value,
        "disabled_reason": endpoint.disabled_reason and endpoint.disabled_reason.value,
        "description": endpoint.description,
        "format": endpoint.format.value,
        "signatures": list(endpoint.signatures),
        "concurrency": endpoint.concurrency,
        "rate_per_s": endpoint.rate_per_s,
        "previous_secret_until": maybe_rfc3339(endpoint.previous_until_ms),
        "replaying": endpoint.replay_until is not None,
        "failing_since": maybe_rfc3339(endpoint.failing_since_ms),
        "created_at": rfc3339(endpoint.created_ms),
        "updated_at": rfc3339(endpoint.updated_ms),
    }


def delivery_object(delivery: Delivery, tries: Sequence[Try]) -> dict[str, Any]:
    """This function will show a delivery with its attempts, oldest first, as JSON values."""
    pending = delivery.state is DeliveryState.PENDING
    return {
        "id": delivery.id,
        "object": "delivery",
        "endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "job_id": delivery.job_id,
        "state": delivery.state.value,
        "error": delivery.error,
        "attempts": [_attempt(attempt) for attempt in tries],
        "next_attempt_at": rfc3339(delivery.next_ms) if pending else None,
        "created_at": rfc3339(delivery.created_ms),
        "completed_at": maybe_rfc3339(delivery.completed_ms),
    }


def _attempt(attempt: Try) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "at": rfc3339(attempt.at_ms),
        "status": attempt.status,
        "duration_ms": attempt.took_ms,
        "error": attempt.error,
        "answer": attempt.answer,
    }
