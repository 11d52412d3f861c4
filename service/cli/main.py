"""The command `fluxgate`: its list of commands, its exit codes, and errors as one line.

Rule: nothing heavy is imported before a command runs, so that `--help` is quick.
"""

import sys
from typing import Annotated

import typer

from service.cli import deliveries, endpoints, events, jobs, keys, listen, migrate, serve, simulate, work
from service.cli.demo import command as demo
from service.cli.failing import Failed, line

app = typer.Typer(
    name="fluxgate",
    help="Hands long jobs to providers of generative models and never loses, doubles or guesses their outcome.",
    epilog="Settings are environment variables or a .env file; README lists them. Try: fluxgate demo",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)
for module in (serve, work, migrate, demo, simulate, listen):
    module.register(app)
app.add_typer(keys.app)
app.add_typer(jobs.app)
app.add_typer(events.app)
app.add_typer(endpoints.app)
app.add_typer(deliveries.app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fluxgate {version('fluxgate')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """This function will take the options that stand before a command."""


def run(arguments: list[str]) -> int:
    """This function will run one command and return its exit code: 0 done, 1 failed, 2 wrong use."""
    try:
        code = app(arguments, prog_name="fluxgate", standalone_mode=False)
    except Failed as failed:
        for what, to_do in failed.problems:
            print(line(what, to_do), file=sys.stderr)
        return failed.code
    except typer.TyperException as error:
        return _wrong_use(error)
    except typer.Abort:
        return 130
    except BrokenPipeError:
        # Whoever read us has seen enough; Python would complain once more when it flushes at the end.
        sys.stdout = None
        return 1
    return code if isinstance(code, int) else 0


def _wrong_use(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fluxgate"
    said = getattr(error, "format_message", error.__str__)().strip().rstrip(".")
    if context is not None and not said:
        said = "a command is missing"
    print(line(said[:1].lower() + said[1:], f"see '{path} --help'"), file=sys.stderr)
    return int(getattr(error, "exit_code", 2))


def main() -> None:
    """This function will run the command that the process was started with."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
