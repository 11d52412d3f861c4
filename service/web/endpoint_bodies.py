"""The bodies of calls about endpoints: their schemas, and what a wrong one is told, field by field."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)

from service.domain.cursors import reader
from service.domain.endpoint import EndpointState, Format
from service.domain.event_types import EVENT_TYPES
from service.domain.targets import LONGEST_URL
from service.flows.endpoints import Wanted
from service.web.fields import refused
from service.web.problems import wrong


def _event_type(word: str) -> str:
    if word not in EVENT_TYPES:
        raise ValueError(f"is not a type of event: choose from {', '.join(EVENT_TYPES)}")
    return word


def _with_v1(signatures: list[str]) -> list[str]:
    if "v1" not in signatures:
        raise ValueError("must hold v1: every webhook is signed with the endpoint's secret")
    return signatures


Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
EventType = Annotated[
    str,
    AfterValidator(_event_type),
    Field(json_schema_extra={"enum": list[JsonValue](EVENT_TYPES)}),
]
Types = Annotated[list[EventType], Field(max_length=len(EVENT_TYPES))]
Description = Annotated[str, StringConstraints(max_length=500)]
Formats = Literal["standard", "cloudevents"]
Signatures = Annotated[
    list[Literal["v1", "v1a"]],
    AfterValidator(_with_v1),
    Field(max_length=2, json_schema_extra={"contains": {"const": "v1"}}),
]
Concurrency = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[int, Field(ge=1, le=1000)]

_URL = "Where events are posted to: https, a public address. (http, and private addresses, only where the operator allowed them.)"
_TYPES = "Events of these types are sent; all of them when it is empty."
_FORMAT = "`standard`: the body of Standard Webhooks. `cloudevents`: CloudEvents 1.0 in structured mode."
_SIGNATURES = "`v1`, HMAC with the secret, is always there; `v1a` is Ed25519 beside it (`/.well-known/webhook-keys/{tenant}`)."
_CONCURRENCY = "So many requests at once, at most."
_RATE = "So many requests in a second, at most; null: no limit."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EndpointRequest(_Body):
    """A consumer's URL. Its secret is made by the service."""

    url: Url = Field(description=_URL)
    types: Types = Field(default_factory=list, description=_TYPES)
    description: Description = Field(default="", description="For people.")
    format: Formats = Field(default="standard", description=_FORMAT)
    signatures: Signatures = Field(default=["v1"], description=_SIGNATURES)
    concurrency: Concurrency = Field(default=16, description=_CONCURRENCY)
    rate_per_s: Rate | None = Field(default=None, description=_RATE)


def _unless_given(description: str) -> Any:
    """A field whose absence means that nothing changes: there is no default to show, and no null to send."""
    return Field(default_factory=lambda: None, description=description)


class EndpointChanges(_Body):
    """What shall change; everything else stays as it is."""

    url: Url = _unless_given(_URL)
    types: Types = _unless_given(_TYPES)
    description: Description = _unless_given("For people.")
    format: Formats = _unless_given(_FORMAT)
    signatures: Signatures = _unless_given(_SIGNATURES)
    concurrency: Concurrency = _unless_given(_CONCURRENCY)
    rate_per_s: Rate | None = _unless_given(_RATE)
    state: Literal["active", "disabled"] = _unless_given(
        "`disabled` ends all sending, and what waits is dead; `active` begins anew with a clean record."
    )


class ReplayRequest(_Body):
    """Where to begin again."""

    after: str | None = Field(
        description="A cursor of the feed: what came after it is sent again. null: everything that is kept."
    )


def wanted(body: dict[str, Any]) -> Wanted:
    """This function will check a body of `POST /v1/endpoints`.

    :raises Problem: naming every field that is wrong or unknown.
    """
    asked = _fitting(EndpointRequest, body, "an endpoint")
    return Wanted(
        url=asked.url,
        types=_once(asked.types),
        description=asked.description,
        format=Format(asked.format),
        signatures=_once(asked.signatures),
        concurrency=asked.concurrency,
        rate_per_s=asked.rate_per_s,
    )


def changes(body: dict[str, Any]) -> dict[str, object]:
    """This function will check a body of `PATCH /v1/endpoints/{id}` and give what shall change.

    :raises Problem: naming every field that is wrong or unknown.
    """
    asked = _fitting(EndpointChanges, body, "an endpoint that can be changed")
    made: dict[str, object] = {name: getattr(asked, name) for name in asked.model_fields_set}
    words: dict[str, Any] = {"types": _once, "signatures": _once, "format": Format, "state": EndpointState}
    return {name: words[name](value) if name in words else value for name, value in made.items()}


def replay_after(body: dict[str, Any]) -> int | None:
    """This function will check a body of `POST /v1/endpoints/{id}/replay` and give the `seq` to begin behind.

    None: with the oldest event that is kept.

    :raises Problem: naming every field that is wrong or unknown.
    """
    after = _fitting(ReplayRequest, body, "a replay").after
    if after is None:
        return None
    try:
        return int(reader("events")(after))
    except ValueError as error:
        raise wrong("after", "is not a cursor of the feed") from error


_Asked = TypeVar("_Asked", bound=_Body)


def _fitting(model: type[_Asked], body: dict[str, Any], thing: str) -> _Asked:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise refused(error, thing=thing) from None


def _once(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
