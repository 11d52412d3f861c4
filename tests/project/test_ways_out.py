"""Requests leave through few modules, and to URLs that users gave through one.

Whoever needs another way out adds it below and says whose URL it is that is called there. Only `service/egress` may
call one that a user of the service gave.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.project.repository import Module, module, modules

EGRESS = "service/egress/"

#: Path or folder, and who says where the requests go.
WAYS_OUT = {
    EGRESS: "users, checked",
    "service/providers/transport.py": "providers and the operator, checked by the adapters",
    "service/providers/exchange.py": "providers and the operator, checked by the adapters",
    "service/simulator/": "the service that a developer tries out; stands apart from it",
    "service/cli/": "whoever types the command, on a machine of his own",
    "service/client/": "the program that uses the client",
    "service/sinks/": "the operator",
}

#: What opens connections to somebody else, or can be made to.
CLIENTS = {
    "aiohttp",
    "aiokafka",
    "confluent_kafka",
    "ftplib",
    "httpcore",
    "httpx",
    "httpx2",
    "nats",
    "redis",
    "requests",
    "smtplib",
    "urllib3",
    "websockets",
}
CLIENT_MODULES = {"http.client", "urllib.request", "xmlrpc.client"}
CALLS = {
    "connect_ex",
    "create_connection",
    "open_connection",
    "sock_connect",
    "sock_sendto",
    "start_tls",
    "urlopen",
}


def ways_out(source: Module) -> Iterator[str]:
    """Give every import of an HTTP client or the like, and every call that connects, wherever it stands."""
    for node in ast.walk(source.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and node.attr in CALLS:
            yield f"{source.path}:{node.lineno} {node.attr}"
        if any(name.split(".")[0] in CLIENTS or name in CLIENT_MODULES for name in names):
            yield f"{source.path}:{getattr(node, 'lineno', 0)} {names[0]}"


def allowed(path: str) -> bool:
    return any(path == way or (way.endswith("/") and path.startswith(way)) for way in WAYS_OUT)


def test_no_other_module_opens_connections() -> None:
    found = [found for source in modules("service") if not allowed(source.path) for found in ways_out(source)]
    assert found == []


def test_the_egress_client_is_a_way_out_that_the_search_sees() -> None:
    assert [found for source in modules("service/egress") for found in ways_out(source)]


def test_the_egress_client_uses_no_http_client_that_reads_proxies_or_follows_redirects() -> None:
    imported = {
        name.split(".")[0]
        for source in modules("service/egress")
        for node in ast.walk(source.tree)
        for name in _imported(node)
    }
    assert imported & CLIENTS == set()


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.parametrize(
    "text",
    [
        "import aiohttp",
        "import httpx as h",
        "from urllib.request import urlopen",
        "from urllib import request",
        "from http import client",
        "def f():\n    from aiohttp import ClientSession",
        "import asyncio\nasync def f(): await asyncio.open_connection('x', 1)",
        "import socket\nsocket.create_connection(('x', 1))",
        "async def f(loop): await loop.sock_connect(raw, ('x', 1))",
    ],
)
def test_a_way_out_is_seen(text: str) -> None:
    source = module("service/flows/deliver.py", text)
    assert not allowed(source.path)
    assert list(ways_out(source))


@pytest.mark.parametrize(
    "text", ["from urllib.parse import urlsplit", "from http import HTTPStatus", "import ssl"]
)
def test_what_connects_nowhere_is_not_blamed(text: str) -> None:
    assert list(ways_out(module("service/flows/deliver.py", text))) == []
