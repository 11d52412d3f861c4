"""API keys: made once shown once, found by their hash, remembered for a moment."""

import hashlib
from collections import OrderedDict

from service.flows.runtime import Runtime
from service.storage import keys
from service.storage.keys import ApiKey

SCOPES = ("jobs:write", "jobs:read", "events:read", "endpoints:write", "audit:read", "admin")
#: A revoked key is refused by every process within this time.
_REMEMBERED_MS = 5_000
_REMEMBERED = 1_000


def secret_hash_of(secret: str) -> str:
    """This function will hash an API key. A fast hash is right: the keys are long and random, not passwords."""
    return hashlib.sha256(b"fluxgate api key v1\0" + secret.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """Finds keys; what was found (and what was not) is remembered for some seconds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._remembered: OrderedDict[str, tuple[int, ApiKey | None]] = OrderedDict()

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
