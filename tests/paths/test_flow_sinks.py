"""Publishing the stream to a broker: pure flow logic, on both databases, with a broker in memory and time by hand."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from sqlalchemy import delete

from service.flows.runtime import Timing
from service.flows.sink import SWEEP_S, Publisher
from service.flows.sink_tasks import Sinks
from service.sinks.base import Kind, Message, SinkTrouble, Tail
from service.storage import events, sinks
from service.storage.database import DatabaseUnavailable
from service.storage.events import EVENT, Event
from service.storage.postgres import PostgresTx
from service.storage.sinks import Standing
from service.storage.statements import Statement
from tests.paths.sink_script import Memory, ScriptedSink
from tests.storage.world import NOW, Clock, Process, process

LEASE_MS = 15_000
NAME = "memory:test"


@dataclass
class Stage:
    """A database with events in it, a broker in memory, and processes that publish."""

    url: str
    folder: Path
    clock: Clock
    stack: AsyncExitStack
    memory: Memory
    first: Process
    written: int = 0

    async def another(self, name: str) -> Process:
        return await self.stack.enter_async_context(
            process(self.url, self.folder, clock=self.clock, name=name)
        )

    def publisher(self, of: Process | None = None, sink: Any = None) -> Publisher:
        return Publisher((of or self.first).runtime, sink or ScriptedSink(self.memory))

    async def write(self, count: int, **fields: Any) -> None:
        """Let events be committed: three jobs take turns."""
        made = []
        for number in range(self.written + 1, self.written + count + 1):
            given = {"data": f'{{"number":{number}}}', "tenant": "default", **fields}
            job = f"job_{number % 3}"
            made.append(
                Event(
                    id=f"evt_{number:05d}", type="job.queued", job_id=job, job_seq=number, at_ms=NOW, **given
                )
            )
        self.written += count
        await self.first.door.write(lambda tx: events.append(tx, made))

    async def standing(self) -> Standing:
        [found] = await self.first.door.read(lambda tx: sinks.standing(tx, [NAME]))
        return found

    async def cursor(self) -> int:
        rows = await self.first.door.read(lambda tx: tx.rows(Statement(sinks.SINK.select())))
        return int(rows[0]["seq"])

    async def forget(self, up_to: int) -> None:
        """Prune the events up to a number."""
        await self.first.door.write(lambda tx: tx.run(Statement(delete(EVENT).where(EVENT.c.seq <= up_to))))


@pytest.fixture
async def stage(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    clock = Clock()
    monkeypatch.setattr(PostgresTx, "clock_ms", lambda _: clock())
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(process(database_url, tmp_path, clock=clock, name="first"))
        yield Stage(database_url, tmp_path, clock, stack, Memory(), first)


async def drained(publisher: Publisher) -> None:
    """Take turns until nothing is left to do."""
    async with asyncio.timeout(20):
        while await publisher.turn() == 0:
            pass


async def test_a_message_is_the_event_as_the_feed_shows_it(stage: Stage) -> None:
    await stage.write(2, data='{"state":"queued","seed":15860307465884635512,"prompt":"ключ"}')
    await drained(stage.publisher())
    first = stage.memory.held[0]
    assert (first.seq, first.id, first.key, first.tenant) == (1, "evt_00001", "job_1", "default")
    assert b'"seed":15860307465884635512' in first.body
    told = orjson.loads(first.body)
    assert list(told) == ["id", "object", "seq", "type", "timestamp", "job_id", "job_seq", "data"]
    assert (told["id"], told["seq"], told["type"], told["job_seq"]) == ("evt_00001", 1, "job.queued", 1)


async def test_a_sink_that_is_switched_on_later_begins_with_the_first_event_that_is_kept(
    stage: Stage,
) -> None:
    await stage.write(600)
    await stage.forget(10)
    assert (await stage.standing()).lag == 590
    await drained(stage.publisher())
    assert stage.memory.seqs == list(range(11, 601))
    assert await stage.cursor() == 600
    assert (await stage.standing()).lag == 0


async def test_only_what_the_broker_confirmed_is_behind_the_cursor(stage: Stage) -> None:
    await stage.write(10)
    stage.memory.most_at_once = 4
    publisher = stage.publisher()
    await publisher.turn()
    assert await stage.cursor() == 10
    assert stage.memory.calls == ["open", "publish", "publish", "publish"]
    stage.memory.refusals = [Kind.REFUSED]
    await stage.write(5)
    assert await publisher.turn() not in (0, SWEEP_S)
    assert (await stage.cursor(), stage.memory.seqs[-1]) == (10, 10)


@pytest.mark.parametrize("tells", [True, False])
async def test_a_lost_answer_repeats_nothing_where_the_broker_can_tell(stage: Stage, tells: bool) -> None:
    stage.memory.tells = tells
    await stage.write(3)
    stage.memory.answer_lost = True
    publisher = stage.publisher()
    await publisher.turn()
    assert await stage.cursor() == 0
    await drained(publisher)
    assert stage.memory.seqs == ([1, 2, 3] if tells else [1, 2, 3, 1, 2, 3])
    assert await stage.cursor() == 3


async def test_an_outage_is_said_once_and_its_end_once(stage: Stage) -> None:
    await stage.write(1)
    stage.memory.refusals = [Kind.UNREACHABLE] * 9 + [Kind.DENIED]
    publisher = stage.publisher()
    with structlog.testing.capture_logs() as logged:
        waits = [await publisher.turn() for _ in range(10)]
        assert await stage.standing() == Standing(
            name=NAME, lag=1, trouble="denied", trouble_since_ms=stage.clock.now_ms
        )
        stage.clock.now_ms += 60_000
        await drained(publisher)
    assert [line["event"] for line in logged] == ["sink_down", "sink_down", "sink_up"]
    assert [line.get("kind") for line in logged] == ["unreachable", "denied", None]
    assert (logged[2]["down_ms"], logged[2]["tries"]) == (60_000, 10)
    assert waits == sorted(waits)
    assert 0 < waits[0] < 1
    assert waits[-1] <= 15
    assert await stage.standing() == Standing(name=NAME, lag=0, trouble=None, trouble_since_ms=None)


async def test_an_outage_that_ends_while_nothing_happens_is_over_too(stage: Stage) -> None:
    stage.memory.refusals = [Kind.UNREACHABLE]
    publisher = stage.publisher()
    await publisher.turn()
    assert (await stage.standing()).trouble == "unreachable"
    assert await publisher.turn() == SWEEP_S
    assert (await stage.standing()).trouble is None


async def test_one_process_publishes_and_the_other_takes_over_when_it_ends(stage: Stage) -> None:
    second = await stage.another("second")
    one, other = stage.publisher(), stage.publisher(second)
    await stage.write(3)
    await drained(one)
    assert await other.turn() == SWEEP_S
    assert stage.memory.calls == ["open", "publish"]
    await stage.write(2)
    await other.turn()
    assert stage.memory.seqs == [1, 2, 3], "the other did not publish"
    await one.end()
    await drained(other)
    assert stage.memory.seqs == [1, 2, 3, 4, 5]
    assert await one.turn() == SWEEP_S


async def test_a_process_that_stood_still_finds_the_sink_taken_and_stores_nothing(stage: Stage) -> None:
    second = await stage.another("second")
    one, other = stage.publisher(), stage.publisher(second)
    await stage.write(2)
    await drained(one)
    stage.clock.now_ms += LEASE_MS
    await drained(other)
    await stage.write(2)
    await drained(other)
    assert await one.turn() > 0, "the broker refuses it, whose end it does not know"
    assert stage.memory.seqs == [1, 2, 3, 4]
    assert await stage.cursor() == 4
    assert not one.held
    assert await one.turn() == SWEEP_S
    assert (await stage.standing()).trouble is None, "what one process is told is not the sink's state"


async def test_a_process_that_lost_its_lease_stops_at_once_where_the_broker_cannot_tell(stage: Stage) -> None:
    """One set is there twice then, which readers drop; a second one would only be more of that."""
    stage.memory.tells = False
    second = await stage.another("second")
    one, other = stage.publisher(), stage.publisher(second)
    await stage.write(2)
    await drained(one)
    stage.clock.now_ms += LEASE_MS
    await drained(other)
    await stage.write(2)
    await drained(other)
    stage.memory.most_at_once = 1
    assert await one.turn() == SWEEP_S
    assert stage.memory.seqs == [1, 2, 3, 4, 3]
    assert not one.held
    assert await stage.cursor() == 4


async def test_a_lease_that_is_renewed_is_kept(stage: Stage) -> None:
    second = await stage.another("second")
    one, other = stage.publisher(), stage.publisher(second)
    await one.turn()
    for _ in range(5):
        stage.clock.now_ms += LEASE_MS // 2
        await one.renew()
        await other.turn()
        assert not other.held


async def test_a_process_without_the_lease_renews_nothing(stage: Stage) -> None:
    second = await stage.another("second")
    one, other = stage.publisher(), stage.publisher(second)
    await one.turn()
    stage.clock.now_ms += LEASE_MS
    await other.turn()
    await one.renew()
    stage.clock.now_ms += LEASE_MS - 1
    third = stage.publisher(await stage.another("third"))
    await third.turn()
    assert not third.held


async def test_what_the_broker_lost_is_sent_again(stage: Stage) -> None:
    await stage.write(20)
    publisher = stage.publisher()
    await drained(publisher)
    del stage.memory.held[12:]
    await stage.write(1)
    with structlog.testing.capture_logs() as logged:
        await publisher.turn()
        await drained(publisher)
    assert stage.memory.seqs == list(range(1, 22))
    assert {
        "event": "sink_goes_back",
        "log_level": "warning",
        "sink": NAME,
        "confirmed": 20,
        "found": 12,
    } in logged


async def test_a_new_empty_broker_gets_all_that_is_kept(stage: Stage) -> None:
    await stage.write(20)
    await drained(stage.publisher())
    await stage.forget(4)
    stage.memory.held.clear()
    stage.clock.now_ms += LEASE_MS
    await drained(stage.publisher(await stage.another("second")))
    assert stage.memory.seqs == list(range(5, 21))


@pytest.mark.parametrize("end", [Tail(7, "evt_of_others"), Tail(3_000_000_000, None)])
async def test_a_stream_of_somebody_else_stops_the_sink_instead_of_skipping_events(
    stage: Stage, end: Tail
) -> None:
    class Foreign(ScriptedSink):
        async def open(self) -> Tail | None:
            await super().open()
            return end

    await stage.write(10)
    publisher = stage.publisher(sink=Foreign(stage.memory))
    assert await publisher.turn() not in (0, SWEEP_S)
    assert stage.memory.held == []
    assert (await stage.standing()).trouble == "foreign"
    assert (await stage.standing()).lag == 10


async def test_an_event_that_is_too_large_goes_without_its_data_and_the_log_says_so(stage: Stage) -> None:
    await stage.write(2)
    await stage.write(1, data='{"much":"' + "x" * 5_000 + '"}')
    await stage.write(2)
    stage.memory.most_bytes = 1_000
    with structlog.testing.capture_logs() as logged:
        await drained(stage.publisher())
    assert stage.memory.seqs == [1, 2, 3, 4, 5]
    assert [message.thinned for message in stage.memory.held] == [False, False, True, False, False]
    told = orjson.loads(stage.memory.held[2].body)
    assert (told["id"], told["seq"], told["job_id"], told["data"]) == ("evt_00003", 3, "job_0", None)
    assert stage.memory.held[2].labels()["thinned"] == "1"
    [line] = [line for line in logged if line["event"] == "event_too_large"]
    assert (line["event_id"], line["job_id"], line["size"] > 5_000) == ("evt_00003", "job_0", True)


async def test_an_event_that_is_too_large_even_without_data_stops_the_sink_and_shows(stage: Stage) -> None:
    await stage.write(1)
    stage.memory.most_bytes = 10
    publisher = stage.publisher()
    assert await publisher.turn() not in (0, SWEEP_S)
    assert (await stage.standing()).trouble == "refused"
    stage.memory.most_bytes = 10_000
    await drained(publisher)
    assert stage.memory.seqs == [1]


async def test_a_large_set_is_cut_into_portions(stage: Stage) -> None:
    await stage.write(10, data='"' + "x" * 1_000_000 + '"')
    stage.memory.most_bytes = 10_000_000
    await drained(stage.publisher())
    assert stage.memory.seqs == list(range(1, 11))
    assert stage.memory.calls.count("publish") == 3


async def test_a_defect_of_a_client_library_is_trouble_and_tells_no_secret(stage: Stage) -> None:
    class Broken(ScriptedSink):
        async def publish(self, messages: Any, *, after: int) -> int:
            raise ZeroDivisionError("redis://app:hidden-word@broker")

    await stage.write(1)
    publisher = stage.publisher(sink=Broken(stage.memory))
    with structlog.testing.capture_logs() as logged:
        await publisher.turn()
    assert (await stage.standing()).trouble == "defect"
    assert "hidden-word" not in str(logged)
    assert "ZeroDivisionError" in str(logged)


async def test_a_broker_that_never_answers_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(ScriptedSink):
        async def publish(self, messages: Any, *, after: int) -> int:
            await asyncio.Event().wait()
            return 0

    monkeypatch.setattr("service.flows.sink._PATIENCE_S", 0.05)
    await stage.write(1)
    await stage.publisher(sink=Silent(stage.memory)).turn()
    assert (await stage.standing()).trouble == "timeout"


async def test_without_the_database_nothing_is_published_and_nothing_forgotten(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.write(2)
    publisher = stage.publisher()
    await drained(publisher)
    await stage.write(1)
    real = stage.first.driver.write
    monkeypatch.setattr(stage.first.driver, "write", _away)
    with pytest.raises(DatabaseUnavailable):
        await publisher.turn()
    monkeypatch.setattr(stage.first.driver, "write", real)
    assert (stage.memory.seqs, await stage.cursor()) == ([1, 2, 3], 2)
    await stage.write(1)
    await drained(publisher)
    assert (stage.memory.seqs, await stage.cursor()) == ([1, 2, 3, 4], 4)


def _away(works: Any) -> Any:
    raise DatabaseUnavailable("it is away")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tells", [True, False])
async def test_whatever_fails_every_event_arrives_once_for_each_id_and_in_order(
    stage: Stage, tells: bool, seed: int
) -> None:
    """Crashes, outages, lost answers, partial answers, two processes: in any order."""
    dice = random.Random(seed)
    memory = stage.memory
    memory.tells = tells
    processes = [stage.first, await stage.another("second")]
    publishers = [stage.publisher(each) for each in processes]
    for _ in range(60):
        act = dice.choice(["write", "write", "refuse", "lose", "crash", "part", "time", "turn", "turn"])
        if act == "write":
            await stage.write(dice.randrange(1, 6))
        elif act == "refuse":
            memory.refusals.append(dice.choice(list(Kind)))
        elif act == "lose":
            memory.answer_lost = True
        elif act == "crash":
            # It is gone without a word; what it claimed stays claimed until the lease ends.
            at = dice.randrange(2)
            publishers[at] = stage.publisher(processes[at])
        elif act == "part":
            memory.most_at_once = dice.randrange(1, 5)
        elif act == "time":
            stage.clock.now_ms += dice.randrange(1, LEASE_MS)
        await dice.choice(publishers).turn()
    memory.refusals.clear()
    memory.answer_lost = False
    stage.clock.now_ms += 2 * LEASE_MS
    for publisher in publishers:
        await publisher.end()
    for _ in range(5):
        await drained(publishers[0])
    every = list(range(1, stage.written + 1))
    assert list(dict.fromkeys(memory.seqs)) == every, "the first time each comes is in order"
    if tells:
        assert memory.seqs == every
    assert await stage.cursor() == stage.written


class Slow(ScriptedSink):
    """Takes its time over everything."""

    async def publish(self, messages: Any, *, after: int) -> int:
        await asyncio.sleep(0.05)
        return await super().publish(messages, after=after)


async def test_a_sink_that_is_down_holds_up_no_other_and_wakes_at_an_event(stage: Stage) -> None:
    runtime = replace(stage.first.runtime, sleep=asyncio.sleep, timing=Timing(lease_ms=LEASE_MS))
    down = Memory(refusals=[Kind.UNREACHABLE] * 100_000)
    tasks = Sinks(runtime, [ScriptedSink(down, "memory:down"), Slow(stage.memory)])
    tasks.start()
    await asyncio.sleep(0.05)
    await stage.write(5)
    runtime.bell.ring({"feed"})
    async with asyncio.timeout(0.9):
        while stage.memory.seqs != [1, 2, 3, 4, 5]:
            await asyncio.sleep(0.01)
    assert len(down.calls) < 5, "it waits between its tries"
    await stage.write(1)
    runtime.bell.ring({"feed"})
    await tasks.stop()
    other = stage.publisher(await stage.another("second"))
    await drained(other)
    assert other.held, "the lease was given back"
    assert stage.memory.seqs == [1, 2, 3, 4, 5, 6]


async def test_stopping_does_not_wait_for_a_broker_that_does_not_answer(stage: Stage) -> None:
    class Silent(ScriptedSink):
        async def publish(self, messages: Any, *, after: int) -> int:
            await asyncio.Event().wait()
            return 0

        async def close(self) -> None:
            await asyncio.Event().wait()

    runtime = replace(stage.first.runtime, sleep=asyncio.sleep)
    await stage.write(1)
    tasks = Sinks(runtime, [Silent(stage.memory)])
    tasks.start()
    await asyncio.sleep(0.1)
    async with asyncio.timeout(3):
        await tasks.stop()


async def test_without_sinks_there_is_nothing_to_start_or_stop(stage: Stage) -> None:
    tasks = Sinks(stage.first.runtime, [])
    tasks.start()
    await tasks.stop()
    assert await stage.first.door.read(lambda tx: sinks.standing(tx, [])) == []


def test_trouble_says_its_kind() -> None:
    trouble = SinkTrouble(Kind.MISSING, "the topic is not there")
    assert (trouble.kind, str(trouble)) == ("missing", "the topic is not there")


def test_an_event_without_a_job_has_the_tenant_for_a_key() -> None:
    message = Message(
        seq=1, id="e", tenant="acme", type="endpoint.test", job_id=None, job_seq=None, at_ms=1, body=b"{}"
    )
    assert message.key == "acme"
    assert message.labels() == {"id": "e", "seq": "1", "type": "endpoint.test", "tenant": "acme"}
