"""House rules about the code of the service that no linter checks."""

import ast
from collections.abc import Callable

import pytest

from tests.project.repository import ROOT, Module, files, module, modules

FORBIDDEN_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}
LONGEST_FUNCTION = 60

Check = Callable[[Module], list[str]]


def vague_names(source: Module) -> list[str]:
    parts = source.path.removesuffix(".py").split("/")
    return [source.path] if FORBIDDEN_NAMES & {word for part in parts for word in part.split("_")} else []


def missing_docstring(source: Module) -> list[str]:
    return [] if ast.get_docstring(source.tree) else [source.path]


def long_functions(source: Module) -> list[str]:
    return [
        f"{source.path}:{node.lineno} {node.name}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION
    ]


def environment_reads(source: Module) -> list[str]:
    """Find os.environ and its like, and options of commands that would read a variable of their own."""
    readers = {"environ", "environb", "getenv", "getenvb", "load_dotenv", "dotenv_values"}
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            blamed = node.attr in readers
        elif isinstance(node, ast.ImportFrom):
            blamed = any(alias.name in readers for alias in node.names)
        elif isinstance(node, ast.keyword):
            blamed = node.arg == "envvar"
        else:
            continue
        if blamed and source.path != "service/settings.py":
            found.append(f"{source.path}:{getattr(node, 'lineno', 0)}")
    return found


def asynchronous_commands(source: Module) -> list[str]:
    """Find coroutine functions registered as commands: Typer would make them, run nothing, and exit 0."""
    coroutines = {node.name: node for node in ast.walk(source.tree) if isinstance(node, ast.AsyncFunctionDef)}
    registered = {
        argument.id
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Call) and _registers(node.func)
        for argument in node.args
        if isinstance(argument, ast.Name)
    }
    return [
        f"{source.path}:{node.lineno} {name}"
        for name, node in coroutines.items()
        if name in registered or any(_registers(decorator) for decorator in node.decorator_list)
    ]


def _registers(node: ast.expr) -> bool:
    target = node.func if isinstance(node, ast.Call) else node
    return isinstance(target, ast.Attribute) and target.attr in {"command", "callback"}


def escapes(source: Module) -> list[str]:
    """Find ways out of a test: what cannot run here is a defect of the set-up, not a reason to be green."""
    ways = {"skip", "skipif", "skipTest", "importorskip", "xfail"}
    return [
        f"{source.path}:{node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and node.attr in ways
    ]


@pytest.mark.parametrize(
    "check", [vague_names, missing_docstring, long_functions, environment_reads, asynchronous_commands]
)
def test_the_service_keeps_to_the_rule(check: Check) -> None:
    assert [found for source in modules("service") for found in check(source)] == []


def test_every_module_outside_the_service_says_what_it_is_for() -> None:
    around = [
        path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "service"
    ]
    assert ROOT / "tests/conftest.py" in around
    read = [module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in around]
    assert [found for source in read for found in missing_docstring(source)] == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    assert [found for source in modules("tests") for found in escapes(source)] == []


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (vague_names, "service/storage/utils.py", ""),
        (vague_names, "service/common/job.py", ""),
        (vague_names, "service/flows/job_manager.py", ""),
        (missing_docstring, "service/flows/x.py", "import os"),
        (long_functions, "service/flows/x.py", "async def f():\n" + "    g()\n" * LONGEST_FUNCTION),
        (environment_reads, "service/wiring.py", "import os\nx = os.environ['X']"),
        (environment_reads, "service/wiring.py", "from os import getenv"),
        (environment_reads, "service/cli/serve.py", "port = typer.Option(8080, envvar='PORT')"),
        (asynchronous_commands, "service/cli/x.py", "@app.command()\nasync def f(): ..."),
        (asynchronous_commands, "service/cli/x.py", "@app.callback\nasync def f(): ..."),
        (asynchronous_commands, "service/cli/x.py", "async def f(): ...\napp.command('f')(f)"),
        (escapes, "tests/unit/test_x.py", "@pytest.mark.skipif(True, reason='')\ndef test_x(): ..."),
        (escapes, "tests/unit/test_x.py", "def test_x(): pytest.importorskip('x')"),
    ],
)
def test_a_breach_of_a_rule_is_seen(check: Check, path: str, text: str) -> None:
    assert len(check(module(path, text))) == 1


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (vague_names, "service/storage/job_rows.py", ""),
        (missing_docstring, "service/flows/x.py", '"""Does one thing."""'),
        (long_functions, "service/flows/x.py", "def f():\n" + "    g()\n" * (LONGEST_FUNCTION - 1)),
        (environment_reads, "service/settings.py", "import os\nx = os.environ"),
        (asynchronous_commands, "service/cli/x.py", "async def f(): ...\n@app.command()\ndef g(): run(f)"),
    ],
)
def test_code_that_keeps_to_a_rule_is_not_blamed(check: Check, path: str, text: str) -> None:
    assert check(module(path, text)) == []
