"""The public keys that verify fal's webhooks: read with patience, kept for a day, renewed without haste.

https://docs.fal.ai/model-apis/model-endpoints/webhooks (read 2026-11-20): `{"keys":[{"x":"<base64url>"}]}`, to be
cached for at most 24 h. `kty`, `crv` and `kid` are third-party evidence only and not required.

Rule: time is an argument, and a fetch is asked for at most once in a while, so that a forger cannot cause one per
request.
"""

import base64
import binascii
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.providers.base import Answer, Call, KeysNeeded, Trouble
from service.providers.reading import object_in

TIMEOUT_S = 10.0
#: fal's limit.
LONGEST_KEPT_MS = 24 * 3_600_000
#: Renewed early, so that a rotation or an outage of the endpoint is met with young keys.
RENEW_AFTER_MS = 3_600_000
REFETCH_AFTER_MS = 60_000
#: Without any key every callback is turned away, so the next try comes sooner.
RETRY_WITHOUT_KEYS_MS = 10_000
MOST_KEYS = 32

_BASE64URL = re.compile(r"[A-Za-z0-9_-]{42,44}")


@dataclass(frozen=True)
class VerifyKey:
    """One key; `id` is its `kid`, or its `x` where it has none."""

    id: str
    public: Ed25519PublicKey


def parse(document: Any) -> tuple[VerifyKey, ...]:
    """This function will read the usable keys of a key set and skip whatever else is in it."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return ()
    keys = (_key(entry) for entry in entries[: MOST_KEYS * 4])
    return tuple(key for key in keys if key is not None)[:MOST_KEYS]


def _key(entry: Any) -> VerifyKey | None:
    x = entry.get("x") if isinstance(entry, dict) else None
    if not isinstance(x, str):
        return None
    digits = x.strip().rstrip("=").translate(str.maketrans("+/", "-_"))
    if not _BASE64URL.fullmatch(digits):
        return None
    try:
        raw = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
        public = Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None
    kid = entry.get("kid")
    named = isinstance(kid, str) and 0 < len(kid) <= 200 and kid.isprintable()
    return VerifyKey(id=kid if named else x, public=public)


class KeyCache:
    """The newest key set that could be had, and when it was asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: tuple[VerifyKey, ...] = ()
        self._fetched_ms: int | None = None
        self._started_ms: int | None = None
        self._ended_ms: int | None = None

    def usable(self, now_ms: int) -> tuple[VerifyKey, ...]:
        """This function will return the keys, none once they are 24 h old: then nothing is believed any more."""
        return self._keys if self._age_ms(now_ms) < LONGEST_KEPT_MS else ()

    def wants(self, why: KeysNeeded | None, now_ms: int) -> bool:
        """This function will tell whether to fetch now; without a reason only what is older than 1 h is renewed."""
        if not self.usable(now_ms):
            return _since(self._started_ms, now_ms) >= RETRY_WITHOUT_KEYS_MS
        due = why is not None or self._age_ms(now_ms) >= RENEW_AFTER_MS
        return due and _since(self._started_ms, now_ms) >= REFETCH_AFTER_MS

    def may_be_outdated(self, now_ms: int) -> bool:
        """This function will tell whether a signature that no key fits deserves a fetch before it is called forged.

        While one is under way it does too: whoever asks then waits for that one and judges again.
        """
        return _since(self._ended_ms, now_ms) >= REFETCH_AFTER_MS

    def fetch(self, now_ms: int) -> Generator[Call, Answer, bool]:
        """This function will ask for the key set, without our key; a set without a usable key replaces nothing."""
        self._started_ms = now_ms
        answer = yield Call(
            method="GET", url=self._url, headers={"Accept": "application/json"}, timeout_s=TIMEOUT_S
        )
        self._ended_ms = now_ms
        readable = not isinstance(answer, Trouble) and answer.status == 200
        keys = parse(object_in(answer.body)) if readable and not isinstance(answer, Trouble) else ()
        if not keys:
            return False
        self._keys, self._fetched_ms = keys, now_ms
        return True

    def _age_ms(self, now_ms: int) -> float:
        return _since(self._fetched_ms, now_ms)


def _since(then_ms: int | None, now_ms: int) -> float:
    return now_ms - then_ms if then_ms is not None else float("inf")
