"""Secrets and keys over HTTP: shown when they are made and never again, rotated with an overlap, public where public."""

import base64
import json
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select

from service.storage.statements import Statement
from service.storage.tables import METADATA
from tests.paths.test_web_endpoints import made, without_secret
from tests.paths.visitors import House, problem


async def test_a_secret_is_shown_when_it_is_made_and_never_again(house: House) -> None:
    visitor = await house.visitor()
    shown = await made(visitor)
    secret = shown["secret"]
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    url = f"/v1/endpoints/{shown['id']}"
    rotated = await visitor.post(f"{url}/rotate-secret")
    assert rotated.status_code == 200
    answers = [
        await visitor.get(url),
        await visitor.get("/v1/endpoints"),
        await visitor.patch(url, json={"description": "new"}),
        await visitor.post(f"{url}/test"),
        await visitor.get("/v1/events"),
    ]
    secrets = (secret, rotated.json()["secret"])
    everything = "".join(answer.text for answer in answers) + await stored(house)
    assert secrets[0] != secrets[1]
    assert not any(one in everything or one.removeprefix("whsec_") in everything for one in secrets)


async def stored(house: House) -> str:
    """Give every row of the database as text."""
    return await house.service.runtime.door.read(
        lambda tx: "".join(
            str(row) for table in METADATA.sorted_tables for row in tx.rows(Statement(select(table)))
        )
    )


async def test_a_rotated_secret_names_the_time_for_which_the_old_one_signs(house: House) -> None:
    visitor = await house.visitor()
    shown = await made(visitor)
    assert shown["previous_secret_until"] is None
    rotated = (await visitor.post(f"/v1/endpoints/{shown['id']}/rotate-secret")).json()
    until, since = (datetime.fromisoformat(rotated[name]) for name in ("previous_secret_until", "updated_at"))
    assert until - since == timedelta(hours=24)
    assert (await visitor.get(f"/v1/endpoints/{shown['id']}")).json() == without_secret(rotated)


async def test_the_secret_of_jobs_own_urls_is_made_and_rotated_for_each_tenant(house: House) -> None:
    ours, theirs = await house.visitor(), await house.visitor(tenant="other")
    url = "/v1/job-webhook-secret/rotate"
    first, second, other = [(await one.post(url)).json() for one in (ours, ours, theirs)]
    assert len({answer["secret"] for answer in (first, second, other)}) == 3
    assert (first["previous_secret_until"], other["previous_secret_until"]) == (None, None)
    assert second["previous_secret_until"] is not None
    everything = await stored(house)
    assert not any(answer["secret"].removeprefix("whsec_") in everything for answer in (first, second, other))


async def test_public_keys_are_open_and_are_those_that_sign(house: House) -> None:
    response = await house.stranger().get("/.well-known/webhook-keys/default")
    assert response.headers["cache-control"] == "public, max-age=300"
    (key,) = response.json()["keys"]
    raw = base64.urlsafe_b64decode(key["x"] + "=")
    assert base64.b64decode(key["whpk"].removeprefix("whpk_")) == raw
    ring = house.service.runtime.keys
    signing = ring.signing_key(ring.current, "default")
    assert signing is not None
    Ed25519PublicKey.from_public_bytes(raw).verify(signing.sign(b"x"), b"x")
    assert key["kid"] == ring.current
    assert (
        json.loads(response.text) == (await house.stranger().get("/.well-known/webhook-keys/default")).json()
    )


async def test_tenants_have_keys_of_their_own_and_nobody_learns_who_is_one(house: House) -> None:
    stranger = house.stranger()
    found = {
        (await stranger.get(f"/.well-known/webhook-keys/{tenant}")).json()["keys"][0]["x"]
        for tenant in ("default", "other", "nobody-at-all")
    }
    assert len(found) == 3
    for strange in ("%00", "a%2fb", "-x", "x" * 65, "%E2%9C%93", "a%0a"):
        problem(await stranger.get(f"/.well-known/webhook-keys/{strange}"), 404, "not_found")
