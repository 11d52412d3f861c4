"""How sinks are switched on, and that no password of theirs is told."""

import importlib.abc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import wiring
from service.settings import Settings, SettingsError
from service.sinks.base import Kind, SinkMissing, SinkTrouble
from service.sinks.nats import NatsSink, subject_of
from service.sinks.redis import RedisSink
from service.sinks.registry import SinkSettings, build, names
from tests.cli.process import failed_in_one_line, fluxgate
from tests.sinks.brokers import NatsBroker, RedisBroker, installed
from tests.sinks.messages import message

ALL_ON = SinkSettings(
    nats_url="nats://app:hidden-word@a:4222,nats://b:4222",
    redis_url="redis://app:hidden-word@a:6379/3",
    kafka_bootstrap="a:9092, b:9092",
)


def load(**environ: str) -> Settings:
    return Settings.load(environ, env_file=None)


async def test_without_settings_there_is_no_sink() -> None:
    assert build(SinkSettings()) == []
    assert build(wiring.sink_settings(load())) == []
    assert wiring.sink_names(load()) == []


async def test_each_sink_is_on_when_its_setting_is_set_and_keeps_its_cursor_under_its_stream() -> None:
    sinks = build(ALL_ON)
    assert [sink.name for sink in sinks] == names(ALL_ON)
    assert names(ALL_ON) == ["nats:FLUXGATE", "redis:fluxgate:events", "kafka:fluxgate.events"]
    settings = load(
        FLUXGATE_REDIS_URL="rediss://r.example", FLUXGATE_REDIS_STREAM="a", FLUXGATE_KAFKA_TOPIC="t"
    )
    assert wiring.sink_names(settings) == ["redis:a"]


def test_no_password_of_a_broker_is_printed_with_the_settings() -> None:
    settings = load(
        FLUXGATE_NATS_URL="nats://app:hidden-word@a:4222,tls://app:hidden-word@b",
        FLUXGATE_REDIS_URL="redis://:hidden-word@a",
    )
    assert "hidden-word" not in repr(settings) + str(settings)
    assert "hidden-word" not in repr(wiring.sink_settings(settings))
    assert wiring.sink_settings(settings).redis_url == "redis://:hidden-word@a"


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("FLUXGATE_NATS_URL", "s3cret.example:4222", "must begin with nats:// or tls://"),
        ("FLUXGATE_NATS_URL", "nats://a,http://s3cret", "must begin with nats:// or tls://"),
        ("FLUXGATE_NATS_URL", "nats://u:s3cret@host:port", "must begin with nats:// or tls://"),
        ("FLUXGATE_REDIS_URL", "s3cret", "must begin with redis:// or rediss:// or unix://"),
        ("FLUXGATE_REDIS_URL", "redis://", "must begin with redis:// or rediss:// or unix://"),
        ("FLUXGATE_KAFKA_BOOTSTRAP", "s3cret", "comma-separated host:port"),
        ("FLUXGATE_KAFKA_BOOTSTRAP", "u:s3cret@host:9092", "without a scheme, user or password"),
        ("FLUXGATE_KAFKA_BOOTSTRAP", "a:9092,", "comma-separated host:port"),
        ("FLUXGATE_NATS_STREAM", "s3cret.x", "letters, digits, - and _"),
        ("FLUXGATE_REDIS_STREAM", "s3cret x", "printable ASCII without spaces"),
        ("FLUXGATE_KAFKA_TOPIC", "s3cret x", "letters, digits, . _ and -"),
    ],
)
def test_a_wrong_setting_of_a_sink_is_refused_without_its_value(name: str, value: str, must: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})
    (line,) = caught.value.lines
    assert line.startswith(f"{name} ")
    assert must in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "servers", ["kafka:9092", "10.0.0.1:9092, 10.0.0.2:9092", "[::1]:9092", "b-1.kafka_prod.example:9096"]
)
def test_brokers_of_kafka_are_hosts_with_ports(servers: str) -> None:
    assert load(FLUXGATE_KAFKA_BOOTSTRAP=servers).kafka_bootstrap == servers


