"""Submits the jobs and follows the feed until every job is final and nothing is under way any more."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.cli.demo.caller import Caller
from service.cli.demo.checks import FINAL, Record
from service.cli.demo.script import Scene
from service.cli.failing import Failed

#: A demo that is not done by then has found a defect; what is there is checked and shown.
PATIENCE_S = 40.0
_TAKEN_S = 10.0


@dataclass
class Play:
    """What is known while it runs: by job id its scene and its last state, and every event in feed order."""

    tell: Callable[[str, Scene, str], None]
    scenes: dict[str, Scene] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    feed: list[dict[str, Any]] = field(default_factory=list)

    def accept(self, scene: Scene, job: dict[str, Any]) -> None:
        """This function will note a job that was handed in."""
        self.scenes[job["id"]] = scene
        self.states.setdefault(job["id"], job["state"])
        self.tell(job["id"], scene, self.states[job["id"]])

    def hear(self, event: dict[str, Any]) -> None:
        """This function will note an event; a job's first ones may come before the answer to its submit."""
        self.feed.append(event)
        job_id = event["job_id"]
        self.states[job_id] = event["data"]["state"]
        if event["type"] == "job.archived":
            self.kept.add(job_id)
        if job_id in self.scenes:
            self.tell(job_id, self.scenes[job_id], event["type"].removeprefix("job."))

    def over(self, jobs: int) -> bool:
        """This function will tell whether all jobs are final and the files of those that worked are kept."""
        final = len(self.scenes) == jobs and all(state in FINAL for state in self.states.values())
        worked = {job_id for job_id, state in self.states.items() if state == "succeeded"}
        return final and worked <= self.kept


async def play(caller: Caller, scenes: Sequence[Scene], tell: Callable[[str, Scene, str], None]) -> Play:
    """This function will hand in all jobs, one after the other, and follow them to their ends."""
    playing = Play(tell=tell)
    listening = asyncio.create_task(_listen(caller, playing, len(scenes)))
    try:
        for scene in scenes:
            await _hand_in(caller, playing, scene)
        async with asyncio.timeout(PATIENCE_S):
            await listening
            await _quiet(caller)
    except TimeoutError:
        pass  # the checks will say what is missing
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return playing


async def _hand_in(caller: Caller, playing: Play, scene: Scene) -> None:
    """The dials decide a request's fate when it arrives at the provider: so wait until it did."""
    await caller.turn(scene.dials)
    before = await _arrived(caller, scene.provider)
    job = await caller.submit(scene.body, idempotency_key=f"demo-{scene.number}")
    playing.accept(scene, job)
    try:
        async with asyncio.timeout(_TAKEN_S):
            while await _arrived(caller, scene.provider) == before:
                await asyncio.sleep(0.02)
    except TimeoutError:
        what = f"job {scene.number} did not reach {scene.provider} within {_TAKEN_S:g} s"
        raise Failed(what, "run it again on a less busy machine, or report it") from None


async def _arrived(caller: Caller, provider: str) -> int:
    requests: dict[str, Any] = (await caller.simulated("stats"))["providers"][provider]["requests"]
    return int(requests["accepted"]) + int(requests["refused"])


async def _listen(caller: Caller, playing: Play, jobs: int) -> None:
    cursor: str | None = None
    while not playing.over(jobs):
        events, cursor = await caller.events(cursor, wait_s=1)
        for event in events:
            playing.hear(event)


async def _quiet(caller: Caller) -> None:
    """Late and repeated callbacks come after the end; they are part of what is checked."""
    while (await caller.simulated("stats"))["callbacks_under_way"]:
        await asyncio.sleep(0.1)


async def record(caller: Caller, playing: Play) -> Record:
    """This function will read, from the beginning, everything that both sides say now."""
    jobs, histories, callbacks = [], {}, {}
    for job_id in playing.scenes:
        jobs.append(await caller.get(f"/v1/jobs/{job_id}"))
        histories[job_id] = await caller.everything(f"/v1/jobs/{job_id}/history")
        callbacks[job_id] = await caller.everything(f"/v1/jobs/{job_id}/callbacks")
    feed: list[dict[str, Any]] = []
    events, cursor = await caller.events(None, wait_s=0)
    while events:
        feed += events
        events, cursor = await caller.events(cursor, wait_s=0)
    requests = (await caller.simulated("requests"))["data"]
    return Record(
        jobs=jobs,
        histories=histories,
        callbacks=callbacks,
        feed=feed,
        watched=[event["id"] for event in playing.feed],
        accepted={
            name: provider["requests"]["accepted"]
            for name, provider in (await caller.simulated("stats"))["providers"].items()
        },
        requests=requests,
    )
