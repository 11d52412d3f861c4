"""`fluxgate events`: follows the stream of events, as the API's feed shows it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failing import Failed, wrong_use
from service.domain.event_types import EVENT_TYPES

if TYPE_CHECKING:
    from service.flows.reader import Reader
    from service.storage.events import Event
    from service.wiring import Service

app = typer.Typer(
    name="events",
    help="Follow the events.",
    rich_markup_mode=None,
    epilog="Example: fluxgate events tail --types job.succeeded,job.failed --after now",
)
#: Instead of a cursor: only what happens from now on.
_NOW = "now"
_AT_ONCE = 100
_WAIT_S = 60.0


@app.command(epilog="Example: fluxgate events tail --no-follow --json | jq .type")
def tail(
    *,
    tenant: Annotated[str, typer.Option(help="Whose events.")] = "default",
    types: Annotated[str, typer.Option(metavar="A,B", help="Only these types, comma-separated.")] = "",
    after: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            help="Begin behind this one: a cursor of the API, an event's seq, or 'now'. Without it: at the oldest.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON, as the API would.")
    ] = False,
    follow: Annotated[
        bool, typer.Option(help="Go on with what happens, or stop at the newest event.")
    ] = True,
) -> None:
    """Print events in commit order and follow what happens: time, type, job, event, cursor.

    Beside a running serve it only reads. SIGINT and SIGTERM end it.
    """
    from service.cli.opening import briefly
    from service.flows.errors import CursorExpired

    wanted, position = _types(types), None if after is None else _position(after)

    async def act(service: "Service") -> None:
        from service.flows import feed

        begin = await feed.newest(service.runtime) if position == _NOW else position
        assert not isinstance(begin, str)
        reader = service.tail.reader(tenant=tenant, after=begin, types=wanted)
        try:
            await _print_all(reader, as_json=as_json, follow=follow)
        except CursorExpired as error:
            oldest = f"--after {error.oldest}"
            raise Failed(str(error), f"begin with {oldest}, or leave --after out") from None

    briefly(act)


def _types(text: str) -> list[str] | None:
    given = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [one for one in given if one not in EVENT_TYPES]
    if unknown:
        raise wrong_use(f"{unknown[0]!r} is no type of event", f"choose from {', '.join(EVENT_TYPES)}")
    return given or None


def _position(text: str) -> int | str:
    from service.domain.cursors import reader

    if text == _NOW:
        return text
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text)
    try:
        return int(reader("events")(text))
    except ValueError:
        raise wrong_use(
            f"--after {text!r} is no cursor of the events",
            "give next_cursor of the feed, an event's seq, or 'now'",
        ) from None


async def _print_all(reader: "Reader", *, as_json: bool, follow: bool) -> None:
    import asyncio
    import signal
    import sys

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, reader.end)
    with reader:
        while not reader.ended:
            found = await reader.read(_AT_ONCE)
            for event in found:
                sys.stdout.write(_json(event) if as_json else _line(event))
            sys.stdout.flush()
            if not found:
                if not follow:
                    return
                await reader.wait(_WAIT_S)


def _json(event: "Event") -> str:
    from service.domain.event_object import event_text

    text = event_text(
        id=event.id,
        seq=event.seq,
        type=event.type,
        at_ms=event.at_ms,
        job_id=event.job_id,
        job_seq=event.job_seq,
        data=event.data,
    )
    return f"{text.decode()}\n"


def _line(event: "Event") -> str:
    from service.cli.showing import clean
    from service.domain.cursors import cursor
    from service.domain.timestamps import rfc3339

    shown: Sequence[object] = (
        rfc3339(event.at_ms),
        event.type,
        event.job_id,
        event.id,
        cursor("events", event.seq),
    )
    return "\t".join(map(clean, shown)) + "\n"
