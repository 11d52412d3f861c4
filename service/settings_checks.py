"""What a setting must be: a check for each form of value.

Rule: no error repeats a value: it may be a secret that was put under the wrong name.
"""

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

#: What has this many characters of which each is drawn at random cannot be guessed.
_SHORTEST_KEY = 24
_KEY_BYTES = 32

Network = IPv4Network | IPv6Network


def _database_url(url: str) -> str:
    scheme, sign, rest = url.partition("://")
    if sign and scheme in ("postgresql", "postgres") and rest:
        if not _port_is_usable(urlsplit(url)):
            raise ValueError("must be postgresql://user@host:port/db with a number for the port")
        return url
    if not sign or scheme != "sqlite":
        raise ValueError("must begin with sqlite:/// or postgresql:// (the service picks the driver)")
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or not path or path.endswith("/") or "?" in path or path == ":memory:":
        raise ValueError("must name a file: sqlite:///fluxgate.db or sqlite:////var/lib/fluxgate/fluxgate.db")
    return url


def _port_is_usable(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _http_url(url: str) -> str:
    parts = urlsplit("")
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
    usable = parts.scheme in ("http", "https") and parts.hostname and _port_is_usable(parts)
    # A control character or a space would end up in the middle of a request line.
    if not usable or not url.isprintable() or " " in url:
        raise ValueError("must be a URL that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must be a URL without a user name or password")
    if "?" in url or "#" in url:
        raise ValueError("must be a URL without ? and #")
    return url.rstrip("/")


def _storage_url(url: str) -> str:
    if url.startswith("s3:"):
        raise ValueError("cannot name an S3 bucket yet: use file:FOLDER")
    folder = url.removeprefix("file:")
    # file://name/… would name another machine.
    if folder == url or not folder or (folder.startswith("//") and not folder.startswith("///")):
        raise ValueError("must be file:FOLDER, as in file:./artifacts or file:/var/lib/fluxgate/artifacts")
    return url


def _bootstrap_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if len(text) < _SHORTEST_KEY or not all("!" <= sign <= "~" for sign in text):
        raise ValueError(f"must have at least {_SHORTEST_KEY} printable ASCII characters and no spaces")
    return key


def _provider_key(key: SecretStr) -> SecretStr:
    return _printable(key, "as the provider shows it")


def _api_key(key: SecretStr) -> SecretStr:
    return _printable(key, "as 'fluxgate keys create' shows it")


def _printable(key: SecretStr, how: str) -> SecretStr:
    text = key.get_secret_value().strip()
    if not text or not all("!" <= sign <= "~" for sign in text):
        raise ValueError(f"must be printable ASCII without spaces, {how}")
    return SecretStr(text)


def _secret_keys(text: object) -> object:
    if not isinstance(text, str):
        return text
    keys = [_secret_key(part.strip()) for part in text.split(",")]
    if len(set(keys)) != len(keys):
        raise ValueError("must not name the same key twice")
    return keys


def _secret_key(text: str) -> bytes:
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"must be comma-separated keys of {_KEY_BYTES} bytes in base64, as from: openssl rand -base64 32"
        )
    return key


def _networks(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("must be comma-separated CIDRs, as in 127.0.0.0/8,10.1.0.0/16,::1/128") from None


def _urls(*schemes: str) -> Callable[[SecretStr], SecretStr]:
    """Comma-separated URLs of servers, which may carry a user and a password."""

    def check(urls: SecretStr) -> SecretStr:
        for url in urls.get_secret_value().split(","):
            parts = urlsplit("")
            with contextlib.suppress(ValueError):
                parts = urlsplit(url.strip())
            usable = parts.scheme in schemes and (parts.hostname or parts.scheme == "unix")
            if not usable or not _port_is_usable(parts) or not url.strip().isprintable():
                raise ValueError(
                    f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a server"
                )
        return urls

    return check


def _bootstrap_servers(text: str) -> str:
    for server in text.split(","):
        host, _, port = server.strip().rpartition(":")
        if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host) or not port.isdecimal():
            raise ValueError("must be comma-separated host:port, without a scheme, user or password")
    return text


def _named(pattern: str, must: str) -> Callable[[str], str]:
    def check(name: str) -> str:
        if not re.fullmatch(pattern, name):
            raise ValueError(must)
        return name

    return check


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
StorageUrl = Annotated[str, AfterValidator(_storage_url)]
BootstrapKey = Annotated[SecretStr, AfterValidator(_bootstrap_key)]
ProviderKey = Annotated[SecretStr, AfterValidator(_provider_key)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
SecretKeys = Annotated[list[bytes], NoDecode, BeforeValidator(_secret_keys)]
Networks = Annotated[list[Network], NoDecode, BeforeValidator(_networks)]
NatsUrl = Annotated[SecretStr, AfterValidator(_urls("nats", "tls"))]
RedisUrl = Annotated[SecretStr, AfterValidator(_urls("redis", "rediss", "unix"))]
KafkaServers = Annotated[str, AfterValidator(_bootstrap_servers)]
NatsStream = Annotated[
    str, AfterValidator(_named(r"[\w-]{1,255}", "must be letters, digits, - and _, at most 255"))
]
RedisStream = Annotated[
    str, AfterValidator(_named(r"[!-~]{1,255}", "must be printable ASCII without spaces, at most 255"))
]
KafkaTopic = Annotated[
    str, AfterValidator(_named(r"[a-zA-Z0-9._-]{1,249}", "must be letters, digits, . _ and -, at most 249"))
]
