"""The import rule.

    domain <- storage | providers | egress | sinks <- flows <- wiring <- web | cli        simulator: alone
    domain <- client <- cli        what speaks to the service from outside knows nothing of its inside
    settings: read by wiring, web and cli

A layer imports itself and what stands to its left; siblings do not know each other.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.project.repository import Module, module, modules

CORE = {"domain"}
SIDES = CORE | {"storage", "providers", "egress", "sinks"}
FLOWS = SIDES | {"flows"}
EDGE = FLOWS | {"wiring", "settings"}

MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "domain": CORE,
    "settings": CORE | {"settings", "settings_checks"},
    "settings_checks": CORE | {"settings_checks"},
    "storage": CORE | {"storage"},
    "providers": CORE | {"providers"},
    "egress": CORE | {"egress"},
    "sinks": CORE | {"sinks"},
    "flows": FLOWS,
    "wiring": EDGE,
    "web": EDGE | {"web"},
    "client": CORE | {"client"},
    "cli": EDGE | {"cli", "client"},
    "simulator": {"simulator"},
    "__main__": {"cli"},
}

# The commands whose work it is to start something that stands beside the command line.
EXCEPTIONS: dict[str, set[str]] = {
    "service/cli/serve.py": {"web"},
    "service/cli/demo/stage.py": {"simulator"},
    "service/cli/simulate.py": {"simulator"},
}


def layer_of(path: str) -> str:
    parts = path.removesuffix(".py").split("/")[1:]
    return "" if parts == ["__init__"] else parts[0]


def imported_layers(source: Module) -> Iterator[tuple[int, str]]:
    """Give line and layer of every import from our own package, wherever in the file it stands."""
    package = source.path.split("/")[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "service":
                yield node.lineno, parts[1] if len(parts) > 1 else ""


def breaches(source: Module) -> list[str]:
    layer = layer_of(source.path)
    allowed = MAY_IMPORT[layer] | EXCEPTIONS.get(source.path, set())
    return [
        f"{source.path}:{line} imports service.{target}"
        for line, target in imported_layers(source)
        if target not in allowed
    ]


def test_every_module_belongs_to_a_known_layer() -> None:
    unknown = [source.path for source in modules("service") if layer_of(source.path) not in MAY_IMPORT]
    assert unknown == []


def test_no_module_imports_from_a_layer_above_or_beside_it() -> None:
    assert [breach for source in modules("service") for breach in breaches(source)] == []


def test_the_domain_does_no_input_or_output() -> None:
    outside = {
        "asyncio",
        "httpx",
        "os",
        "pathlib",
        "socket",
        "sqlalchemy",
        "sqlmodel",
        "sqlite3",
        "starlette",
    }
    seen = {
        f"{source.path}: {name}"
        for source in modules("service/domain")
        for node in ast.walk(source.tree)
        for name in _roots(node)
        if name in outside
    }
    assert seen == set()


def _roots(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/domain/job.py", "import service.storage.tables"),
        ("service/domain/job.py", "from service import settings"),
        ("service/domain/job.py", "from ..storage import tables"),
        ("service/domain/job.py", "def f():\n    from service.flows import advance"),
        ("service/storage/jobs.py", "from service.providers.fal import Fal"),
        ("service/providers/fal.py", "from service.storage import database"),
        ("service/egress/client.py", "from service.providers.transport import tls_context"),
        ("service/providers/fal.py", "from service.egress import Egress"),
        ("service/sinks/nats.py", "from service.storage import sinks"),
        ("service/storage/sinks.py", "from service.sinks import base"),
        ("service/flows/submit.py", "from service.settings import Settings"),
        ("service/flows/submit.py", "import service.wiring as wiring"),
        ("service/wiring.py", "from .web import app"),
        ("service/web/app.py", "from service.cli import main"),
        ("service/cli/keys.py", "from service.web import app"),
        ("service/simulator/fal.py", "from service.domain import money"),
        ("service/client/calls.py", "from service.settings import Settings"),
        ("service/client/calls.py", "from service.providers import registry"),
        ("service/web/app.py", "from service.client import Fluxgate"),
    ],
)
def test_a_breach_of_the_import_rule_is_seen(path: str, line: str) -> None:
    assert len(breaches(module(path, line))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("service/domain/job.py", "from service.domain.money import Usd"),
        ("service/storage/jobs.py", "from ..domain import job"),
        ("service/flows/submit.py", "from service.providers import registry"),
        ("service/flows/deliver.py", "from service.egress import Egress"),
        ("service/flows/sink.py", "from service.sinks.base import Sink"),
        ("service/wiring.py", "from service.settings import Settings"),
        ("service/web/app.py", "from service.wiring import System"),
        ("service/cli/serve.py", "from service.web import app"),
        ("service/cli/listen.py", "from service.client import Fluxgate"),
        ("service/client/calls.py", "from service.domain import exact_json"),
        ("service/simulator/fal.py", "from starlette.applications import Starlette"),
    ],
)
def test_an_import_that_keeps_to_the_rule_is_not_blamed(path: str, line: str) -> None:
    assert breaches(module(path, line)) == []
