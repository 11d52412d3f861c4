"""The OpenAPI 3.1 document, made from the table of calls and the schemas."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.web import schemas
from service.web.operations import Answer, Operation

_REF = "#/components/schemas/{model}"
_ABOUT = """\
Hands long jobs to providers of generative models. Errors are problem documents (RFC 9457). Times are RFC 3339 in
UTC; money is decimal text in US dollars. Every answer carries `X-Request-Id`. Of equal keys in a JSON object the
last one counts. Unknown fields and unknown query parameters are refused. A key needs one of the scopes named at
each call; `admin` is a scope of its own and contains no other. No scope is named after reading endpoints and
deliveries: `endpoints:write`, `events:read` and `audit:read` all allow it. URLs that callers give must be https and
lead to public addresses, unless the operator allowed others; what may not be called is refused under the field's path."""
_METADATA_FILTERS: Mapping[str, Any] = {
    "name": "metadata_filters",
    "in": "query",
    "description": "`metadata.KEY=value`, once for each key: only jobs with these pairs in their metadata.",
    "style": "form",
    "explode": True,
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": r"^metadata\.[A-Za-z0-9_-]{1,40}$"},
        "additionalProperties": {"type": "string", "maxLength": 500},
        "maxProperties": 16,
    },
}


def document(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """This function will describe every call, its parameters, bodies and statuses."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fluxgate", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(operations),
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    answers = {
        answer.model for operation in operations for answer in operation.answers.values() if answer.model
    }
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "serialization") for model in (schemas.Problem, schemas.ExpiredCursor)
    ]
    models += [(model, "serialization") for model in sorted(answers, key=lambda model: model.__name__)]
    models += [(operation.body, "validation") for operation in operations if operation.body]
    _, made = models_json_schema(models, ref_template=_REF)
    found: dict[str, Any] = made["$defs"]
    return found


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {
            **{str(status): _answer(answer) for status, answer in operation.answers.items()},
            **{str(status): _problem(status) for status in problem_statuses(operation)},
        },
        "security": [{"apiKey": [scope]} for scope in operation.scopes],
    }
    if operation.body is not None:
        content = {"application/json": {"schema": {"$ref": _REF.format(model=operation.body.__name__)}}}
        described["requestBody"] = {"required": True, "content": content}
    if operation.raw_body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
    return described


def problem_statuses(operation: Operation) -> list[int]:
    """This function will list every status of a problem that a call can answer with."""
    found = {*operation.problems, 500, 503}
    if operation.scopes:
        found |= {401, 403}
    if "{" in operation.path:
        found.add(404)
    if operation.strict:
        found.add(422)
    if operation.body is not None:
        found |= {413, 415, 422}
    return sorted(found)


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    found += [
        {"name": item.name, "in": "query", "description": item.description, "schema": item.schema}
        for item in operation.parameters
    ]
    found += [
        {"name": name, "in": "header", "description": text, "schema": schema}
        for name, schema, text in operation.headers
    ]
    return [*found, dict(_METADATA_FILTERS)] if operation.metadata else found


def _headers(named: Mapping[str, str]) -> dict[str, Any]:
    every = {"X-Request-Id": "Names this request, here and in the log.", **named}
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in every.items()}


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.model is not None:
        schema = {"$ref": _REF.format(model=answer.model.__name__)}
        described["content"] = {answer.media_type: {"schema": schema}}
    elif answer.media_type != "application/json":
        described["content"] = {answer.media_type: {"schema": {}}}
    return described


def _problem(status: int) -> dict[str, Any]:
    named = {
        401: {"WWW-Authenticate": "How to prove who you are."},
        416: {"Content-Range": "How long the file is."},
        503: {"Retry-After": "Seconds after which to come again."},
    }
    model = "ExpiredCursor" if status == 410 else "Problem"
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(named.get(status, {})),
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model=model)}}},
    }
