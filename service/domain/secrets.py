"""Secrets derived from the service's keys, never stored: those of attempts, and the keys that seal and sign.

One HKDF label for each use, so that who learns one learns nothing of the other. A key's id stands in the row, so
that another process, or a later release with newer keys, derives the same.
"""

import base64
import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_TOKEN = b"fluxgate callback token v1"
_WEBHOOK_SECRET = b"fluxgate webhook secret v1"
_SEALING = b"fluxgate sealing key v1"
_NONCING = b"fluxgate sealing nonce v1"
_SIGNING = b"fluxgate webhook signing key v1"


def key_id_of(key: bytes) -> str:
    """This function will name a service key without telling it."""
    return hashlib.sha256(b"fluxgate key id v1" + key).hexdigest()[:16]


def token_hash_of(token: str) -> str:
    """This function will hash a callback token; only this hash is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _derive(key: bytes, label: bytes, about: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label + b"\0" + about.encode()).derive(key)


def _derive_text(key: bytes, label: bytes, attempt_id: str) -> str:
    return base64.urlsafe_b64encode(_derive(key, label, attempt_id)).rstrip(b"=").decode()


class KeyRing:
    """The service's secret keys, newest first; each 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("secret keys are 32 bytes each, and there is at least one")
        self._keys = {key_id_of(key): key for key in keys}
        self._sealing = {
            key_id: (_derive(key, _SEALING, ""), _derive(key, _NONCING, ""))
            for key_id, key in self._keys.items()
        }
        self.current = key_id_of(keys[0])
        #: Newest first.
        self.key_ids = tuple(self._keys)

    def token(self, key_id: str, attempt_id: str) -> str | None:
        """This function will derive an attempt's callback token; None when the key is gone."""
        key = self._keys.get(key_id)
        return None if key is None else _derive_text(key, _TOKEN, attempt_id)

    def webhook_secret(self, key_id: str, attempt_id: str) -> str | None:
        """This function will derive the secret an attempt's provider proves itself with; None when the key is gone."""
        key = self._keys.get(key_id)
        return None if key is None else _derive_text(key, _WEBHOOK_SECRET, attempt_id)

    def sealing_keys(self, key_id: str) -> tuple[bytes, bytes] | None:
        """This function will give the keys that seal, and that make nonces for it; None when the key is gone."""
        return self._sealing.get(key_id)

    def signing_key(self, key_id: str, tenant: str) -> Ed25519PrivateKey | None:
        """This function will derive the key that a tenant's webhooks are signed with; None when the key is gone."""
        key = self._keys.get(key_id)
        return None if key is None else Ed25519PrivateKey.from_private_bytes(_derive(key, _SIGNING, tenant))
