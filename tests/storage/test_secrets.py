"""No secret in a row: what a stolen copy of the database tells must not let anybody act in our name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.sealing import Unsealable, seal, unseal
from service.domain.secrets import token_hash_of
from service.domain.webhook import new_secret
from service.flows import keys
from service.storage import endpoints, tenant_secrets
from service.storage.database import Tx
from service.storage.tables import METADATA
from tests.storage.going_out import endpoint
from tests.storage.world import KEY, Process, request, rows_in


async def test_no_table_holds_a_secret(one: Process, tmp_path: Path) -> None:
    job = (await one.accept(request(idempotency_key="order-7", body_hash="h"))).job
    attempt = await one.taken(job.id)
    secret = "the key that a caller shows"
    assert await keys.create(one.runtime, tenant="default", name="n", scopes=frozenset(), secret=secret)

    ring, key_id = one.runtime.keys, one.runtime.keys.current
    token, webhook_secret = ring.token(key_id, attempt.id), ring.webhook_secret(key_id, attempt.id)
    url = one.runtime.callback_url("fal", key_id, attempt.id)
    assert token is not None
    assert webhook_secret is not None
    assert url is not None
    everything = await one.door.read(
        lambda tx: json.dumps([rows_in(tx, table) for table in METADATA.tables], default=str)
    )
    assert token_hash_of(token) in everything, "the test looks where it is kept"
    assert attempt.id in everything
    for hidden in (token, webhook_secret, url, secret, KEY.decode(), KEY.hex(), "order-8"):
        assert hidden not in everything


async def test_what_webhooks_are_signed_with_is_sealed_in_its_row(one: Process) -> None:
    ring, secret, former = one.runtime.keys, new_secret(b"n" * 32), new_secret(b"f" * 32)
    own = endpoint("ep_1", secret=seal(ring, secret, about="ep_1"))
    rotated = replace(own, secret=seal(ring, former, about="ep_1"), previous_secret=own.secret)
    of_tenant = seal(ring, secret, about="tenant:default")

    def write(tx: Tx) -> None:
        endpoints.insert(tx, own)
        endpoints.save_many(tx, [rotated])
        tenant_secrets.ensure(tx, tenant="default", sealed=of_tenant, now_ms=1)

    await one.door.write(write)
    everything = await one.door.read(
        lambda tx: json.dumps([rows_in(tx, table) for table in METADATA.tables], default=str)
    )
    assert of_tenant in everything, "the test looks where it is kept"
    for hidden in (secret, former, secret[6:40], former[6:40], KEY.decode(), KEY.hex()):
        assert hidden not in everything
    found = (await one.door.read(lambda tx: endpoints.load(tx, ["ep_1"])))["ep_1"]
    assert found.secret is not None
    assert unseal(ring, found.secret, about="ep_1") == former
    with pytest.raises(Unsealable):
        unseal(ring, of_tenant, about="ep_1")
