"""`fluxgate listen`: passes the stream of events on to a program on this machine, as webhooks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failing import Failed, wrong_use
from service.domain.event_types import EVENT_TYPES

if TYPE_CHECKING:
    from service.cli.forwarding import Forwarder
    from service.client import Fluxgate

#: After so long without an answer a line says so; the listening goes on.
_PATIENCE_S = 10.0


def register(app: typer.Typer) -> None:
    """This function will add the command."""
    app.command(
        "listen",
        short_help="Post events to a program on this machine, as webhooks.",
        epilog="Example: fluxgate listen --forward-to http://127.0.0.1:3000/hook --types job.succeeded,job.failed",
    )(listen)


def listen(
    *,
    forward_to: Annotated[str, typer.Option(metavar="URL", help="Where your program takes webhooks.")],
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The service; FLUXGATE_URL when absent.")
    ] = None,
    types: Annotated[
        str, typer.Option(metavar="A,B", help="Only events of these types, comma-separated.")
    ] = "",
    after: Annotated[
        str,
        typer.Option(
            metavar="CURSOR", help="Begin behind this cursor; 'now', or 'start' for the oldest event kept."
        ),
    ] = "now",
    secret: Annotated[
        str | None, typer.Option(metavar="whsec_…", help="Sign with this secret; made and shown when absent.")
    ] = None,
) -> None:
    """Follow the events of a service and post each to a program of yours, as the service's own webhooks look: the same
    headers, body and signature. A developer so needs neither a public URL nor an endpoint.

    Needs FLUXGATE_API_KEY, a key with the scope events:read. Events go in order, one after the other; a program that
    fails is tried again for some seconds, then its event is left out. Ctrl-C ends it and tells where to go on.
    """
    import asyncio

    from service.cli.forwarding import Forwarder
    from service.cli.opening import read_settings
    from service.client import Fluxgate
    from service.client.surroundings import Surroundings

    chosen = _types(types)
    forward_to, signing = _target(forward_to), _secret(secret)
    settings = read_settings()
    if settings.api_key is None:
        raise Failed(
            "FLUXGATE_API_KEY is not set",
            "set it to a key that 'fluxgate keys create --name listen --scope events:read' shows",
        )
    key = settings.api_key.get_secret_value()
    try:
        client = Fluxgate(url or settings.url, key, retry_for_s=_PATIENCE_S)
    except ValueError as error:
        raise wrong_use(f"--url is wrong ({error})", "give it as in http://127.0.0.1:8080") from None
    told = "" if secret else f", signed with {signing}"
    ready = f"fluxgate: forwarding from {url or settings.url} to {forward_to}{told}"
    forwarder = Forwarder(forward_to, signing, surroundings=Surroundings(), say=_say)
    asyncio.run(_until_stopped(client, forwarder, after=after, types=chosen, ready=ready))


def _types(text: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [one for one in chosen if one not in EVENT_TYPES]
    if unknown:
        raise wrong_use(f"{unknown[0]!r} is no type of event", f"choose from {', '.join(EVENT_TYPES)}")
    return chosen


def _target(url: str) -> str:
    import httpx

    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise wrong_use(f"--forward-to {url!r} is no URL", "give it as in http://127.0.0.1:3000/hook")
    return url


def _secret(given: str | None) -> str:
    import secrets

    from service.domain import webhook

    if given is None:
        return webhook.new_secret(secrets.token_bytes(32))
    try:
        webhook.secret_bytes(given)
    except webhook.InvalidSecret:
        raise wrong_use("--secret is no secret", "give one that begins with whsec_, or none") from None
    return given


async def _until_stopped(
    client: "Fluxgate", forwarder: "Forwarder", *, after: str, types: Sequence[str], ready: str
) -> None:
    import asyncio
    import contextlib
    import signal

    task = asyncio.ensure_future(_follow(client, forwarder, after=after, types=types, ready=ready))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await forwarder.aclose()
        await client.aclose()


async def _follow(
    client: "Fluxgate", forwarder: "Forwarder", *, after: str, types: Sequence[str], ready: str
) -> None:
    import contextlib

    from service.client import CursorExpired, FluxgateError, ProblemAnswered

    place: str | None = None
    try:
        newest = await client.newest_cursor()
        place = {"now": newest, "start": None}.get(after, after)
        _say(ready)
        while True:
            try:
                async with contextlib.aclosing(client.events(after=place, types=types)) as events:
                    async for event in events:
                        await forwarder.forward(event)
                        place = event.cursor
            except FluxgateError as error:
                if not error.retryable:
                    raise
                _say(f"fluxgate: {error}; trying on")
    except CursorExpired as error:
        raise Failed(
            "what stood behind the cursor is no longer kept", f"go on with --after {error.oldest_cursor}"
        ) from None
    except ProblemAnswered as error:
        raise Failed(str(error), "check FLUXGATE_API_KEY, its scope events:read, and --after") from None
    except FluxgateError as error:
        raise Failed(str(error), "check --url or FLUXGATE_URL, and that the service runs") from None
    finally:
        if place is not None:
            _say(f"fluxgate: stopped; --after {place} goes on here")


def _say(line: str) -> None:
    from service.cli.showing import clean

    print(clean(line), flush=True)
