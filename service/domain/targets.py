"""What a user-given URL names: the one reading of it that everything after goes by.

Rule 1: what programs read in different ways is refused, not repaired: an IPv4 address in any spelling but four
plain decimal numbers, a backslash, a blank or a control character, credentials, a zone id, an escaped host.
Rule 2: nothing is looked up here. What a name leads to is checked when it is resolved.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote

import yarl

from service.domain.addresses import Address

LONGEST_URL = 2048
_PORTS = {"https": 443, "http": 80}
_LARGEST_PORT = 65_535

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?P<fragment>(?:#.*)?)"
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME = 253
#: What every resolver may take for an IPv4 address: its last part is a number, decimal, octal or hexadecimal.
_LAST_IS_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
#: Everything printable but what browsers escape in a path and a query: blanks, quotes, brackets, braces.
_UNESCAPED = "!#$%&'()*+,-./:;=?@[]_~|"


class UrlRefused(Exception):
    """No request may go to this URL, now or later; `reason` completes "the URL ..."."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request to a URL goes."""

    secure: bool
    #: In ASCII and lower case, without a final dot or brackets: what is resolved and what the certificate must name.
    host: str
    port: int
    #: The URL names an address instead of a host.
    address: Address | None
    #: What goes into the Host header.
    authority: str
    #: Path and query, escaped, as they stand in the request line.
    path: str


@lru_cache(maxsize=4096)
def target_of(url: str) -> Target:
    """This function will read a URL.

    :raises UrlRefused: if it is not a plain http or https URL, or can be read in more than one way.
    """
    parts = _split(url)
    scheme = parts["scheme"].lower()
    if scheme not in _PORTS:
        raise UrlRefused("must begin with https://")
    if "@" in parts["authority"]:
        raise UrlRefused("must not hold a user name or password")
    if parts["fragment"]:
        raise UrlRefused("must not have a fragment (#): it would never be sent")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise UrlRefused("must name a host and at most one port after it")
    host, address = _host(authority["host"])
    port = _PORTS[scheme] if authority["port"] is None else _port(authority["port"])
    shown = f"[{host}]" if isinstance(address, IPv6Address) else host
    rest = parts["rest"] if parts["rest"].startswith("/") else "/" + parts["rest"]
    return Target(
        secure=scheme == "https",
        host=host,
        port=port,
        address=address,
        authority=shown if port == _PORTS[scheme] else f"{shown}:{port}",
        path=quote(rest, safe=_UNESCAPED),
    )


def _split(url: str) -> re.Match[str]:
    if len(url) > LONGEST_URL:
        raise UrlRefused(f"must not be longer than {LONGEST_URL} characters")
    if "\\" in url or any(sign <= " " or sign == "\x7f" or sign.isspace() for sign in url):
        raise UrlRefused("must not hold blanks, control characters or backslashes")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise UrlRefused("must be a full URL, as in https://example.com/hook")
    if not parts["rest"].isascii():
        raise UrlRefused("must escape other signs than ASCII in its path and query (%C3%BC for ü)")
    return parts


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _LARGEST_PORT):
        raise UrlRefused(f"must have a port from 1 to {_LARGEST_PORT}, or none")
    return int(text)


def _host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        address = _ipv6(text[1:-1])
        return str(address), address
    name = _ascii(text).lower().removesuffix(".")
    if not name:
        raise UrlRefused("must name a host")
    if _LAST_IS_NUMBER.fullmatch(name):
        return name, _ipv4(text)
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise UrlRefused("must name a host that can exist: letters, digits and '-' between single dots")
    return name, None


def _ascii(name: str) -> str:
    """The name as DNS knows it; what is ASCII already stays as it is, and is judged by what it consists of."""
    if name.isascii() or len(name) > _LONGEST_NAME:
        return name
    try:
        encoded = yarl.URL.build(scheme="https", host=name).raw_host
    except ValueError:
        encoded = None
    if not encoded:
        raise UrlRefused("must name a host that can exist: its international name is not valid")
    return encoded


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise UrlRefused("must not name a network card (a zone id)")
    try:
        return IPv6Address(text)
    except AddressValueError:
        raise UrlRefused("must have an IPv6 address between its brackets") from None


def _ipv4(text: str) -> IPv4Address:
    """As it was written, before any mapping: other digits than ASCII are another spelling too."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise UrlRefused("must write an IPv4 address as four decimal numbers, as in 192.0.2.10") from None
