"""Secrets at rest: read by who has the key, about the same thing, unchanged, and by nobody else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.sealing import Unsealable, seal, unseal
from service.domain.secrets import KeyRing, key_id_of

NEW, OLD = b"n" * 32, b"o" * 32
RING = KeyRing([NEW])
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PINNED = "s1.002bbb352854440a.82QqDTWkOniIYLB1n5xi8dm3QlrNPyqnqQVqfsxS0oVOPlx14IFhodY8p9T-uU3CNuW9Dy4ppKme6QgO8Gi3GnQ2"


@given(st.text(), st.text())
def test_what_was_sealed_is_read_as_it_was(text: str, about: str) -> None:
    try:
        (text + about).encode()
    except UnicodeEncodeError:
        return
    sealed = seal(RING, text, about=about)
    assert unseal(RING, sealed, about=about) == text
    assert sealed.isascii()


def test_it_is_read_after_a_rotation_as_long_as_the_old_key_is_kept() -> None:
    sealed = seal(KeyRing([OLD]), SECRET, about="ep_1")
    assert unseal(KeyRing([NEW, OLD]), sealed, about="ep_1") == SECRET
    with pytest.raises(Unsealable, match="not among") as raised:
        unseal(KeyRing([NEW]), sealed, about="ep_1")
    assert raised.value.key_id == key_id_of(OLD)
    assert seal(KeyRing([NEW, OLD]), SECRET, about="ep_1").split(".")[1] == key_id_of(NEW)


def test_it_is_of_no_use_in_another_row() -> None:
    sealed = seal(RING, SECRET, about="ep_1")
    with pytest.raises(Unsealable, match="something else"):
        unseal(RING, sealed, about="ep_2")


def test_no_change_of_it_is_read() -> None:
    sealed = seal(RING, SECRET, about="ep_1")
    version, key_id, written = sealed.split(".")
    raw = bytearray(base64.urlsafe_b64decode(written + "=="))
    for place in range(len(raw)):
        raw[place] ^= 1
        changed = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
        raw[place] ^= 1
        with pytest.raises(Unsealable):
            unseal(RING, f"{version}.{key_id}.{changed}", about="ep_1")


@pytest.mark.parametrize(
    "text",
    ["", "s1", "s1.", "s2.x.y", SECRET, f"s1.{RING.current}", f"s1.{RING.current}.", f"s1.{RING.current}.!"],
)
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(Unsealable):
        unseal(RING, text, about="ep_1")


@given(st.text(max_size=60))
def test_whatever_stands_in_a_row_is_refused_with_its_own_error(text: str) -> None:
    for sealed in (text, f"s1.{RING.current}.{text}"):
        with pytest.raises(Unsealable):
            unseal(RING, sealed, about="ep_1")


def test_nothing_of_the_text_or_the_keys_shows() -> None:
    sealed = seal(RING, SECRET, about="ep_1")
    written = sealed.split(".")[2]
    raw = base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))
    assert SECRET.encode() not in raw
    assert SECRET[6:] not in sealed
    assert NEW not in raw


def test_no_two_texts_share_a_nonce_and_equal_ones_are_sealed_equally() -> None:
    def nonce(text: str, about: str, ring: KeyRing = RING) -> bytes:
        written = seal(ring, text, about=about).split(".")[2]
        return base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))[:12]

    told = [("a", "b"), ("ab", ""), ("", "ab"), ("a", ""), ("", "a"), ("a", "c"), ("b", "b")]
    nonces = [nonce(*each) for each in told] + [nonce("a", "b", KeyRing([OLD]))]
    assert len(set(nonces)) == len(nonces) == 8
    assert seal(RING, "a", about="b") == seal(RING, "a", about="b")


def test_sealed_texts_stay_readable_because_databases_hold_them() -> None:
    assert seal(RING, SECRET, about="ep_1") == PINNED
    assert unseal(RING, PINNED, about="ep_1") == SECRET
