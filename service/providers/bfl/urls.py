"""Where BFL is reached, and which URLs may carry our key or be fetched as a result.

Rule: the key goes only to https on `*.bfl.ai`, or to the exact origin of the URL that the operator set. Polling
hosts change (`api.us3`, `api.us6`, `gateway` were seen), so a shorter list would break.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

#: https://docs.bfl.ml/api_integration/integration_guidelines.md (read 2026-11-20).
PUBLIC_URL = "https://api.bfl.ai"
_KEY_DOMAIN = ".bfl.ai"
#: delivery-eu, delivery-us (same source), delivery-eu1, delivery.ice and delivery.eu2 (seen).
_DELIVERY_HOST = re.compile(r"delivery[.-][a-z0-9.-]+\.bfl\.ai")
#: Where a task is looked for whose submit named no polling URL: the cluster that took it is not known
#: (order of https://github.com/flavioalexandre658/pixoo, read 2026-11-20).
_CLUSTERS = ("api.us3.bfl.ai", "api.us1.bfl.ai", "api.us.bfl.ai", "api.eu.bfl.ai", "api.bfl.ai")

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]*")
_TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~:-]{0,199}")
#: Printable ASCII without space, quotes, angle brackets and backslash, which parsers read in different ways.
_PLAIN_URL = re.compile(r"[!#-&(-;=?-\[\]-~]{1,4096}")
_LONGEST_MODEL = 200
_HTTPS_PORT = 443

Origin = tuple[str, str, int]


def model_error(model: str) -> str | None:
    """This function will say why a model id cannot be a path at BFL, or None when it can."""
    if len(model) > _LONGEST_MODEL or not all(_SEGMENT.fullmatch(part) for part in model.split("/")):
        return "must consist of letters, digits, '.', '_', '~' and '-' between single slashes"
    return None


def readable_id(value: object) -> str | None:
    """This function will return a task id that is safe to keep and to put into a query, or None."""
    return value if isinstance(value, str) and _TASK_ID.fullmatch(value) else None


def origin_of(url: object) -> Origin | None:
    """This function will return scheme, host and port of a plain http or https URL, None for anything else."""
    if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url) or "#" in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or (_HTTPS_PORT if parts.scheme == "https" else 80)


@dataclass(frozen=True)
class Urls:
    """The configured URL, without a final slash."""

    base: str

    def submit(self, path: str) -> str:
        """This function will return the URL of a submit."""
        return f"{self.base}/v1/{quote(path)}"

    def may_carry_key(self, url: object) -> bool:
        """This function will tell whether a request with our key may go to this URL."""
        origin = origin_of(url)
        if origin is None:
            return False
        scheme, host, port = origin
        return (scheme == "https" and port == _HTTPS_PORT and host.endswith(_KEY_DOMAIN)) or self._ours(
            origin
        )

    def may_download(self, url: object) -> bool:
        """This function will tell whether a result file may be fetched from this URL (without the key)."""
        origin = origin_of(url)
        if origin is None:
            return False
        scheme, host, port = origin
        delivery = scheme == "https" and port == _HTTPS_PORT and _DELIVERY_HOST.fullmatch(host) is not None
        return delivery or self._ours(origin)

    def to_ask(self, task_id: str, link: str | None) -> Iterator[str]:
        """This function will name the URLs at which a task may be known, in order, each once.

        A polling URL that BFL gave is the only right one. Other clusters are those of the public service.
        """
        if link is not None and self.may_carry_key(link):
            yield link
            return
        query = f"/v1/get_result?id={quote(task_id, safe='')}"
        yield self.base + query
        ours = origin_of(self.base)
        if ours is not None and ours[0] == "https" and ours[1].endswith(_KEY_DOMAIN):
            yield from (f"https://{host}{query}" for host in _CLUSTERS if host != ours[1])

    def _ours(self, origin: Origin) -> bool:
        return origin == origin_of(self.base)
