"""The OpenAPI document: valid, complete, and what is really served."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.flows.accept import Request
from service.web.app import create_app
from service.web.documentation import described
from service.web.operations import Resource
from service.web.problems import CODES
from service.web.submission import JobRequest
from service.wiring import running
from tests.paths.visitors import House, settings

SECRET = "a-bootstrap-key-of-many-characters"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
CALLS = [(method.upper(), path) for path, operations in described()["paths"].items() for method in operations]


@pytest.fixture(scope="module")
def server(sqlite_databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the real application behind a real server, in a thread of its own, and give its URL."""
    folder = tmp_path_factory.mktemp("served")
    sqlite_databases.copy_migrated(folder / "fluxgate.db")
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    async def serve(url: str, folder: Path) -> None:
        async with running(settings(url, folder, FLUXGATE_BOOTSTRAP_KEY=SECRET), work=False) as service:
            config = uvicorn.Config(create_app(service), lifespan="off", log_config=None, access_log=False)
            running_server = uvicorn.Server(config)
            serving = asyncio.create_task(running_server.serve(sockets=[listening]))
            while not stop.is_set():
                await asyncio.sleep(0.05)
            running_server.should_exit = True
            await serving

    thread = threading.Thread(
        target=lambda: asyncio.run(serve(f"sqlite:///{folder / 'fluxgate.db'}", folder))
    )
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    stop.set()
    thread.join()


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(described()).validate()


async def test_every_route_is_described_and_nothing_else(house: House) -> None:
    served = {
        (method, route.path)
        for route in house.app.routes
        if isinstance(route.endpoint, Resource)
        for method in route.endpoint.operations
        if method != "HEAD"
    }
    assert served == set(CALLS)
    # Whatever else a route may lead to, it would be served without being described.
    assert {path for _, path in served} == {route.path for route in house.app.routes}
    assert len(house.app.routes) == len({route.path for route in house.app.routes})
    assert (await house.stranger().get("/openapi.json")).json() == described()


def test_every_field_of_a_job_is_handed_to_the_flow_or_has_one_value() -> None:
    asked = set(JobRequest.model_fields)
    assert asked - set(Request.__dataclass_fields__) == {"cache"}
    assert JobRequest.model_json_schema()["properties"]["cache"]["const"] == "off"


def can_be_wrong(method: str, path: str) -> bool:
    """Tell whether a call takes anything of which some values are wrong."""
    operation = described()["paths"][path][method.lower()]
    typed = "$ref" in str(operation.get("requestBody"))
    return typed or any(parameter["in"] != "path" for parameter in operation["parameters"])


#: A stream that begins has no end: test_web_streams.py reads those.
ENDING = [(method, path) for method, path in CALLS if not path.endswith("/stream")]
GOOD = [(method, path, schemathesis.GenerationMode.POSITIVE) for method, path in ENDING]
BAD = [
    (method, path, schemathesis.GenerationMode.NEGATIVE)
    for method, path in ENDING
    if can_be_wrong(method, path)
]


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    GOOD + BAD,
    ids=[f"{mode.value} {method} {path}" for method, path, mode in GOOD + BAD],
)
def test_what_is_served_is_what_is_described(
    server: str, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(described())
    schema.config.update(base_url=server)
    operation = schema[path][method]
    answered: list[int] = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @examples(
        max_examples=12,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case) -> None:
        # A wait is honest work, but not what is looked for here.
        (case.query or {}).pop("wait", None)
        response = case.call(headers={"Authorization": f"Bearer {SECRET}"})
        case.validate_response(response, checks=CHECKS)
        answered.append(response.status_code)

    run()
    assert answered


def test_a_body_too_large_is_answered_by_a_real_server(server: str) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    with httpx.Client(base_url=server, headers=headers) as client:
        assert client.post("/v1/jobs", content=b" " * 3 * 1024 * 1024).json()["code"] == "too_large"
        assert client.post("/callbacks/fal/t", content=b" " * 9 * 1024 * 1024).json()["code"] == "too_large"
        assert client.get("/v1/jobs").status_code == 200


async def test_the_page_shows_every_call_and_code_and_runs_nothing(house: House) -> None:
    response = await house.stranger().get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    page = response.text
    for operation in (one for path in described()["paths"].values() for one in path.values()):
        assert f'id="{operation["operationId"]}"' in page
    for code in CODES:
        assert f'id="problem-{code}"' in page
    assert "<script" not in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", page)
    assert set(re.findall(r'href="#(\w+)"', page)) <= set(re.findall(r'id="([\w-]+)"', page))
