"""Between rows of endpoints and the domain's values."""

import hashlib
from typing import Any

from service.domain import exact_json
from service.domain.endpoint import Disabled, Endpoint, EndpointState, Format
from service.storage.statements import Row


def job_key_of(url: str) -> str:
    """This function will name a URL of jobs as its endpoint is found by it."""
    return hashlib.sha256(url.encode()).hexdigest()


def inserted(endpoint: Endpoint) -> dict[str, Any]:
    """This function will give all columns of a new endpoint that nobody holds."""
    return {
        **changed(endpoint),
        "id": endpoint.id,
        "tenant": endpoint.tenant,
        "job_key": job_key_of(endpoint.url) if endpoint.for_jobs else None,
        "created_ms": endpoint.created_ms,
        "version": endpoint.version,
        "due_ms": endpoint.due_ms,
        "woken_ms": None,
        "claim": None,
    }


def changed(endpoint: Endpoint) -> dict[str, Any]:
    """This function will give the columns of an endpoint that change, without its version and what it is due for."""
    return {
        "url": endpoint.url,
        "types": exact_json.dumps(list(endpoint.types)),
        "description": endpoint.description,
        "state": endpoint.state.value,
        "disabled_reason": endpoint.disabled_reason and endpoint.disabled_reason.value,
        "format": endpoint.format.value,
        "signatures": ",".join(endpoint.signatures),
        "concurrency": endpoint.concurrency,
        "rate_per_s": endpoint.rate_per_s,
        "secret": endpoint.secret,
        "previous_secret": endpoint.previous_secret,
        "previous_until_ms": endpoint.previous_until_ms,
        "updated_ms": endpoint.updated_ms,
        "failures": endpoint.failures,
        "failing_since_ms": endpoint.failing_since_ms,
        "not_before_ms": endpoint.not_before_ms,
        "throttled_until_ms": endpoint.throttled_until_ms,
        "slow_start": endpoint.slow_start,
        "replay_after": endpoint.replay_after,
        "replay_until": endpoint.replay_until,
    }


def endpoint_of(row: Row) -> Endpoint:
    """This function will read an endpoint from its row."""
    known = {name: value for name, value in row.items() if name != "job_key"}
    reason = row["disabled_reason"]
    return Endpoint(
        **{
            **known,
            "for_jobs": row["job_key"] is not None,
            "types": tuple(exact_json.loads(row["types"])) if row["types"] != "[]" else (),
            "state": EndpointState(row["state"]),
            "disabled_reason": None if reason is None else Disabled(reason),
            "format": Format(row["format"]),
            "signatures": tuple(row["signatures"].split(",")),
        }
    )
