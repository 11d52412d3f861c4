"""Black Forest Labs: FLUX models at api.bfl.ai."""

from service.providers.bfl.adapter import Bfl

__all__ = ["Bfl"]
