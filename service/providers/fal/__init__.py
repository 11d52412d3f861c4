"""fal.ai: queue, webhooks, key set and request listing. `Fal` is all that others need."""

from service.providers.fal.adapter import Fal

__all__ = ["Fal"]
