"""What a provider delivered, in one shape for all providers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Image:
    """One result file. `url` is the provider's until the file is kept by us."""

    url: str
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    artifact_id: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """This function will give the members by name; the dataclass module's own way is ten times slower."""
        return {
            "url": self.url,
            "content_type": self.content_type,
            "width": self.width,
            "height": self.height,
            "artifact_id": self.artifact_id,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Output:
    """A result. `seed` is text because seeds exceed 2^53; `raw` is the provider's result as received."""

    images: tuple[Image, ...]
    seed: str | None = None
    raw: Any = None
