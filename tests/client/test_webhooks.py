"""Verifying incoming webhooks: both formats, both kinds of signature, and everything that must not pass."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from service.client import Fluxgate, InvalidWebhook, verify_webhook
from service.domain import webhook
from tests.client.scene import JOB_ID, event

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
NOW_S = 1_795_000_000
SHOWN = event(7, "job.succeeded", state="succeeded", data={"id": JOB_ID, "seed": 10**30, "note": "Füchslein"})
TEXT = json.dumps(SHOWN, ensure_ascii=False, separators=(",", ":")).encode()
STANDARD = webhook.standard_body(SHOWN["type"], SHOWN["timestamp"], TEXT)
CLOUD = webhook.cloudevent_body(
    SHOWN["type"], SHOWN["timestamp"], TEXT, id=SHOWN["id"], job_id=JOB_ID, source="https://gate.example"
)


def headers(body: bytes, *, id: str = "evt_7", at_s: int = NOW_S, secret: str = SECRET) -> dict[str, str]:
    return {
        "Webhook-Id": id,
        "Webhook-Timestamp": str(at_s),
        "Webhook-Signature": webhook.sign(message_id=id, timestamp_s=at_s, body=body, secrets=[secret]),
    }


@pytest.mark.parametrize("body", [STANDARD, CLOUD], ids=["standard", "cloudevents"])
def test_a_webhook_gives_the_event_in_it(body: bytes) -> None:
    found = verify_webhook(headers(body), body, SECRET, now_s=NOW_S)
    assert (found.id, found.type, found.job_id, found.seq) == ("evt_7", "job.succeeded", JOB_ID, 7)
    assert found.data == SHOWN["data"]
    assert (found.text, found.cursor) == (TEXT, None)


def test_what_the_standard_package_signs_is_taken() -> None:
    at = datetime.fromtimestamp(NOW_S, tz=UTC)
    signature = standardwebhooks.Webhook(SECRET).sign("evt_7", at, STANDARD.decode())
    found = Fluxgate.verify_webhook(
        {**headers(STANDARD), "Webhook-Signature": f"v9,eA== {signature}"},
        STANDARD,
        SECRET,
        now_s=NOW_S + 299,
    )
    assert found.id == "evt_7"


def test_during_a_rotation_either_secret_is_enough() -> None:
    for signed_with in (SECRET, OTHER):
        sent = headers(STANDARD, secret=signed_with)
        assert verify_webhook(sent, STANDARD, [OTHER, SECRET], now_s=NOW_S).id == "evt_7"


def test_a_public_key_is_enough_where_the_service_signs_with_its_own() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    signature = webhook.sign_asymmetric(message_id="evt_7", timestamp_s=NOW_S, body=STANDARD, keys=[key])
    sent = {**headers(STANDARD), "Webhook-Signature": signature}
    public = webhook.public_text(key.public_key())
    assert verify_webhook(sent, STANDARD, public_keys=[public], now_s=NOW_S).id == "evt_7"
    other = webhook.public_text(Ed25519PrivateKey.from_private_bytes(bytes(31) + b"1").public_key())
    with pytest.raises(InvalidWebhook):
        verify_webhook(sent, STANDARD, public_keys=[other], now_s=NOW_S)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in headers(STANDARD).items() if key != name}


def resigned(body: bytes, **more: Any) -> tuple[dict[str, str], bytes]:
    return headers(body, **more), body


REFUSED = [
    (without("Webhook-Id"), STANDARD),
    (without("Webhook-Timestamp"), STANDARD),
    (without("Webhook-Signature"), STANDARD),
    ({**headers(STANDARD), "Webhook-Id": "evt_8"}, STANDARD),
    ({**headers(STANDARD), "Webhook-Timestamp": str(NOW_S + 1)}, STANDARD),
    ({**headers(STANDARD), "Webhook-Timestamp": "now"}, STANDARD),
    ({**headers(STANDARD), "Webhook-Signature": "v1,AAAA"}, STANDARD),
    ({**headers(STANDARD), "Webhook-Signature": "\ud800,\ud800 v1a,x v1"}, STANDARD),
    (headers(STANDARD), STANDARD + b" "),
    (headers(STANDARD), json.dumps(json.loads(STANDARD)).encode()),
    (headers(STANDARD, secret=OTHER), STANDARD),
    (headers(STANDARD, at_s=NOW_S - 301), STANDARD),
    (headers(STANDARD, at_s=NOW_S + 301), STANDARD),
    # Signed by whom it should be, and still no event of ours.
    resigned(b"no json"),
    resigned(b"[]"),
    resigned(b'{"type":"job.succeeded","data":{"id":"evt_7"}}'),
    resigned(STANDARD, id="evt_8"),
    resigned(STANDARD.replace(b'{"type":"job.succeeded"', b'{"type":"job.failed"', 1)),
    resigned(CLOUD.replace(b'"dev.fluxgate.', b'"org.example.')),
]


@pytest.mark.parametrize(("sent", "body"), REFUSED, ids=range(len(REFUSED)))
def test_what_must_not_be_believed_is_refused(sent: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidWebhook):
        verify_webhook(sent, body, SECRET, now_s=NOW_S)


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text(max_size=30)
    ),
    st.binary(max_size=50),
)
def test_nothing_that_a_stranger_sends_raises_anything_else(sent: dict[str, str], body: bytes) -> None:
    with pytest.raises(InvalidWebhook):
        verify_webhook(sent, body, SECRET, now_s=NOW_S)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_" + "_" * 44, "secret", ()], ids=repr)
def test_a_secret_that_is_none_is_our_own_mistake(secret: Any) -> None:
    with pytest.raises(ValueError, match=r"secret|must|base64"):
        verify_webhook(headers(STANDARD), STANDARD, secret, now_s=NOW_S)


def test_without_a_time_the_clock_of_the_machine_counts() -> None:
    with pytest.raises(InvalidWebhook, match="away from now"):
        verify_webhook(headers(STANDARD, at_s=1_600_000_000), STANDARD, SECRET)
