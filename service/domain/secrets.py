"""Per-attempt secrets: derived from a service key and the attempt's id, never stored.

One HKDF label for each use, so that who learns one learns nothing of the other. A key's id stands in the row, so
that another process, or a later release with newer keys, derives the same.
"""

import base64
import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_TOKEN = b"fluxgate callback token v1"
_WEBHOOK_SECRET = b"fluxgate webhook secret v1"


def key_id_of(key: bytes) -> str:
    """This function will name a service key without telling it."""
    return hashlib.sha256(b"fluxgate key id v1" + key).hexdigest()[:16]


def token_hash_of(token: str) -> str:
    """This function will hash a callback token; only this hash is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _derive(key: bytes, label: bytes, attempt_id: str) -> str:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=label + b"\0" + attempt_id.encode()).derive(
        key
    )
    return base64.urlsafe_b64encode(derived).rstrip(b"=").decode()


class KeyRing:
    """The service's secret keys, newest first; each 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("secret keys are 32 bytes each, and there is at least one")
        self._keys = {key_id_of(key): key for key in keys}
        self.current = key_id_of(keys[0])

    def token(self, key_id: str, attempt_id: str) -> str | None:
        """This function will derive an attempt's callback token; None when the key is gone."""
        key = self._keys.get(key_id)
        return None if key is None else _derive(key, _TOKEN, attempt_id)

    def webhook_secret(self, key_id: str, attempt_id: str) -> str | None:
        """This function will derive the secret an attempt's provider proves itself with; None when the key is gone."""
        key = self._keys.get(key_id)
        return None if key is None else _derive(key, _WEBHOOK_SECRET, attempt_id)
