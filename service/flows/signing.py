"""Signing: the secrets and keys that webhooks are signed with; one for each endpoint, one for the URLs of jobs."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.domain.endpoint import Endpoint
from service.domain.sealing import Unsealable, seal, unseal
from service.domain.webhook import new_secret
from service.flows.runtime import Runtime
from service.storage import tenant_secrets
from service.storage.database import Tx
from service.storage.tenant_secrets import TenantSecret

#: After a rotation both secrets sign for so long.
OVERLAP_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class JobSecret:
    """The secret that a tenant's jobs' own URLs are signed with, and until when the one before it signs too."""

    secret: str
    previous_until_ms: int | None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that a tenant's `v1a` signatures are verified with: 32 bytes."""

    key_id: str
    raw: bytes


def drawn_secret(runtime: Runtime) -> str:
    """This function will make a new signing secret of 32 random bytes."""
    return new_secret(bytes.fromhex(runtime.salt() + runtime.salt()))


def tenant_of(tenant: str) -> str:
    """This function will name what a tenant's job-webhook secret is sealed for."""
    return f"tenant:{tenant}"


async def rotate_job_secret(runtime: Runtime, *, tenant: str) -> JobSecret:
    """This function will make the secret that the tenant's jobs' own URLs are signed with.

    The one before it, if there was one, signs too for 24 h.
    """
    secret, now_ms = drawn_secret(runtime), runtime.now_ms()
    sealed = seal(runtime.keys, secret, about=tenant_of(tenant))
    until_ms = now_ms + OVERLAP_MS
    stored = await runtime.door.write(
        lambda tx: tenant_secrets.rotate(tx, tenant=tenant, sealed=sealed, now_ms=now_ms, until_ms=until_ms)
    )
    return JobSecret(secret, stored.previous_until_ms)


def public_keys(runtime: Runtime, *, tenant: str) -> list[PublicKey]:
    """This function will list the keys that a tenant's `v1a` signatures are verified with, newest first."""
    keys = {key_id: runtime.keys.signing_key(key_id, tenant) for key_id in runtime.keys.key_ids}
    return [
        PublicKey(key_id, key.public_key().public_bytes_raw())
        for key_id, key in keys.items()
        if key is not None
    ]


#: Secrets with the time each ends, the newest first.
Sealed = tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs for one endpoint; the keys are for `v1a`."""

    #: In no log, whatever it is that logs this.
    opened: Sealed = field(repr=False)
    keys: tuple[Ed25519PrivateKey, ...] = ()

    def at(self, now_ms: int) -> list[str]:
        """This function will give the secrets that sign at a time."""
        return [secret for secret, until_ms in self.opened if until_ms is None or now_ms < until_ms]


def sealed_of(tx: Tx, endpoint: Endpoint) -> Sealed:
    """This function will read what signs for an endpoint: its own secrets, or its tenant's for the URLs of jobs."""
    held: Endpoint | TenantSecret | None = endpoint
    if endpoint.for_jobs:
        held = tenant_secrets.one(tx, endpoint.tenant)
    if held is None or held.secret is None:
        return ()
    older = () if held.previous_secret is None else ((held.previous_secret, held.previous_until_ms),)
    return ((held.secret, None), *older)


def opened(runtime: Runtime, endpoint: Endpoint, sealed: Sealed) -> Secrets:
    """This function will open what signs for an endpoint; what signs no more may be of a key that is gone.

    :raises Unsealable: if the service key that sealed it is gone, or there is nothing.
    """
    if not sealed:
        raise Unsealable("there is no secret")
    about = tenant_of(endpoint.tenant) if endpoint.for_jobs else endpoint.id
    now_ms = runtime.now_ms()
    plain = tuple(
        (unseal(runtime.keys, text, about=about), until_ms)
        for text, until_ms in sealed
        if until_ms is None or now_ms < until_ms
    )
    return Secrets(plain, signing_keys(runtime, endpoint.tenant) if "v1a" in endpoint.signatures else ())


def signing_keys(runtime: Runtime, tenant: str) -> tuple[Ed25519PrivateKey, ...]:
    """This function will derive the keys of a tenant's `v1a` signatures, newest first."""
    derived = [runtime.keys.signing_key(key_id, tenant) for key_id in runtime.keys.key_ids]
    return tuple(key for key in derived if key is not None)
