"""The settings: environment variables or a `.env` file, read once, here and nowhere else.

Rule: a name, its default, what it must be and what it means stand together below, and the README's table is made
of them. No error repeats a value: it may be a secret that was put under the wrong name.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, JsonValue, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from service.settings_checks import (
    ApiKey,
    BootstrapKey,
    DatabaseUrl,
    HttpUrl,
    KafkaServers,
    KafkaTopic,
    NatsStream,
    NatsUrl,
    Networks,
    ProviderKey,
    RedisStream,
    RedisUrl,
    SecretKeys,
    StorageUrl,
)

PREFIX = "FLUXGATE_"


class SettingsError(Exception):
    """Some settings are wrong; `lines` has one sentence for each, without any value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


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


def _days(name: str, default: int, description: str) -> Any:
    return _setting(
        name, default, description, must="must be a whole number of days from 1 to 3650", ge=1, le=3650
    )


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

    database_url: DatabaseUrl = _setting(
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
    bootstrap_key: BootstrapKey | None = _setting(
        "FLUXGATE_BOOTSTRAP_KEY",
        None,
        "an API key (at least 24 characters) that exists from the first start with all scopes; for containers and tests",
    )
    secret_keys: SecretKeys = _setting(
        "FLUXGATE_SECRET_KEYS",
        list,
        "comma-separated keys that secrets are derived from and encrypted with, newest first, each 32 bytes in"
        " base64 (standard or URL-safe)",
        shown="made and stored beside the SQLite file with mode 0600; on PostgreSQL required",
        repr=False,
    )
    egress_allow: Networks = _setting(
        "FLUXGATE_EGRESS_ALLOW",
        list,
        "comma-separated CIDRs that requests to user-given URLs may reach though they are private or loopback",
        shown="none",
    )
    storage_url: StorageUrl = _setting(
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
    keep_events_days: int = _days(
        "FLUXGATE_KEEP_EVENTS_DAYS",
        30,
        "how long events stay readable; one that is still to be delivered stays longer, and a cursor behind which"
        " events are gone is answered 410",
    )
    keep_deliveries_days: int = _days(
        "FLUXGATE_KEEP_DELIVERIES_DAYS", 30, "how long finished deliveries stay listed"
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
    url: HttpUrl = _url(
        "FLUXGATE_URL", "http://127.0.0.1:8080", "base of the service that `fluxgate listen` follows"
    )
    api_key: ApiKey | None = _setting(
        "FLUXGATE_API_KEY", None, "the API key (scope `events:read`) that `fluxgate listen` reads with"
    )
    nats_url: NatsUrl | None = _setting(
        "FLUXGATE_NATS_URL",
        None,
        "events also go to NATS JetStream: `nats://user:password@host:4222` or `tls://…`, several comma-separated"
        " (needs the extra `fluxgate[nats]`)",
    )
    nats_stream: NatsStream = _setting(
        "FLUXGATE_NATS_STREAM",
        "FLUXGATE",
        "the JetStream stream; made with subjects `fluxgate.events.>` if it is not there",
    )
    redis_url: RedisUrl | None = _setting(
        "FLUXGATE_REDIS_URL",
        None,
        "events also go to Redis Streams: `redis://user:password@host:6379/0`, `rediss://…` or `unix://…` (needs the"
        " extra `fluxgate[redis]`)",
    )
    redis_stream: RedisStream = _setting(
        "FLUXGATE_REDIS_STREAM", "fluxgate:events", "the key of the Redis stream, which is Fluxgate's alone"
    )
    kafka_bootstrap: KafkaServers | None = _setting(
        "FLUXGATE_KAFKA_BOOTSTRAP",
        None,
        "events also go to Kafka: comma-separated `host:port` of brokers (needs the extra `fluxgate[kafka]`)",
    )
    kafka_topic: KafkaTopic = _setting("FLUXGATE_KAFKA_TOPIC", "fluxgate.events", "the Kafka topic")
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
