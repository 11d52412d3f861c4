"""Where fal is reached, and which URLs may carry our key or be fetched as a result.

Rule: the key goes only to https on fal's own domains, or to the exact origin of a URL that the operator set.
What a reply or a caller names is checked here before it becomes part of a request.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlencode, urlsplit

#: https://fal.ai/docs/api-reference/inference-api and
#: https://github.com/fal-ai/fal/tree/main/projects/fal_client (read 2026-11-20): queue.fal.run, its stand-in
#: queue.falrun.com, rest.fal.ai and api.fal.ai.
_KEY_DOMAINS = (".fal.run", ".falrun.com", ".fal.ai")
#: Outputs are delivered from v3.fal.media and v3b.fal.media (same sources); fal's own domains need no key to read.
_FILE_DOMAINS = (".fal.media", ".fal.ai", ".fal.run")
#: Owners whose app ids have three parts (fal-client 1.0.3, read 2026-11-20).
_NAMESPACES = ("workflows", "comfy")

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~:-]{0,199}")
#: Printable ASCII without space, quotes, angle brackets and backslash, which parsers read in different ways.
_PLAIN_URL = re.compile(r"[!#-&(-;=?-\[\]-~]{1,4096}")
_LONGEST_MODEL = 200
_HTTPS_PORT = 443

Origin = tuple[str, str, int]


@lru_cache(maxsize=1024)
def model_error(model: str) -> str | None:
    """This function will say why a model id cannot be a path at fal, or None when it can.

    `requests` is the queue's own word in a path: with it an id could name somebody's request instead of a model.
    """
    segments = model.split("/")
    fewest = 3 if segments[0] in _NAMESPACES else 2
    if len(model) > _LONGEST_MODEL or len(segments) < fewest:
        return "must be owner/app or owner/app/path, as fal names its models (fal-ai/flux-2-pro)"
    if not all(_SEGMENT.fullmatch(segment) for segment in segments) or "requests" in segments:
        return "must consist of letters, digits, '.', '_', '~' and '-' between single slashes"
    return None


def readable_id(value: object) -> str | None:
    """This function will return a request id that is safe to keep and to put into a path, or None."""
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None


def _origin(url: str) -> Origin | None:
    """The origin of a plain http or https URL without credentials and fragment; None for anything else."""
    if not _PLAIN_URL.fullmatch(url) or "#" in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or (_HTTPS_PORT if parts.scheme == "https" else 80)


@dataclass(frozen=True, kw_only=True)
class Urls:
    """The configured URLs, without a final slash."""

    queue: str
    run: str
    jwks: str
    platform: str

    def _configured(self, origin: Origin) -> bool:
        return origin in [_origin(url) for url in (self.queue, self.run, self.jwks, self.platform)]

    def may_carry_key(self, url: object) -> bool:
        """This function will tell whether a request with our key may go to this URL."""
        return self._allowed(url, _KEY_DOMAINS)

    def may_download(self, url: object) -> bool:
        """This function will tell whether a result file may be fetched from this URL (without the key)."""
        return self._allowed(url, _FILE_DOMAINS)

    def _allowed(self, url: object, domains: tuple[str, ...]) -> bool:
        origin = _origin(url) if isinstance(url, str) else None
        if origin is None:
            return False
        scheme, host, port = origin
        ours = scheme == "https" and port == _HTTPS_PORT and host.endswith(domains)
        return ours or self._configured(origin)

    def submit(self, model: str, callback_url: str | None) -> str:
        """This function will return the URL of a submit; the webhook is a query parameter, never an input."""
        query = (
            f"?{urlencode({'fal_webhook': callback_url}, quote_via=quote, safe='')}" if callback_url else ""
        )
        return f"{self.queue}/{model}{query}"

    def links(self, model: str, request_id: str) -> dict[str, str]:
        """This function will build the URLs of a request: all but submit name only owner and app."""
        segments = model.split("/")
        app = "/".join(segments[: 3 if segments[0] in _NAMESPACES else 2])
        request = f"{self.queue}/{app}/requests/{quote(request_id, safe='')}"
        return {"status": f"{request}/status", "result": request, "cancel": f"{request}/cancel"}
