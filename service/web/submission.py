"""The body of `POST /v1/jobs`: its schema, and what a wrong one is told, field by field."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service.domain.targets import LONGEST_URL
from service.providers.registry import BUILT, KNOWN
from service.web.fields import refused
from service.web.problems import wrong
from service.wiring import Service

#: Fields of the contract that a later issue brings.
_NOT_YET = frozenset(("route", "max_cost_usd"))
#: The setting that switches a provider on.
KEY_SETTINGS = {"fal": "FAL_KEY", "bfl": "BFL_API_KEY"}
_NOT_AVAILABLE = "is not available yet"


class JobRequest(BaseModel):
    """A job to be done. Field by field as the provider's own documentation names it inside `input`."""

    model_config = ConfigDict(extra="forbid", strict=True, title="JobRequest")

    provider: Literal["fal", "bfl"] = Field(description="Who shall do it.")
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="The provider's own id of a model, for example `fal-ai/flux-2-pro` or `flux-2-pro`."
    )
    input: dict[str, Any] = Field(
        description="The provider's own JSON, passed on unchanged; at most 1 MiB. Integers of any size are kept."
    )
    deadline_s: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=3600, description="Seconds until the job ends `expired`."
    )
    priority: Literal["normal", "low"] = "normal"
    metadata: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=40)],
        Annotated[str, StringConstraints(max_length=500)],
    ] = Field(default_factory=dict, max_length=16, description="Pairs of text that jobs can be found by.")
    webhook_url: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)] | None = Field(
        default=None,
        description="This job's events also go there, signed with the tenant's job-webhook secret: https, a public"
        " address. (http, and private addresses, only where the operator allowed them.)",
    )
    cache: Literal["off"] = "off"
    archive: bool = Field(default=True, description="Whether result files are kept by this service.")
    on_uncertain: Literal["hold", "resubmit"] = Field(
        default="hold", description="What to do when nobody can tell whether the provider took the request."
    )


def checked(body: dict[str, Any], service: Service) -> JobRequest:
    """This function will check a body of `POST /v1/jobs`.

    :raises Problem: naming every field that is wrong, unknown or not available.
    """
    try:
        request = JobRequest.model_validate(body)
    except ValidationError as error:
        raise refused(error, thing="a job", special=_special) from None
    if request.provider not in service.runtime.providers:
        raise wrong(
            "provider", f"is switched off here: the operator must set {KEY_SETTINGS[request.provider]}"
        )
    return request


def _special(path: str, error: Any) -> str | None:
    kind, given = error["type"], error["input"]
    if kind == "missing" and path == "provider":
        return "is required: models without a provider are not available yet"
    if kind == "extra_forbidden" and path in _NOT_YET:
        return _NOT_AVAILABLE
    if kind == "literal_error" and path == "provider" and given in KNOWN and given not in BUILT:
        return _NOT_AVAILABLE
    if kind == "literal_error" and path == "cache" and given == "use":
        return _NOT_AVAILABLE
    return None
