"""`fluxgate endpoints`: makes, lists, changes and tests the URLs that events are sent to, as the API does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failing import wrong_use
from service.domain.event_types import EVENT_TYPES

if TYPE_CHECKING:
    from service.domain.endpoint import Endpoint
    from service.flows.endpoints import Shown

app = typer.Typer(
    name="endpoints",
    help="Make, list, change, test and remove the URLs that events are sent to.",
    rich_markup_mode=None,
    epilog="Example: fluxgate endpoints create https://consumer.example/hook --types job.succeeded,job.failed",
)
Tenant = Annotated[str, typer.Option(help="Whose endpoints.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id, as in 'endpoints list'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API would.")]
_TYPES = "Only events of these types, comma-separated; 'all' for every type."
_FORMAT = "standard (Standard Webhooks) or cloudevents (CloudEvents 1.0, structured)."
_SIGNATURES = "v1 (HMAC), or v1,v1a (Ed25519 beside it)."
_CONCURRENCY = "So many requests at once, at most."
_RATE = "So many requests in a second, at most; 0: no limit."
_LONGEST_DESCRIPTION = 500
_COLUMNS = ("id", "state", "url", "types", "description", "created_at")


@app.command("list", epilog="Example: fluxgate endpoints list --tenant acme --json")
def list_endpoints(
    *,
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this one: next_cursor of --json.")] = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints, newest first: id, state, URL, types, description, when it was made."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.domain.endpoint_object import endpoint_object
    from service.flows import endpoints as flow

    found = briefly(
        lambda service: flow.listed(service.runtime, tenant=tenant, before_id=cursor, most=limit + 1),
        things="endpoints",
    )
    objects = [endpoint_object(endpoint) for endpoint in found[:limit]]
    if as_json:
        showing.listing(objects, objects[-1]["id"] if len(found) > limit else None)
    else:
        lines = [{**one, "types": ",".join(one["types"]) or "all"} for one in objects]
        showing.rows(_COLUMNS, [[line[column] for column in _COLUMNS] for line in lines])


@app.command(epilog="Example: fluxgate endpoints show ep_0199… --json")
def show(endpoint_id: IdArgument, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Show one endpoint. Its secret is not shown: 'rotate-secret' makes a new one."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    _print(
        briefly(
            lambda service: flow.one(service.runtime, tenant=tenant, endpoint_id=endpoint_id),
            things="endpoints",
        ),
        as_json=as_json,
    )


@app.command(
    epilog="Example: fluxgate endpoints create https://consumer.example/hook --types job.succeeded,job.failed"
)
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted to: https.")],
    *,
    types: Annotated[str, typer.Option(metavar="A,B", help=_TYPES)] = "all",
    description: Annotated[str, typer.Option(help="For people; shown in lists.")] = "",
    format_: Annotated[str, typer.Option("--format", metavar="NAME", help=_FORMAT)] = "standard",
    signatures: Annotated[str, typer.Option(metavar="A,B", help=_SIGNATURES)] = "v1",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help=_CONCURRENCY)] = 16,
    rate: Annotated[int, typer.Option(min=0, max=1000, help=_RATE)] = 0,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Make an endpoint and print its id and its secret, this once."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    wanted = flow.Wanted(
        url=url,
        **_checked(
            types=types,
            description=description,
            format=format_,
            signatures=signatures,
            concurrency=concurrency,
            rate=rate,
        ),
    )
    made = briefly(
        lambda service: flow.create(service.runtime, tenant=tenant, wanted=wanted), things="endpoints"
    )
    _print_secret(made, as_json=as_json)


@app.command(epilog="Example: fluxgate endpoints update ep_0199… --state active --concurrency 4")
def update(
    endpoint_id: IdArgument,
    *,
    url: Annotated[str | None, typer.Option(help="Where events are posted to from now on.")] = None,
    types: Annotated[str | None, typer.Option(metavar="A,B", help=_TYPES)] = None,
    description: Annotated[str | None, typer.Option(help="For people; shown in lists.")] = None,
    format_: Annotated[str | None, typer.Option("--format", metavar="NAME", help=_FORMAT)] = None,
    signatures: Annotated[str | None, typer.Option(metavar="A,B", help=_SIGNATURES)] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=64, help=_CONCURRENCY)] = None,
    rate: Annotated[int | None, typer.Option(min=0, max=1000, help=_RATE)] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="active or disabled.")] = None,
    tenant: Tenant = "default",
    as_json: AsJson = False,
) -> None:
    """Change what is named and nothing else. '--state active' enables an endpoint that was disabled."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    changes = _checked(
        url=url,
        types=types,
        description=description,
        format=format_,
        signatures=signatures,
        concurrency=concurrency,
        rate=rate,
        state=state,
    )
    if not changes:
        raise wrong_use("nothing is to be changed", "see 'fluxgate endpoints update --help'")
    changed = briefly(
        lambda service: flow.change(service.runtime, tenant=tenant, endpoint_id=endpoint_id, changes=changes),
        things="endpoints",
    )
    _print(changed, as_json=as_json)


