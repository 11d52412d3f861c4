"""No secret in a row: what a stolen copy of the database tells must not let anybody act in our name."""

import json
from pathlib import Path

from service.domain.secrets import token_hash_of
from service.flows import keys
from service.storage.tables import METADATA
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
