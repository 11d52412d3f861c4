"""`fluxgate deliveries`: lists what was sent to endpoints, with every attempt, and sends it again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failing import wrong_use

if TYPE_CHECKING:
    from service.flows.deliveries import Whole
    from service.storage.deliveries import Filters

app = typer.Typer(
    name="deliveries",
    help="List, show and retry what is sent to endpoints.",
    rich_markup_mode=None,
    epilog="Example: fluxgate deliveries list --state dead",
)
Tenant = Annotated[str, typer.Option(help="Whose deliveries.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id, as in 'deliveries list'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API would.")]
_COLUMNS = ("id", "state", "endpoint_id", "event_type", "job_id", "attempts", "last", "created_at")


@app.command("list", epilog="Example: fluxgate deliveries list --state dead --endpoint ep_0199… --json")
def list_deliveries(
    *,
    tenant: Tenant = "default",
    endpoint: Annotated[str | None, typer.Option(metavar="ID", help="Only to this endpoint.")] = None,
    state: Annotated[str | None, typer.Option(help="Only these: pending, succeeded or dead.")] = None,
    event: Annotated[str | None, typer.Option(metavar="ID", help="Only of this event.")] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this one: next_cursor of --json.")] = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first: id, state, endpoint, event, job, number of attempts, how the last went, when."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.flows import deliveries as flow

    filters = _filters(endpoint, state, event, job)
    found = briefly(
        lambda service: flow.listed(
            service.runtime, tenant=tenant, filters=filters, before_id=cursor, most=limit + 1
        ),
        things="deliveries",
    )
    shown = [_object(whole) for whole in found[:limit]]
    if as_json:
        showing.listing(shown, shown[-1]["id"] if len(found) > limit else None)
    else:
        lines = [{**one, "attempts": len(one["attempts"]), "last": _last(one)} for one in shown]
        showing.rows(_COLUMNS, [[line[column] for column in _COLUMNS] for line in lines])


def _filters(endpoint: str | None, state: str | None, event: str | None, job: str | None) -> "Filters":
    from service.domain.endpoint import DeliveryState
    from service.storage.deliveries import Filters

    if state is not None and state not in tuple(DeliveryState):
        raise wrong_use(f"{state!r} is no state of a delivery", f"choose from {', '.join(DeliveryState)}")
    return Filters(
        endpoint_id=endpoint,
        state=None if state is None else DeliveryState(state),
        event_id=event,
        job_id=job,
    )


def _last(shown: dict[str, Any]) -> object:
    """How the last attempt went, in one word or number."""
    if not shown["attempts"]:
        return None
    last = shown["attempts"][-1]
    return last["status"] or last["error"]


@app.command(epilog="Example: fluxgate deliveries show dlv_0199… --json")
def show(delivery_id: IdArgument, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Show one delivery with its attempts."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.flows import deliveries as flow

    shown = _object(
        briefly(
            lambda service: flow.one(service.runtime, tenant=tenant, delivery_id=delivery_id),
            things="deliveries",
        )
    )
    if as_json:
        showing.document(shown)
        return
    attempts = shown.pop("attempts")
    showing.facts(shown)
    for attempt in attempts:
        number = attempt.pop("number")
        showing.facts({f"attempt {number} {name}": value for name, value in attempt.items()})


@app.command(epilog="Example: fluxgate deliveries retry dlv_0199…")
def retry(delivery_id: IdArgument, tenant: Tenant = "default") -> None:
    """Send a delivery again, now, also one that succeeded or is dead."""
    from service.cli.opening import briefly
    from service.flows import deliveries as flow

    whole = briefly(
        lambda service: flow.retry(service.runtime, tenant=tenant, delivery_id=delivery_id),
        things="deliveries",
    )
    print(f"{whole.delivery.id}: {whole.delivery.state.value}")


def _object(whole: "Whole") -> dict[str, Any]:
    from service.domain.endpoint_object import delivery_object

    return delivery_object(whole.delivery, whole.tries)
