"""The composition root: opens everything, gives it its clock, ids and chance, and closes it again."""

import asyncio
import os
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from uuid_utils import uuid7

from service.domain.secrets import KeyRing
from service.egress import Egress
from service.flows import keys as key_flow
from service.flows.accept import Accept
from service.flows.advance import Advance
from service.flows.bell import Bell
from service.flows.deliverer import Deliverer
from service.flows.housekeeping import Housekeeper
from service.flows.keys import SCOPES, Keys
from service.flows.learn import Learned
from service.flows.measures import Measures
from service.flows.receive import Receive
from service.flows.runtime import Runtime, Timing
from service.flows.sink_tasks import Sinks
from service.flows.tail import Pace, Tail
from service.flows.work import Worker
from service.providers.exchange import Exchange
from service.providers.registry import BflSettings, FalSettings, ProviderSettings, build
from service.providers.transport import tls_context
from service.settings import Settings
from service.sinks import registry as sink_registry
from service.sinks.registry import SinkSettings
from service.storage import work as stored_work
from service.storage.database import dialect_of, file_lock, sqlite_path
from service.storage.door import Door
from service.storage.drivers import open_driver
from service.storage.files import Files
from service.storage.notify import Notifier

_READERS = 4
_DAY_MS = 86_400_000
#: A worker loop that has not come round for so long is stuck.
_STUCK_MS = 60_000


@dataclass
class Service:
    """What the edges use: the flows of one running process."""

    settings: Settings
    runtime: Runtime
    accept: Accept
    receive: Receive
    advance: Advance
    keys: Keys
    worker: Worker | None
    deliverer: Deliverer | None
    sinks: Sinks
    tail: Tail
    _stopping: asyncio.Event
    pace: Pace = field(default_factory=Pace)

    @property
    def files(self) -> Files:
        """The kept result files."""
        return self.runtime.files

    def stopping(self) -> bool:
        """This function will tell whether the process is about to end: long polls answer at once then."""
        return self._stopping.is_set()

    async def stop_working(self) -> None:
        """This function will end the background work, all of it at the same time; called again, it waits for that."""
        await asyncio.gather(
            *(each.stop() for each in (self.worker, self.deliverer, self.sinks) if each is not None)
        )

    def stop(self) -> None:
        """This function will announce the end: nobody is kept waiting from now on."""
        self._stopping.set()
        self.tail.close()


def clock_ms() -> int:
    """This function will tell the time: the service's only clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def make_id(prefix: str) -> str:
    """This function will make an id that sorts by creation (UUIDv7, monotonic within the process)."""
    return f"{prefix}_{uuid7().hex}"


def salts() -> Callable[[], str]:
    """This function will make a source of 16 random bytes in hex that asks the kernel once for 256 of them."""
    pool: deque[str] = deque()

    def salt() -> str:
        while True:
            try:
                return pool.popleft()
            except IndexError:  # several threads may find it empty
                drawn = secrets.token_hex(16 * 256)
                pool.extend(drawn[place : place + 32] for place in range(0, len(drawn), 32))

    return salt


class SecretKeysMissing(Exception):
    """The service has no secret keys and cannot make them itself."""


def secret_keys(settings: Settings) -> list[bytes]:
    """This function will give the secret keys; beside an SQLite file it makes and stores one, readable by us alone.

    :raises SecretKeysMissing: on PostgreSQL without `FLUXGATE_SECRET_KEYS`.
    """
    if settings.secret_keys:
        return list(settings.secret_keys)
    if dialect_of(settings.database_url) != "sqlite":
        raise SecretKeysMissing("FLUXGATE_SECRET_KEYS is needed on PostgreSQL")
    database = sqlite_path(settings.database_url)
    path = database.with_name(database.name + ".key")
    with file_lock(database.with_name(database.name + ".lock")):
        if not path.exists():
            _store_key(path, secrets.token_bytes(32))
        return [bytes.fromhex(path.read_text().strip())]


def _store_key(path: Path, key: bytes) -> None:
    """Durable before it is named: a key that is lost makes every open attempt's callback unreadable."""
    unnamed = path.with_name(path.name + ".new")
    handle = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    unnamed.replace(path)


def provider_settings(settings: Settings) -> ProviderSettings:
    """This function will pick what the providers need out of the settings."""
    return ProviderSettings(
        fal=FalSettings(
            key=_revealed(settings.fal_key),
            queue_url=settings.fal_queue_url,
            run_url=settings.fal_run_url,
            jwks_url=settings.fal_jwks_url,
            platform_url=settings.fal_platform_url,
            user_id=settings.fal_user_id,
        ),
        bfl=BflSettings(key=_revealed(settings.bfl_api_key), url=settings.bfl_url),
    )


def sink_settings(settings: Settings) -> SinkSettings:
    """This function will pick what the broker sinks need out of the settings."""
    return SinkSettings(
        nats_url=_revealed(settings.nats_url),
        nats_stream=settings.nats_stream,
        redis_url=_revealed(settings.redis_url),
        redis_stream=settings.redis_stream,
        kafka_bootstrap=settings.kafka_bootstrap,
        kafka_topic=settings.kafka_topic,
    )


def sink_names(settings: Settings) -> list[str]:
    """This function will name the broker sinks that are on, in this process or another."""
    return sink_registry.names(sink_settings(settings))


def _revealed(secret: object) -> str | None:
    return None if secret is None else str(secret.get_secret_value())  # type: ignore[attr-defined]


