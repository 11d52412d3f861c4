"""The shapes of answers about endpoints, deliveries and the keys that webhooks are verified with."""

from typing import Literal

from pydantic import Field

from service.domain.event_types import EVENT_TYPES
from service.web.shapes import Shape, one_of, page, time

_WHSEC = r"^whsec_[A-Za-z0-9+/]+=*$"


class Endpoint(Shape):
    """A consumer's URL. `paused`: it failed three times in a row and is tried once a minute until it answers."""

    id: str
    object: Literal["endpoint"]
    url: str
    types: list[str] = Field(description="Events of these types are sent; all of them when it is empty.")
    state: Literal["active", "paused", "disabled"]
    disabled_reason: Literal["gone", "failing", "operator"] | None = Field(
        description="`gone`: it answered 410. `failing`: no success for five days. `operator`: a caller did it."
    )
    description: str
    format: Literal["standard", "cloudevents"]
    signatures: list[Literal["v1", "v1a"]]
    concurrency: int = Field(description="So many requests at once, at most.")
    rate_per_s: int | None = Field(description="So many requests in a second, at most; null: no limit.")
    previous_secret_until: str | None = time("Until then the secret before the last rotation signs, too.")
    replaying: bool = Field(description="Whether an earlier part of the stream is still being sent again.")
    failing_since: str | None = time("When the first failure came that no success has followed.")
    created_at: str = time("When it was made.")
    updated_at: str = time("When its caller, or its health, last changed it.")


class EndpointWithSecret(Endpoint):
    """An endpoint with its secret, which is shown this once."""

    secret: str = Field(pattern=_WHSEC)


class JobWebhookSecret(Shape):
    """What a job's own `webhook_url` is signed with; shown this once."""

    object: Literal["job_webhook_secret"]
    secret: str = Field(pattern=_WHSEC)
    previous_secret_until: str | None = time("Until then the secret before signs, too.")


class TestSent(Shape):
    """The event `endpoint.test` is on its way to this endpoint alone: `GET /v1/deliveries?event_id=…`."""

    event_id: str


class DeliveryAttempt(Shape):
    """One request to the endpoint."""

    number: int
    at: str = time("When it was sent.")
    status: int | None = Field(description="What the endpoint answered; null where it did not.")
    duration_ms: int
    error: str | None = Field(description="Why it failed, where a status does not say so.")
    answer: str | None = Field(description="The first 4 KiB of what the endpoint answered.")


class Delivery(Shape):
    """One event on its way to one endpoint. `dead`: all its attempts failed; it can be retried."""

    id: str
    object: Literal["delivery"]
    endpoint_id: str = Field(description="Of a job's own `webhook_url`: one that no list of endpoints shows.")
    event_id: str = Field(description="The `webhook-id` of every attempt.")
    event_type: str = one_of(EVENT_TYPES)
    job_id: str | None
    state: Literal["pending", "succeeded", "dead"]
    error: str | None = Field(description="Why the newest attempt failed, or why no more are made.")
    attempts: list[DeliveryAttempt]
    next_attempt_at: str | None = time("When it is tried next, if nothing stands before it.")
    created_at: str = time("When the event was handed out.")
    completed_at: str | None = time("When it succeeded or died.")


class WebhookKey(Shape):
    """One Ed25519 public key, as a JSON Web Key (RFC 8037) and in the form of Standard Webhooks."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: str
    x: str = Field(description="The 32 bytes in base64url.")
    whpk: str = Field(pattern=r"^whpk_[A-Za-z0-9+/]{43}=$", description="`whpk_` and the 32 bytes in base64.")


class WebhookKeys(Shape):
    keys: list[WebhookKey] = Field(description="Newest first.")


EndpointPage = page("EndpointPage", Endpoint)
DeliveryPage = page("DeliveryPage", Delivery)
