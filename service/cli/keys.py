"""`fluxgate keys`: makes, lists and revokes API keys."""

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failing import Failed, wrong_use
from service.domain.ids import TENANT

if TYPE_CHECKING:
    from service.wiring import Service

app = typer.Typer(
    name="keys",
    help="Make, list and revoke API keys.",
    rich_markup_mode=None,
    epilog="Example: fluxgate keys create --name backend",
)
_LONGEST_NAME = 200


@app.command(epilog="Example: fluxgate keys create --name pipeline --scope events:read --scope jobs:read")
def create(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs the key sees; made by being named.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="jobs:write, jobs:read, events:read, endpoints:write, audit:read or admin; may be repeated."
            " All but admin when none is given.",
        ),
    ] = None,
) -> None:
    """Make a key and print its id and its secret, this once: only a hash of the secret is stored."""
    from service.cli.opening import briefly
    from service.flows import keys as flow

    scopes = frozenset(scope or (one for one in flow.SCOPES if one != "admin"))
    unknown = sorted(scopes - set(flow.SCOPES))
    if unknown:
        raise wrong_use(f"{unknown[0]!r} is no scope", f"choose from {', '.join(flow.SCOPES)}")
    _check(name, tenant)
    secret = f"fxg_{secrets.token_urlsafe(32)}"

    async def act(service: "Service") -> str:
        key = await flow.create(service.runtime, tenant=tenant, name=name, scopes=scopes, secret=secret)
        assert key is not None, "256 random bits were drawn before"
        return key.id

    print(f"id: {briefly(act)}\nsecret: {secret}")


def _check(name: str, tenant: str) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise wrong_use(f"a name has 1 to {_LONGEST_NAME} printable characters", "give another --name")
    if not TENANT.fullmatch(tenant):
        raise wrong_use(
            "a tenant has 1 to 64 letters, digits, dots, dashes and underscores", "give another --tenant"
        )


@app.command("list", epilog="Example: fluxgate keys list --json")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the API would.")] = False,
) -> None:
    """List every key, revoked ones too: id, name, tenant, scopes, when it was made, when it was revoked."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.domain.timestamps import maybe_rfc3339, rfc3339
    from service.flows import keys as flow

    found = briefly(lambda service: flow.listed(service.runtime))
    shown = [
        {
            "id": key.id,
            "name": key.name,
            "tenant": key.tenant,
            "scopes": sorted(key.scopes),
            "created_at": rfc3339(key.created_ms),
            "revoked_at": maybe_rfc3339(key.revoked_ms),
        }
        for key in found
    ]
    if as_json:
        showing.listing(shown)
    else:
        columns = ("id", "name", "tenant", "scopes", "created_at", "revoked_at")
        lines = [
            {**line, "scopes": " ".join(sorted(key.scopes))} for key, line in zip(found, shown, strict=True)
        ]
        showing.rows(columns, [[line[column] for column in columns] for line in lines])


@app.command(epilog="Example: fluxgate keys revoke key_0199…")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as in 'keys list'.")],
) -> None:
    """Revoke a key: within seconds no process accepts it any more. This cannot be undone."""
    from service.cli.opening import briefly
    from service.flows import keys as flow

    if not briefly(lambda service: flow.revoke(service.runtime, key_id)):
        raise Failed(f"there is no valid key {key_id}", "see 'fluxgate keys list'")
    print(f"revoked: {key_id}")
