"""Derived secrets and keys: the same on every process, and nothing of one tells another."""

import hashlib

import pytest

from service.domain.secrets import KeyRing, key_id_of, token_hash_of

NEW, OLD = b"n" * 32, b"o" * 32


def test_every_process_and_a_later_release_derives_the_same() -> None:
    old = KeyRing([OLD])
    rotated = KeyRing([NEW, OLD])
    assert rotated.token(old.current, "att_1") == old.token(old.current, "att_1")
    assert rotated.webhook_secret(old.current, "att_1") == old.webhook_secret(old.current, "att_1")


def test_the_newest_key_comes_first() -> None:
    assert KeyRing([NEW, OLD]).current == key_id_of(NEW)


def test_no_two_secrets_are_the_same() -> None:
    ring = KeyRing([NEW, OLD])
    secrets = [
        derive(key_id, attempt_id)
        for derive in (ring.token, ring.webhook_secret)
        for key_id in (key_id_of(NEW), key_id_of(OLD))
        for attempt_id in ("att_1", "att_2", "att_12", "")
    ]
    assert len(set(secrets)) == len(secrets) == 16


def test_a_secret_holds_256_bits_and_fits_into_a_url() -> None:
    token = KeyRing([NEW]).token(key_id_of(NEW), "att_1")
    assert token is not None
    assert len(token) == 43
    assert token.replace("-", "").replace("_", "").isalnum()


def test_without_its_key_a_secret_is_gone() -> None:
    ring = KeyRing([NEW])
    assert ring.token(key_id_of(OLD), "att_1") is None
    assert ring.webhook_secret(key_id_of(OLD), "att_1") is None


def test_each_tenant_and_each_key_has_a_signing_key_of_its_own() -> None:
    ring = KeyRing([NEW, OLD])
    assert ring.key_ids == (key_id_of(NEW), key_id_of(OLD))
    made = [ring.signing_key(key_id, tenant) for key_id in ring.key_ids for tenant in ("a", "b", "")]
    assert len({key.private_bytes_raw() for key in made if key is not None}) == 6
    again = KeyRing([OLD]).signing_key(key_id_of(OLD), "a")
    kept = ring.signing_key(key_id_of(OLD), "a")
    assert again is not None
    assert kept is not None
    assert again.private_bytes_raw() == kept.private_bytes_raw()
    assert KeyRing([NEW]).signing_key(key_id_of(OLD), "a") is None


def test_what_seals_and_what_makes_nonces_are_two_keys_and_neither_is_the_services() -> None:
    ring = KeyRing([NEW, OLD])
    pairs = [ring.sealing_keys(key_id) for key_id in ring.key_ids]
    assert None not in pairs
    assert len({key for pair in pairs if pair for key in pair} | {NEW, OLD}) == 6
    assert ring.sealing_keys("gone") is None


@pytest.mark.parametrize("keys", [[], [b"short"], [NEW, b""], [b"x" * 33]])
def test_weak_keys_and_no_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing(keys)


def test_a_keys_name_does_not_tell_the_key() -> None:
    assert len(key_id_of(NEW)) == 16
    assert key_id_of(NEW) != hashlib.sha256(NEW).hexdigest()[:16]


@pytest.mark.parametrize("token", ["", "a", "é", "\ud800", "\x00"])
def test_any_token_that_somebody_may_send_can_be_looked_up(token: str) -> None:
    assert len(token_hash_of(token)) == 64


def test_derivations_stay_as_they_are_because_providers_hold_them() -> None:
    ring = KeyRing([NEW])
    assert ring.token(ring.current, "att_1") == "dR9ndee7kBZcXR7E4qOIj-CX2Rp-OLjmGSYxJtgykgg"
    assert ring.webhook_secret(ring.current, "att_1") == "-ZVjVWYsXic17AKKPK9aB1bK0D8DqzHpuy9ApsiTog0"
    signing = ring.signing_key(ring.current, "default")
    assert signing is not None
    assert (
        signing.public_key().public_bytes_raw().hex()
        == "3b543aa22aa31f3d3df26659df6dfd5fe9eadf52c40388449a2cdada53e22e39"
    )