@app.command(epilog="Example: fluxgate endpoints delete ep_0199…")
def delete(endpoint_id: IdArgument, tenant: Tenant = "default") -> None:
    """Remove an endpoint for good; what waits for it is not sent any more."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    briefly(
        lambda service: flow.remove(service.runtime, tenant=tenant, endpoint_id=endpoint_id),
        things="endpoints",
    )
    print(f"deleted: {endpoint_id}")


@app.command("rotate-secret", epilog="Example: fluxgate endpoints rotate-secret ep_0199…")
def rotate_secret(endpoint_id: IdArgument, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Make a new secret and print it, this once; for 24 hours the one before signs, too."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    made = briefly(
        lambda service: flow.rotate(service.runtime, tenant=tenant, endpoint_id=endpoint_id),
        things="endpoints",
    )
    _print_secret(made, as_json=as_json)


@app.command("test", epilog="Example: fluxgate endpoints test ep_0199…")
def send_test(endpoint_id: IdArgument, tenant: Tenant = "default") -> None:
    """Send an event endpoint.test to this endpoint alone, and print the event's id."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    event_id = briefly(
        lambda service: flow.test(service.runtime, tenant=tenant, endpoint_id=endpoint_id),
        things="endpoints",
    )
    print(f"{event_id}: see 'fluxgate deliveries list --event {event_id}'")


@app.command(epilog="Example: fluxgate endpoints replay ep_0199… --after start")
def replay(
    endpoint_id: IdArgument,
    after: Annotated[
        str,
        typer.Option(
            metavar="CURSOR",
            help="A cursor of the feed, the seq of an event, or 'start' for all that is kept.",
        ),
    ],
    tenant: Tenant = "default",
) -> None:
    """Send again what came after an event, under the same ids, also what had been delivered."""
    from service.cli.opening import briefly
    from service.flows import endpoints as flow

    seq = _seq(after)
    briefly(
        lambda service: flow.replay(service.runtime, tenant=tenant, endpoint_id=endpoint_id, after=seq),
        things="endpoints",
    )
    print(
        f"{endpoint_id}: sends again " + ("all that is kept" if seq is None else f"what came after seq {seq}")
    )


def _seq(after: str) -> int | None:
    """The number to begin behind; None: with the oldest event that is kept."""
    from service.domain.cursors import reader

    if after == "start":
        return None
    if after.isascii() and after.isdecimal() and len(after) <= 18:
        return int(after)
    try:
        return int(reader("events")(after))
    except ValueError:
        raise wrong_use(
            f"{after!r} is no cursor of the feed",
            "give next_cursor of /v1/events, the seq of an event, or start",
        ) from None


def _checked(**given: Any) -> dict[str, Any]:
    """What was given, with its values as the flows take them.

    :raises Failed: if a word is none of those that may stand there.
    """
    from service.domain.endpoint import EndpointState, Format

    found = {name: value for name, value in given.items() if value is not None}
    if "types" in found:
        found["types"] = () if found["types"] == "all" else _words("types", found["types"], EVENT_TYPES)
    if "signatures" in found:
        found["signatures"] = _words("signatures", found["signatures"], ("v1", "v1a"))
        if "v1" not in found["signatures"]:
            raise wrong_use("v1 is always among the signatures", "give --signatures v1 or v1,v1a")
    if "format" in found:
        found["format"] = Format(_words("format", found["format"], tuple(Format))[0])
    if "state" in found:
        states = (EndpointState.ACTIVE, EndpointState.DISABLED)
        found["state"] = EndpointState(_words("state", found["state"], states)[0])
    if "rate" in found:
        found["rate_per_s"] = found.pop("rate") or None
    if len(found.get("description", "")) > _LONGEST_DESCRIPTION:
        raise wrong_use(
            f"a description has at most {_LONGEST_DESCRIPTION} characters", "shorten --description"
        )
    return found


def _words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [word for word in words if word not in known]
    if unknown:
        raise wrong_use(f"{unknown[0]!r} cannot stand in --{option}", f"choose from {', '.join(known)}")
    return words


def _print_secret(made: "Shown", *, as_json: bool) -> None:
    from service.cli import showing
    from service.domain.endpoint_object import endpoint_object

    if as_json:
        showing.document({**endpoint_object(made.endpoint), "secret": made.secret})
    else:
        print(f"id: {made.endpoint.id}\nsecret: {made.secret}")


def _print(endpoint: "Endpoint", *, as_json: bool) -> None:
    from service.cli import showing
    from service.domain.endpoint_object import endpoint_object

    shown = endpoint_object(endpoint)
    if as_json:
        showing.document(shown)
    else:
        showing.facts({**shown, "types": ",".join(shown["types"]) or "all"})
