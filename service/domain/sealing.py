"""Secrets at rest: sealed with AES-256-GCM under a key derived from one of the service's keys.

A sealed text names its key, so that what an older key sealed can be read as long as that key is kept. What it is
about (an endpoint's id, say) is authenticated with it: moved to another row, it cannot be read.
The nonce is derived from what is sealed, under a key of its own (as in a synthetic IV): equal texts about the same
thing are sealed equally, and no two different ones ever share a nonce but by a collision of 96 bits.
"""

import base64
import binascii
import hmac
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.domain.secrets import KeyRing

_VERSION = "s1"
_NONCE_BYTES = 12


class Unsealable(Exception):
    """A sealed text cannot be read: its key (`key_id`) is gone, or it is damaged or not about this."""

    def __init__(self, message: str, *, key_id: str | None = None) -> None:
        super().__init__(message)
        self.key_id = key_id


def seal(keys: KeyRing, text: str, *, about: str) -> str:
    """This function will seal a text with the newest key; it can be unsealed only as being about the same thing."""
    pair = keys.sealing_keys(keys.current)
    assert pair is not None, "the current key is there"
    cipher, noncing = pair
    plain = text.encode()
    told = about.encode()
    nonce = hmac.digest(noncing, len(told).to_bytes(8) + told + plain, sha256)[:_NONCE_BYTES]
    sealed = nonce + AESGCM(cipher).encrypt(nonce, plain, told)
    return f"{_VERSION}.{keys.current}.{base64.urlsafe_b64encode(sealed).rstrip(b'=').decode()}"


def unseal(keys: KeyRing, sealed: str, *, about: str) -> str:
    """This function will read a sealed text.

    :raises Unsealable: if its key is gone, it was changed, or it was sealed about something else.
    """
    version, _, rest = sealed.partition(".")
    key_id, _, written = rest.partition(".")
    if version != _VERSION:
        raise Unsealable("this is no sealed text")
    pair = keys.sealing_keys(key_id)
    if pair is None:
        raise Unsealable(
            f"the secret key {key_id} that sealed it is not among the service's keys", key_id=key_id
        )
    try:
        raw = base64.b64decode(written + "=" * (-len(written) % 4), altchars=b"-_", validate=True)
        return AESGCM(pair[0]).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], about.encode()).decode()
    except (binascii.Error, ValueError, InvalidTag) as error:
        raise Unsealable("it was changed, or sealed about something else", key_id=key_id) from error
