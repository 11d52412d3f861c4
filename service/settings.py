"""The settings: environment variables or a `.env` file, read once, here and nowhere else.

Rule: a name, its default, what it must be and what it means stand together below, and the README's table is made
of them. No error repeats a value: it may be a secret that was put under the wrong name.
"""

import base64
import binascii
import contextlib
import difflib
import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "FLUXGATE_"
#: What has this many characters of which each is drawn at random cannot be guessed.
_SHORTEST_KEY = 24
_KEY_BYTES = 32

Network = IPv4Network | IPv6Network


class SettingsError(Exception):
    """Some settings are wrong; `lines` has one sentence for each, without any value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


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
    text = key.get_secret_value().strip()
    if not text or not all("!" <= sign <= "~" for sign in text):
        raise ValueError("must be printable ASCII without spaces, as the provider shows it")
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


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ProviderKey = Annotated[SecretStr, AfterValidator(_provider_key)]


def _setting(
    name: str, default: Any, description: str, *, must: str = "", shown: str | None = None, **more: Any
) -> Any:
    """`must` is what an error says; `shown` is the default in words, where the value says too little."""
    more = {"default_factory": default, **more} if callable(default) else {"default": default, **more}
    extra: dict[str, JsonValue] = {"must": must, "shown": shown}
    return Field(validation_alias=name, description=description, json_schema_extra=extra, **more)


def _seconds(name: str, default: float | None, description: str, *, low: float, high: float) -> Any:
    shown = "learned" if default is None else f"{default:g}"
    must = f"must be a number of seconds from {low:g} to {high:g}"
    return _setting(name, default, description, must=must, shown=shown, ge=low, le=high, allow_inf_nan=False)


def _key(name: str, provider: str) -> Any:
    return _setting(name, None, f"key of {provider}; the provider is on when it is set")


def _later(name: str, provider: str) -> Any:
    return _setting(name, None, f"key of {provider}; kept for a later release, which will have this provider")


def _url(name: str, default: str, description: str) -> Any:
    return _setting(name, default, description)


class Settings(BaseSettings):
    """Everything the operator may set. Made by `load`; an attribute never changes."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False, populate_by_name=False
    )

    database_url: Annotated[str, AfterValidator(_database_url)] = _setting(
        "FLUXGATE_DATABASE_URL",
        "sqlite:///fluxgate.db",
        "where jobs live: `sqlite:///file` or `postgresql://user@host/db`; the service picks the driver",
        repr=False,  # it may hold a password
    )
    public_url: HttpUrl | None = _setting(
        "FLUXGATE_PUBLIC_URL",
        None,
        "base of the callback URLs given to providers; without it jobs are still run, by polling alone",
    )
    bootstrap_key: Annotated[SecretStr, AfterValidator(_bootstrap_key)] | None = _setting(
        "FLUXGATE_BOOTSTRAP_KEY",
        None,
        "an API key (at least 24 characters) that exists from the first start with all scopes; for containers and tests",
    )
    secret_keys: Annotated[list[bytes], NoDecode, BeforeValidator(_secret_keys)] = _setting(
        "FLUXGATE_SECRET_KEYS",
        list,
        "comma-separated keys that secrets are derived from and encrypted with, newest first, each 32 bytes in"
        " base64 (standard or URL-safe)",
        shown="made and stored beside the SQLite file with mode 0600; on PostgreSQL required",
        repr=False,
    )
    egress_allow: Annotated[list[Network], NoDecode, BeforeValidator(_networks)] = _setting(
        "FLUXGATE_EGRESS_ALLOW",
        list,
        "comma-separated CIDRs that requests to user-given URLs may reach though they are private or loopback",
        shown="none",
    )
    storage_url: Annotated[str, AfterValidator(_storage_url)] = _setting(
        "FLUXGATE_STORAGE_URL", "file:./artifacts", "where result files are kept: `file:FOLDER`"
    )
    poll_after_s: float | None = _seconds(
        "FLUXGATE_POLL_AFTER_S",
        None,
        "first question about a job whose callback has not come, seconds after submit; unset: learned from past"
        " durations of that provider and model (30 s before 20 samples)",
        low=0,
        high=86_400,
    )
    uncertain_s: float = _seconds(
        "FLUXGATE_UNCERTAIN_S",
        120.0,
        "how long an attempt whose submission has an unknown outcome is reconciled before `on_uncertain` decides",
        low=0.1,
        high=86_400,
    )
    lease_s: float = _seconds(
        "FLUXGATE_LEASE_S",
        15.0,
        "how long claimed work stays with a process that no longer answers",
        low=0.5,
        high=3_600,
    )
    log_format: Literal["console", "json"] | None = _setting(
        "FLUXGATE_LOG_FORMAT",
        None,
        "`console` for people, `json` for one JSON line per message",
        must="must be console or json",
        shown="`console` on a terminal, else `json`",
    )
    metrics_open: bool = _setting(
        "FLUXGATE_METRICS_OPEN", False, "1: `GET /metrics` needs no key", must="must be 0 or 1", shown="0"
    )
    fal_key: ProviderKey | None = _key("FAL_KEY", "fal")
    fal_queue_url: HttpUrl = _url("FLUXGATE_FAL_QUEUE_URL", "https://queue.fal.run", "fal's queue")
    fal_run_url: HttpUrl = _url("FLUXGATE_FAL_RUN_URL", "https://fal.run", "fal's synchronous calls")
    fal_jwks_url: HttpUrl = _url(
        "FLUXGATE_FAL_JWKS_URL",
        "https://rest.fal.ai/.well-known/jwks.json",
        "the public keys that fal signs callbacks with",
    )
    fal_platform_url: HttpUrl = _url(
        "FLUXGATE_FAL_PLATFORM_URL", "https://api.fal.ai/v1", "fal's platform API, which lists requests"
    )
    fal_user_id: str | None = _setting(
        "FLUXGATE_FAL_USER_ID", None, "pins the fal account that callbacks must come from"
    )
    bfl_api_key: ProviderKey | None = _key("BFL_API_KEY", "Black Forest Labs")
    bfl_url: HttpUrl = _url("FLUXGATE_BFL_URL", "https://api.bfl.ai", "the API of Black Forest Labs")
    replicate_api_token: ProviderKey | None = _later("REPLICATE_API_TOKEN", "Replicate")
    replicate_url: HttpUrl = _url(
        "FLUXGATE_REPLICATE_URL", "https://api.replicate.com", "the API of Replicate"
    )
    together_api_key: ProviderKey | None = _later("TOGETHER_API_KEY", "Together")
    together_url: HttpUrl = _url("FLUXGATE_TOGETHER_URL", "https://api.together.ai", "the API of Together")
    segmind_api_key: ProviderKey | None = _later("SEGMIND_API_KEY", "Segmind")
    segmind_url: HttpUrl = _url("FLUXGATE_SEGMIND_URL", "https://api.segmind.com", "the API of Segmind")
    aimlapi_api_key: ProviderKey | None = _later("AIMLAPI_API_KEY", "AI/ML API")
    aimlapi_url: HttpUrl = _url("FLUXGATE_AIMLAPI_URL", "https://api.aimlapi.com", "the API of AI/ML API")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """This function will leave the reading to `load`: by themselves the sources overlook misspelt names."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")) -> Self:
        """This function will read all settings; the environment is stronger than the file, empty means unset.

        `environ` stands for the process's environment, in tests and in programs that bring their own.

        :raises SettingsError: if a `FLUXGATE_` name is unknown or a value is not what it must be.
        """
        given = {**_of_file(env_file), **(os.environ if environ is None else environ)}
        lines = _unknown(given)
        source = EnvSettingsSource(cls, case_sensitive=True)
        source.env_vars = {name: value for name, value in given.items() if value}
        try:
            settings = cls.model_validate(source())
        except ValidationError as error:
            raise SettingsError(lines + _lines(error)) from None
        if lines:
            raise SettingsError(lines)
        return settings


def names() -> list[str]:
    """This function will list the variables that are read, in the order of the table."""
    return [str(field.validation_alias) for field in Settings.model_fields.values()]


def _of_file(path: Path | None) -> dict[str, str]:
    """The names that a file gives a value; nothing in it is interpolated, so a secret may hold any sign."""
    if path is None or not path.exists():
        return {}
    try:
        found = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError([f"the file {path} cannot be read: {why}"]) from None
    return {name: value for name, value in found.items() if value is not None}


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = names()
    return [
        f"{name} is not a setting: did you mean {_nearest(name, known)}?"
        for name in sorted(given)
        if name.upper().startswith(PREFIX) and name not in known
    ]


def _nearest(name: str, known: list[str]) -> str:
    upper = name.upper()
    bare = upper.removeprefix(PREFIX)
    exact = [one for one in known if one in (upper, bare)]
    return exact[0] if exact else difflib.get_close_matches(upper, known, n=1, cutoff=0.0)[0]


def _lines(error: ValidationError) -> list[str]:
    """One sentence for each wrong variable, made without its value."""
    fields = {str(field.validation_alias): field for field in Settings.model_fields.values()}
    lines: dict[str, str] = {}
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0])
        reason = problem.get("ctx", {}).get("error")
        extra = fields[name].json_schema_extra
        assert isinstance(extra, dict), "every field is made by _setting"
        lines[name] = (
            f"{name} {reason if isinstance(reason, ValueError) else extra['must'] or 'must be text'}"
        )
    return list(lines.values())