def artifacts_folder(settings: Settings) -> Path:
    """This function will find the folder that a `file:` storage URL names."""
    return Path(settings.storage_url.removeprefix("file:").removeprefix("//"))


@asynccontextmanager
async def running(settings: Settings, *, work: bool) -> AsyncIterator[Service]:
    """This function will run the service inside the context: with `work`, its background work too.

    :raises SecretKeysMissing: on PostgreSQL without secret keys.
    :raises SinkMissing: if a broker is set whose client library is not installed.
    :raises DatabaseUnavailable: if the database cannot be reached at the start.
    """
    async with AsyncExitStack() as stack:
        runtime = await _open(stack, settings)
        sinks = Sinks(runtime, sink_registry.build(sink_settings(settings)) if work else [])
        advance = Advance(runtime)
        tail = Tail(runtime)
        tail.start()
        stack.push_async_callback(tail.stop)
        service = Service(
            settings=settings,
            runtime=runtime,
            accept=Accept(runtime),
            receive=Receive(runtime),
            advance=advance,
            keys=Keys(runtime),
            worker=Worker(runtime, advance) if work else None,
            deliverer=Deliverer(runtime) if work else None,
            sinks=sinks,
            tail=tail,
            _stopping=asyncio.Event(),
        )
        await _bootstrap(service)
        if service.worker is not None and service.deliverer is not None:
            service.worker.start()
            service.deliverer.start()
            stack.push_async_callback(service.stop_working)
            housekeeper = Housekeeper(runtime)
            housekeeper.start()
            stack.push_async_callback(housekeeper.stop)
            sinks.start()
        stack.callback(service.stop)
        yield service


async def _open(stack: AsyncExitStack, settings: Settings) -> Runtime:
    keys = KeyRing(secret_keys(settings))
    driver = open_driver(settings.database_url, clock_ms)
    writers = ThreadPoolExecutor(max_workers=driver.lanes, thread_name_prefix="fluxgate-write")
    readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="fluxgate-read")
    stack.callback(readers.shutdown, wait=False)
    stack.callback(writers.shutdown, wait=False)
    door = Door(driver, writers=writers, readers=readers)
    stack.push_async_callback(door.close)
    providers = build(provider_settings(settings))
    tls = tls_context()
    talks = {name: Exchange(tls=tls) for name in providers}
    downloads = Exchange(tls=tls)
    for exchange in (*talks.values(), downloads):
        stack.push_async_callback(exchange.aclose)
    egress = Egress(settings.egress_allow, tls=tls)
    stack.push_async_callback(egress.aclose)
    chance = random.SystemRandom()
    runtime = Runtime(
        door=door,
        now_ms=clock_ms,
        make_id=make_id,
        chance=chance.random,
        salt=salts(),
        sleep=asyncio.sleep,
        keys=keys,
        providers=providers,
        talks=talks,
        downloads=downloads,
        egress=egress,
        files=Files(artifacts_folder(settings)),
        bell=Bell(),
        measures=Measures(),
        process_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        learned=Learned(),
        timing=Timing(
            lease_ms=int(settings.lease_s * 1000),
            uncertain_ms=int(settings.uncertain_s * 1000),
            poll_after_ms=None if settings.poll_after_s is None else int(settings.poll_after_s * 1000),
            keep_events_ms=settings.keep_events_days * _DAY_MS,
            keep_deliveries_ms=settings.keep_deliveries_days * _DAY_MS,
        ),
        public_url=settings.public_url,
    )
    if door.dialect == "postgresql":
        await _notify(stack, settings, runtime)
    return runtime


async def _notify(stack: AsyncExitStack, settings: Settings, runtime: Runtime) -> None:
    notifier = Notifier(
        settings.database_url,
        process_id=runtime.process_id,
        heard=lambda topics: runtime.bell.ring(topics, relayed=True),
    )
    runtime.bell.relay(notifier.relay)
    notifier.start()
    stack.push_async_callback(notifier.stop)


async def _bootstrap(service: Service) -> None:
    """The bootstrap key exists from the first start, with all scopes, whichever process is first."""
    secret = _revealed(service.settings.bootstrap_key)
    if secret is not None:
        await key_flow.create(
            service.runtime, tenant="default", name="bootstrap", scopes=frozenset(SCOPES), secret=secret
        )


async def ready(service: Service) -> dict[str, str]:
    """This function will name each readiness check that fails, with what is wrong; empty when all is well."""
    failing: dict[str, str] = {}
    try:
        async with asyncio.timeout(2.0):
            # A write that changes nothing: a database that can only be read (locked, a standby) is not enough.
            await service.runtime.door.write(lambda tx: stored_work.release(tx, mine="nobody"))
    except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
        failing["database"] = "it does not answer" if isinstance(error, TimeoutError) else str(error)
    if service.worker is not None and service.deliverer is not None:
        now_ms = service.runtime.now_ms()
        seen_ms = {**service.worker.seen_ms, **service.deliverer.seen_ms}
        stuck = [name for name, seen in seen_ms.items() if now_ms - seen > _STUCK_MS]
        if stuck:
            failing["work"] = f"no progress for a minute: {', '.join(sorted(stuck))}"
    if service.stopping():
        failing["process"] = "it is stopping"
    return failing


@contextmanager
def owning(settings: Settings) -> Iterator[bool]:
    """This function will hold an SQLite file as its one serving process; yields False when another has it."""
    if dialect_of(settings.database_url) != "sqlite":
        yield True
        return
    path = sqlite_path(settings.database_url)
    with file_lock(path.with_name(path.name + ".serve"), wait=False) as got:
        yield got
