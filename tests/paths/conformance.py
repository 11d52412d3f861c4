"""Every answer that a test gets is held against the OpenAPI document: status, headers, media type and shape."""

import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import orjson

from service.web.documentation import described

_DOCUMENT = described()
_PATHS = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in _DOCUMENT["paths"]}


async def check(response: httpx.Response) -> None:
    """Check one answer; what is not served has no description to be held against."""
    await response.aread()
    request = response.request
    path = next((path for path, pattern in _PATHS.items() if pattern.fullmatch(request.url.path)), "")
    method = request.method.replace("HEAD", "GET").lower()
    operation = _DOCUMENT["paths"].get(path, {}).get(method)
    if operation is None:
        assert response.status_code in (404, 405), response
        return
    described_answer = operation["responses"].get(str(response.status_code))
    assert described_answer is not None, f"{method} {path} says nothing of {response.status_code}"
    assert {name.lower() for name in described_answer["headers"]} <= set(response.headers), response.headers
    content = described_answer.get("content", {})
    if not response.content or "*/*" in content:
        return
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{method} {path} says nothing of {media_type}"
    if media_type.endswith("json"):
        _shape(path, method, response.status_code, media_type).validate(orjson.loads(response.content))


@cache
def _shape(path: str, method: str, status: int, media_type: str) -> Any:
    answer = _DOCUMENT["paths"][path][method]["responses"][str(status)]
    schema = answer["content"][media_type]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": _DOCUMENT["components"]})
