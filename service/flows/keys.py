"""API keys: made once shown once, found by their hash, remembered for a moment."""

import asyncio
import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterator

from service.flows.runtime import Runtime
from service.storage import keys
from service.storage.database import DatabaseUnavailable
from service.storage.keys import ApiKey

SCOPES = ("jobs:write", "jobs:read", "events:read", "endpoints:write", "audit:read", "admin")
#: A revoked key is refused by every process within this time.
_REMEMBERED_MS = 5_000
_REMEMBERED = 1_000
#: How often it is asked which of the keys of long answers are revoked: once for all of them.
_LOOK_EVERY_MS = 20_000
_LOOK_WITHIN_S = 5.0


def secret_hash_of(secret: str) -> str:
    """This function will hash an API key. A fast hash is right: the keys are long and random, not passwords."""
    return hashlib.sha256(b"fluxgate api key v1\0" + secret.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """Finds keys; what was found (and what was not) is remembered for some seconds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._remembered: OrderedDict[str, tuple[int, ApiKey | None]] = OrderedDict()
        #: By the id of a key: how many long answers are under way for it.
        self._in_use: Counter[str] = Counter()
        self._revoked: set[str] = set()
        self._looked_ms = 0

    async def find(self, secret: str) -> ApiKey | None:
        """This function will find the valid key with this secret.

        :raises DatabaseUnavailable: if that cannot be told now.
        """
        hashed = secret_hash_of(secret)
        known = self._remembered.get(hashed)
        if known is not None and self._runtime.now_ms() - known[0] < _REMEMBERED_MS:
            return known[1]
        found = await self._runtime.door.read(lambda tx: keys.find(tx, hashed))
        self._remembered[hashed] = (self._runtime.now_ms(), found)
        self._remembered.move_to_end(hashed)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    @contextlib.contextmanager
    def using(self, key_id: str) -> Iterator[None]:
        """This function will have the key watched inside its context, for an answer that has no end."""
        self._in_use[key_id] += 1
        try:
            yield
        finally:
            self._in_use[key_id] -= 1
            if not self._in_use[key_id]:
                del self._in_use[key_id]

    async def still_valid(self, key_id: str) -> bool:
        """This function will tell, some seconds late, whether a key in use is not revoked.

        While the database is away nobody can revoke one, and what was known before counts.
        """
        now_ms = self._runtime.now_ms()
        if now_ms - self._looked_ms >= _LOOK_EVERY_MS:
            # Noted before the question, so that a thousand answers ask it once.
            self._looked_ms = now_ms
            used = list(self._in_use)
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(_LOOK_WITHIN_S):
                    self._revoked = await self._runtime.door.read(lambda tx: keys.revoked_among(tx, used))
        return key_id not in self._revoked


async def create(
    runtime: Runtime, *, tenant: str, name: str, scopes: frozenset[str], secret: str
) -> ApiKey | None:
    """This function will store a key with a secret that the caller drew; None when that secret is in use."""
    key = ApiKey(
        id=runtime.make_id("key"), tenant=tenant, name=name, scopes=scopes, created_ms=runtime.now_ms()
    )
    made = await runtime.door.write(lambda tx: keys.insert(tx, key, secret_hash=secret_hash_of(secret)))
    return key if made else None


async def listed(runtime: Runtime) -> list[ApiKey]:
    """This function will list all keys, revoked ones too."""
    return await runtime.door.read(keys.all_keys)


async def revoke(runtime: Runtime, key_id: str) -> bool:
    """This function will end a key; False when there is no valid one with this id."""
    now_ms = runtime.now_ms()
    return await runtime.door.write(lambda tx: keys.revoke(tx, key_id, now_ms=now_ms))
