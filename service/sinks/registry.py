"""All sinks in one visible list; each is imported only where its setting is set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.sinks.base import Sink, SinkMissing


@dataclass(frozen=True, kw_only=True)
class SinkSettings:
    """Where the brokers are, as the operator set it. A sink without its URL is off."""

    nats_url: str | None = field(default=None, repr=False)
    nats_stream: str = "FLUXGATE"
    redis_url: str | None = field(default=None, repr=False)
    redis_stream: str = "fluxgate:events"
    kafka_bootstrap: str | None = field(default=None, repr=False)
    kafka_topic: str = "fluxgate.events"


def names(settings: SinkSettings) -> list[str]:
    """This function will name the sinks that are on, as their cursors are stored."""
    on = {
        f"nats:{settings.nats_stream}": settings.nats_url,
        f"redis:{settings.redis_stream}": settings.redis_url,
        f"kafka:{settings.kafka_topic}": settings.kafka_bootstrap,
    }
    return [name for name, url in on.items() if url]


def build(settings: SinkSettings) -> Sequence[Sink]:
    """This function will make the sinks that are on; nothing is connected yet.

    :raises SinkMissing: if the client library of one is not installed.
    """
    sinks: list[Sink] = []
    if settings.nats_url:
        try:
            from service.sinks.nats import NatsSink
        except ModuleNotFoundError as error:
            raise _missing(error, "nats", "nats") from error
        sinks.append(NatsSink(url=settings.nats_url, stream=settings.nats_stream))
    if settings.redis_url:
        try:
            from service.sinks.redis import RedisSink
        except ModuleNotFoundError as error:
            raise _missing(error, "redis", "redis") from error
        sinks.append(RedisSink(url=settings.redis_url, stream=settings.redis_stream))
    if settings.kafka_bootstrap:
        try:
            from service.sinks.kafka import KafkaSink
        except ModuleNotFoundError as error:
            raise _missing(error, "aiokafka", "kafka") from error
        sinks.append(KafkaSink(bootstrap=settings.kafka_bootstrap, topic=settings.kafka_topic))
    return sinks


def _missing(error: ModuleNotFoundError, module: str, extra: str) -> Exception:
    """A module that is missing inside the library is not the library that is missing."""
    return SinkMissing(extra) if error.name == module else error
