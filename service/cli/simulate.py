"""`fluxgate simulate`: the fake providers alone."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.failing import Failed, wrong_use


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "simulate",
        short_help="Serve fake providers.",
        epilog="Example: fluxgate simulate --faults drop=0.1,forge=0.05,late=0.05 --seed 7",
    )(simulate)


def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 9090,
    faults: Annotated[str, typer.Option(metavar="SPEC", help="What goes wrong: dial=value,dial=value.")] = "",
    seed: Annotated[
        int | None, typer.Option(help="Makes a run repeatable; drawn and shown when absent.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate, for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
) -> None:
    """Serve fake providers, each under its own prefix: point FLUXGATE_FAL_QUEUE_URL to …/fal-queue,
    FLUXGATE_FAL_RUN_URL to …/fal-run, FLUXGATE_FAL_JWKS_URL to …/fal-rest/.well-known/jwks.json,
    FLUXGATE_FAL_PLATFORM_URL to …/fal-api/v1 and FLUXGATE_BFL_URL to …/bfl. Any key will do.

    Dials can be turned later with PUT /_sim/faults; GET /_sim/stats and /_sim/requests tell what happened.
    """
    if (tls_cert is None) != (tls_key is None):
        raise wrong_use("a certificate and its key go together", "give both --tls-cert and --tls-key")
    from service.simulator.app import run
    from service.simulator.faults import FaultError, parse

    try:
        dials = parse(faults)
    except FaultError as error:
        raise wrong_use(f"--faults {error}", "see 'fluxgate simulate --help'") from None
    try:
        run(host, port, faults=dials, seed=seed, tls_cert=tls_cert, tls_key=tls_key, ready=_ready)
    except OSError as error:
        what = f"the simulator cannot start on {host} port {port} ({error.strerror or error})"
        raise Failed(what, "choose another --port or --host, or other TLS files") from None


def _ready(url: str, seed: int) -> None:
    print(f"fluxgate: simulating on {url} with seed {seed}", flush=True)
