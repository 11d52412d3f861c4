"""All providers of the contract in one visible list: which are built, and which are on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.providers.base import Provider
from service.providers.bfl import Bfl
from service.providers.fal import Fal

#: Every provider that a job may name.
KNOWN = ("fal", "bfl", "replicate", "together", "segmind", "aimlapi")
#: Those that have an adapter here; the others are refused as not built yet.
BUILT = ("fal", "bfl")


@dataclass(frozen=True, kw_only=True)
class FalSettings:
    """`user_id` pins the account that callbacks must come from. Without a key fal is off."""

    key: str | None = field(default=None, repr=False)
    queue_url: str = "https://queue.fal.run"
    run_url: str = "https://fal.run"
    jwks_url: str = "https://rest.fal.ai/.well-known/jwks.json"
    platform_url: str = "https://api.fal.ai/v1"
    user_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class BflSettings:
    """Without a key BFL is off."""

    key: str | None = field(default=None, repr=False)
    url: str = "https://api.bfl.ai"


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """Keys and URLs of all providers, as the operator set them."""

    fal: FalSettings = FalSettings()
    bfl: BflSettings = BflSettings()


def build(settings: ProviderSettings) -> Mapping[str, Provider]:
    """This function will make the adapters of all providers whose key is set, by name."""
    adapters: list[Provider] = []
    fal, bfl = settings.fal, settings.bfl
    if fal.key:
        adapters.append(
            Fal(
                key=fal.key,
                queue_url=fal.queue_url,
                run_url=fal.run_url,
                jwks_url=fal.jwks_url,
                platform_url=fal.platform_url,
                user_id=fal.user_id,
            )
        )
    if bfl.key:
        adapters.append(Bfl(key=bfl.key, url=bfl.url))
    return {adapter.name: adapter for adapter in adapters}