class NotInstalled(importlib.abc.MetaPathFinder):
    """Lets a library be away, in the words of Python."""

    def __init__(self, library: str) -> None:
        self._library = library

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == self._library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("extra", "library", "settings"),
    [
        ("nats", "nats", SinkSettings(nats_url="nats://a")),
        ("redis", "redis", SinkSettings(redis_url="redis://a")),
        ("kafka", "aiokafka", SinkSettings(kafka_bootstrap="a:1")),
    ],
)
def test_a_sink_without_its_client_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, extra: str, library: str, settings: SinkSettings
) -> None:
    for module in list(sys.modules):
        if module == f"service.sinks.{extra}" or module.partition(".")[0] == library:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(library), *sys.meta_path])
    with pytest.raises(SinkMissing) as caught:
        build(settings)
    assert caught.value.extra == extra


@pytest.mark.slow
def test_serve_without_the_client_library_says_what_to_install(tmp_path: Path) -> None:
    """A library that is not there, as far as this process can see."""
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('No module named redis', name='redis')\n")
    done = fluxgate(
        "serve",
        "--port",
        "0",
        FLUXGATE_REDIS_URL="redis://app:hidden-word@127.0.0.1",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path(wiring.__file__).parents[1])]),
    )
    line = failed_in_one_line(done, 1)
    assert "pip install 'fluxgate[redis]'" in line
    assert "hidden-word" not in line


@pytest.mark.slow
def test_no_client_library_is_imported_where_no_sink_is_set() -> None:
    look = (
        "import sys; from service.sinks.registry import SinkSettings, build; import service.wiring;"
        " build(SinkSettings()); print([m for m in ('nats', 'redis', 'aiokafka') if m in sys.modules])"
    )
    root = Path(wiring.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", look], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("tenant", "type", "subject"),
    [
        ("default", "job.succeeded", "fluxgate.events.default.job.succeeded"),
        ("a.b", "job.failed", "fluxgate.events.a%2Eb.job.failed"),
        ("a*b>c d", "endpoint.test", "fluxgate.events.a%2Ab%3Ec%20d.endpoint.test"),
        ("größe~1", "job.queued", "fluxgate.events.gr%C3%B6%C3%9Fe%7E1.job.queued"),
        ("x\r\nPUB y 1", "job.queued", "fluxgate.events.x%0D%0APUB%20y%201.job.queued"),
    ],
)
def test_a_tenant_is_one_safe_token_of_the_subject(tenant: str, type: str, subject: str) -> None:
    assert subject_of(message(1, tenant=tenant, type=type)) == subject


async def test_a_wrong_password_of_nats_is_said_without_telling_it(tmp_path: Path) -> None:
    broker = NatsBroker(tmp_path / "broker", "--user", "app", "--pass", "right")
    try:
        await broker.start()
        for user in ("app:hidden-word@", ""):
            broker.user = user
            sink = NatsSink(url=broker.url, stream="S")
            with pytest.raises(SinkTrouble) as caught:
                await sink.open()
            await sink.close()
            assert caught.value.kind is Kind.DENIED
            assert "hidden-word" not in f"{caught.value!r} {caught.value.__context__!r} {sink!r}"
        broker.user = "app:right@"
        sink = NatsSink(url=broker.url, stream="S")
        await sink.open()
        await sink.close()
    finally:
        broker.close()


async def test_nats_takes_a_token_in_the_url(tmp_path: Path) -> None:
    broker = NatsBroker(tmp_path / "broker", "--auth", "a-word")
    try:
        await broker.start()
        broker.user = "a-word@"
        sink = NatsSink(url=broker.url, stream="S")
        await sink.open()
        await sink.close()
    finally:
        broker.close()


async def test_a_wrong_password_of_redis_is_said_without_telling_it(tmp_path: Path) -> None:
    broker = RedisBroker(tmp_path / "broker", "--requirepass", "right")
    try:
        await broker.start()
        for user in (":hidden-word@", ""):
            broker.user = user
            sink = RedisSink(url=broker.url, stream="s")
            with pytest.raises(SinkTrouble) as caught:
                await sink.open()
            await sink.close()
            assert caught.value.kind is Kind.DENIED
            assert "hidden-word" not in f"{caught.value!r} {caught.value.__context__!r} {sink!r}"
        broker.user = ":right@"
        sink = RedisSink(url=broker.url, stream="s")
        await sink.open()
        await sink.close()
    finally:
        broker.close()


def test_a_server_that_is_not_installed_fails_the_test_and_says_so() -> None:
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-server"):
        installed("no-such-server")
