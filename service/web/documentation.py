"""The calls that show the documentation, which describes them, too."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from starlette.responses import Response

from service.web import docs, openapi, schemas
from service.web.calls import CALLS
from service.web.operations import Answer, Operation
from service.web.replies import json_reply
from service.web.visit import Visit


@cache
def described() -> dict[str, Any]:
    """This function will give the OpenAPI document of everything that is served."""
    return openapi.document((*CALLS, *DOCUMENTATION), version=_version())


def _version() -> str:
    try:
        return version("fluxgate")
    except PackageNotFoundError:
        return "0"


@cache
def _as_json() -> bytes:
    return orjson.dumps(described())


@cache
def _as_page() -> bytes:
    return docs.page(described())


async def read_document(_: Visit) -> Response:
    """This function will give the document."""
    return json_reply(_as_json())


async def read_page(_: Visit) -> Response:
    """This function will give the document as a page."""
    policy = {"Content-Security-Policy": docs.security_policy()}
    return Response(_as_page(), headers=policy, media_type="text/html")


DOCUMENTATION: Sequence[Operation] = (
    Operation(
        method="GET",
        path="/openapi.json",
        name="getOpenApi",
        summary="Read this document.",
        handle=read_document,
        strict=False,
        answers={200: Answer(description="OpenAPI 3.1.", model=schemas.Document)},
    ),
    Operation(
        method="GET",
        path="/docs",
        name="readDocs",
        summary="Read this document as a page.",
        handle=read_page,
        strict=False,
        answers={200: Answer(description="A page.", media_type="text/html")},
    ),
)
