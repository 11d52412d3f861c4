"""What a model answered with 200 becomes a result, or the failure to have made one."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from service.domain.facts import ProviderFailed, ProviderSucceeded
from service.domain.failures import ErrorCode, JobError
from service.domain.money import parse_usd
from service.domain.results import Image, Output
from service.providers.fal.errors import Quote
from service.providers.fal.models import ENDPOINTS

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,4000}")
_MEDIA_SCHEMES = ("https://", "http://", "data:")


def conclude(
    payload: Any, *, model: str, attempt_id: str, cause: str, quote: Quote, cost_usd: Decimal | None = None
) -> ProviderSucceeded | ProviderFailed:
    """This function will turn a model's 200 into a result; no media is a failure, whatever else is there.

    `has_nsfw_concepts` decides nothing: fal delivers and charges such images as a success, and the flags stay in
    `raw` for the caller to judge.
    """
    images = tuple(_media(payload, model)) if isinstance(payload, dict) else ()
    if images:
        output = Output(images=images, seed=_seed(payload.get("seed")), raw=payload)
        return ProviderSucceeded(cause=cause, attempt_id=attempt_id, output=output, cost_usd=cost_usd)
    error = JobError(
        code=ErrorCode.EMPTY_RESULT,
        message="fal answered with success, but the result holds no media.",
        provider_status=200,
        provider_error=quote(payload),
    )
    return ProviderFailed(cause=cause, attempt_id=attempt_id, error=error, cost_usd=cost_usd)


def settled_usd(headers: Mapping[str, str]) -> Decimal | None:
    """This function will say what a request cost: nothing when `X-Fal-Billable-Units` is 0, else nobody knows.

    What a unit is and costs stands only in fal's pricing API; our own table is an estimate and settles nothing.
    """
    units = parse_usd(headers.get("x-fal-billable-units"))
    return Decimal(0) if units == 0 else None


def _media(payload: Mapping[str, Any], model: str) -> Iterator[Image]:
    """The images; where a model makes other things (a trainer, one that we do not know) any file it names."""
    yield from _files(payload.get("images"))
    endpoint = ENDPOINTS.get(model)
    if endpoint is not None and endpoint.makes_images:
        return
    for name, value in payload.items():
        if name != "images":
            yield from _files({"url": value} if name == "url" else value)


def _files(value: Any) -> Iterator[Image]:
    for entry in value if isinstance(value, list) else [value]:
        url = entry.get("url") if isinstance(entry, dict) else None
        if isinstance(url, str) and url.startswith(_MEDIA_SCHEMES):
            yield Image(
                url=url,
                content_type=_short_text(entry.get("content_type")),
                width=_extent(entry.get("width")),
                height=_extent(entry.get("height")),
            )


def _short_text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() else None


def _extent(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


def _seed(value: Any) -> str | None:
    """Exactly as fal told it: its seeds exceed 64 bit, so a float would be another seed."""
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value) else None
