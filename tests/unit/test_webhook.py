"""Webhooks: the published vectors, the package that receivers use, and everything hostile that may arrive."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_structured_event
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from service.domain.event_object import event_text
from service.domain.webhook import (
    CLOUDEVENT_CONTENT_TYPE,
    InvalidSecret,
    InvalidSignature,
    InvalidTimestamp,
    MissingHeader,
    StaleTimestamp,
    WebhookRefused,
    cloudevent_body,
    new_secret,
    public_key,
    public_text,
    secret_bytes,
    sign,
    sign_asymmetric,
    standard_body,
    verify,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "standard_webhooks.json").read_text())
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(base64.b64decode(key["seed_b64"]))
    for name, key in VECTORS["ed25519_keys"].items()
}
PUBLIC = {name: key["whpk"] for name, key in VECTORS["ed25519_keys"].items()}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_TIfvSAg8HJwX43YU8OkqxvjBpG9Mouxt"
NOW_S = 1_800_000_000
EVENT = event_text(
    id="evt_1",
    seq=1042,
    type="job.succeeded",
    at_ms=1_763_640_000_123,
    job_id="job_1",
    job_seq=5,
    data='{"state":"succeeded","seed":15860307465884635512345,"note":"Café — 雪"}',
)
BODY = standard_body("job.succeeded", "2025-11-20T12:00:00.123Z", EVENT)


def headers(
    signature: str, *, message_id: str = "evt_1", timestamp: int | str = NOW_S, **more: str
) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
        **more,
    }


def signed(body: bytes = BODY, *, secrets: tuple[str, ...] = (SECRET,), timestamp_s: int = NOW_S) -> str:
    return sign(message_id="evt_1", timestamp_s=timestamp_s, body=body, secrets=secrets)


def accepts(told: Mapping[str, str], body: bytes = BODY, *, secret: str = SECRET, now_s: int = NOW_S) -> bool:
    try:
        verify(headers=told, body=body, secrets=[secret], now_s=now_s)
    except WebhookRefused:
        return False
    return True


@pytest.mark.parametrize("vector", VECTORS["signing"], ids=lambda vector: vector["name"])
def test_signatures_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    told = {
        "message_id": vector["id"],
        "timestamp_s": vector["timestamp"],
        "body": vector["body"].encode(),
    }
    key = KEYS[vector["ed25519_key"]]
    assert sign(**told, secrets=[vector["secret"]]) == vector["expected_v1"]
    assert sign_asymmetric(**told, keys=[key]) == vector["expected_v1a"]
    for signature, keys in [
        (vector["expected_v1"], {"secrets": [vector["secret"]]}),
        (vector["expected_v1a"], {"public_keys": [PUBLIC[vector["ed25519_key"]]]}),
        (vector["expected_v1a"], {"public_keys": [key.public_key()]}),
    ]:
        verify(
            headers=headers(signature, message_id=vector["id"], timestamp=vector["timestamp"]),
            body=vector["body"].encode(),
            now_s=vector["timestamp"],
            **keys,
        )


@pytest.mark.parametrize("vector", VECTORS["rotation"], ids=lambda vector: vector["name"])
def test_a_rotation_is_signed_and_verified_as_the_vectors_say(vector: dict[str, Any]) -> None:
    told = {
        "message_id": vector["id"],
        "timestamp_s": vector["timestamp"],
        "body": vector["body"].encode(),
    }
    secrets = [each for each in vector["sign_with"] if each not in KEYS]
    keys = [KEYS[each] for each in vector["sign_with"] if each in KEYS]
    made = " ".join(filter(None, [sign(**told, secrets=secrets), sign_asymmetric(**told, keys=keys)]))
    assert made == vector["expected_webhook_signature"]
    for each, expected in vector["verifies_with"].items():
        given_keys: Any = {"public_keys": [PUBLIC[each]]} if each in KEYS else {"secrets": [each]}
        try:
            verify(
                headers=headers(made, message_id=vector["id"], timestamp=vector["timestamp"]),
                body=vector["body"].encode(),
                now_s=vector["timestamp"],
                **given_keys,
            )
            verified = True
        except InvalidSignature:
            verified = False
        assert verified == expected, each


class TestTheReceiversPackage:
    """`standardwebhooks` looks at the real clock."""

    @given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.text(max_size=300))
    def test_verifies_what_we_sign_with_the_new_and_with_the_old_secret(
        self, new: bytes, old: bytes, note: str
    ) -> None:
        body = standard_body("job.succeeded", "2026-11-20T12:00:00.000Z", json.dumps({"note": note}).encode())
        now_s = int(time.time())
        secrets = (new_secret(new), new_secret(old))
        told = headers(signed(body, secrets=secrets, timestamp_s=now_s), timestamp=now_s)
        for secret in secrets:
            assert Webhook(secret).verify(body, told)["data"] == {"note": note}
        if new != old:
            with pytest.raises(WebhookVerificationError):
                Webhook(new_secret(bytes(32 * [1]))).verify(body, told)

    @given(st.binary(min_size=24, max_size=64), st.text(max_size=300))
    def test_signs_what_we_verify(self, key: bytes, body: str) -> None:
        secret = "whsec_" + base64.b64encode(key).decode()
        try:
            raw = body.encode()
        except UnicodeEncodeError:
            return
        at = datetime.fromtimestamp(NOW_S, tz=UTC)
        assert sign(message_id="evt_1", timestamp_s=NOW_S, body=raw, secrets=[secret]) == Webhook(
            secret
        ).sign("evt_1", at, body)
        verify(
            headers=headers(Webhook(secret).sign("evt_1", at, body)), body=raw, secrets=[secret], now_s=NOW_S
        )


class TestVerifying:
    def test_finds_headers_however_they_are_written(self) -> None:
        told = {name.title(): value for name, value in headers(signed()).items()}
        assert accepts(told)

    @pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_names_the_header_that_is_missing(self, name: str) -> None:
        told = headers(signed())
        for missing in ({key: value for key, value in told.items() if key != name}, {**told, name: ""}):
            with pytest.raises(MissingHeader) as raised:
                verify(headers=missing, body=BODY, secrets=[SECRET], now_s=NOW_S)
            assert raised.value.name == name

    @pytest.mark.parametrize(
        "timestamp", ["1.5", "-1", "+1", "1e9", " 1", "x", "NaN", "١٢٣", "1_0", "9" * 13, "0x10", "\ud800"]
    )
    def test_refuses_a_timestamp_that_is_no_number(self, timestamp: str) -> None:
        with pytest.raises(InvalidTimestamp) as raised:
            verify(headers=headers(signed(), timestamp=timestamp), body=BODY, secrets=[SECRET], now_s=NOW_S)
        assert raised.value.value == timestamp

    def test_takes_five_minutes_before_and_after_and_no_more(self) -> None:
        told = headers(signed())
        assert accepts(told, now_s=NOW_S + 300)
        assert accepts(told, now_s=NOW_S - 300)
        for now_s in (NOW_S + 301, NOW_S - 301):
            with pytest.raises(StaleTimestamp) as raised:
                verify(headers=told, body=BODY, secrets=[SECRET], now_s=now_s)
            assert (raised.value.timestamp_s, raised.value.now_s) == (NOW_S, now_s)

    def test_takes_nothing_that_was_changed_or_is_anothers(self) -> None:
        good = signed()
        assert accepts(headers(good))
        assert not accepts(headers(good), BODY + b" ")
        assert not accepts(headers(good, message_id="evt_2"))
        assert not accepts(headers(good, timestamp=NOW_S + 1))
        assert not accepts(headers(good, timestamp=f"0{NOW_S}"))
        assert not accepts(headers(good), secret=OTHER)
        assert not accepts(headers(good.replace("v1,", "v2,")))
        assert not accepts(headers(good.replace("v1,", "v1a,")))
        assert not accepts(headers(good[:-2]))
        assert not accepts(headers(good.lower()))

    def test_passes_over_what_it_does_not_know(self) -> None:
        junk = "v1 v1, ,x v9,abc v1a,!!! v1a,AAAA v1,\ud800 \x00"
        assert accepts(headers(f"{junk} {signed()}"))
        assert not accepts(headers(junk))

    def test_looks_at_a_bounded_number_of_signatures(self) -> None:
        assert not accepts(headers(" ".join(["v1,x"] * 16 + [signed()])))

    @given(
        st.dictionaries(
            st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "Webhook-Id", "x"]),
            st.text(st.characters(), max_size=60)
            | st.just(str(NOW_S))
            | st.text("v1a,= ABCabc+/\ud800", max_size=80),
        ),
        st.binary(max_size=50),
    )
    def test_refuses_whatever_comes_with_an_error_of_its_own(self, told: dict[str, str], body: bytes) -> None:
        with pytest.raises(WebhookRefused):
            verify(headers=told, body=body, secrets=[SECRET], public_keys=[PUBLIC["test_a"]], now_s=NOW_S)

    def test_needs_a_key(self) -> None:
        with pytest.raises(InvalidSecret):
            verify(headers=headers(signed()), body=BODY, now_s=NOW_S)


class TestSecrets:
    def test_are_32_random_bytes_in_standard_base64(self) -> None:
        made = new_secret(b"\xfb\xff" * 16)
        assert made == "whsec_" + base64.b64encode(b"\xfb\xff" * 16).decode()
        assert "/" in made
        assert secret_bytes(made) == b"\xfb\xff" * 16
        with pytest.raises(ValueError, match="32"):
            new_secret(b"short")

    @pytest.mark.parametrize(
        "secret",
        [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
            "whsec_" + base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
            "whsec_" + base64.b64encode(b"x" * 23).decode(),
            "whsec_" + base64.b64encode(b"x" * 65).decode(),
            "whsec_é",
            "whpk_" + base64.b64encode(b"x" * 32).decode(),
        ],
    )
    def test_in_any_other_form_are_refused(self, secret: str) -> None:
        with pytest.raises(InvalidSecret) as raised:
            secret_bytes(secret)
        assert raised.value.reason
        assert "MfKQ" not in str(raised.value), "an error holds no secret"

    @pytest.mark.parametrize(
        "text", ["", "whpk_", "whpk_!", SECRET, "whpk_" + base64.b64encode(b"x" * 31).decode()]
    )
    def test_a_public_key_is_32_bytes(self, text: str) -> None:
        with pytest.raises(InvalidSecret):
            public_key(text)

    @pytest.mark.parametrize("name", KEYS)
    def test_a_public_key_is_written_as_it_is_read(self, name: str) -> None:
        assert public_text(KEYS[name].public_key()) == PUBLIC[name] == public_text(public_key(PUBLIC[name]))


def test_an_id_cannot_move_the_border_to_the_timestamp() -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign(message_id="evt_1.5", timestamp_s=1, body=b"", secrets=[SECRET])


def test_the_body_is_type_timestamp_and_the_bytes_of_the_event() -> None:
    start = b'{"type":"job.succeeded","timestamp":"2025-11-20T12:00:00.123Z","data":'
    assert start + EVENT + b"}" == BODY


def test_the_event_keeps_every_digit_and_says_what_the_contract_says() -> None:
    assert EVENT.decode() == (
        '{"id":"evt_1","object":"event","seq":1042,"type":"job.succeeded","timestamp":"2025-11-20T12:00:00.123Z",'
        '"job_id":"job_1","job_seq":5,'
        '"data":{"state":"succeeded","seed":15860307465884635512345,"note":"Café — 雪"}}'
    )


class TestACloudEvent:
    @pytest.mark.parametrize("job_id", ["job_1", None])
    def test_is_read_by_the_package_of_the_cloudevents_project(self, job_id: str | None) -> None:
        body = cloudevent_body(
            "job.succeeded",
            "2025-11-20T12:00:00.123Z",
            EVENT,
            id="evt_1",
            job_id=job_id,
            source="https://flux.example/",
        )
        read = from_http_event(HTTPMessage(headers={"content-type": CLOUDEVENT_CONTENT_TYPE}, body=body))
        assert read.get_id() == "evt_1"
        assert read.get_type() == "dev.fluxgate.job.succeeded"
        assert read.get_source() == "https://flux.example/"
        assert read.get_specversion() == "1.0"
        assert read.get_subject() == job_id
        assert read.get_time() == datetime(2025, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)
        assert read.get_datacontenttype() == "application/json"
        assert read.get_data() == json.loads(EVENT)
        assert EVENT in body, "its data is the event, byte for byte"
        written_by_it = json.loads(to_structured_event(read).body)
        assert {**written_by_it, "time": "2025-11-20T12:00:00.123Z"} == json.loads(body)
