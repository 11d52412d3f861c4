"""Waiting for the end of a job: by its stream, by long polls, or by the feed, whichever works with this key here."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from service.client.calls import Calls
from service.client.errors import Forbidden, UnexpectedAnswer
from service.client.event import Event
from service.client.feed import WAIT_S, paged
from service.client.job import is_final
from service.client.streams import Sign, Unusable, streamed
from service.domain.machine import TERMINAL

#: Push for speed, ask for truth: however lively a stream is, the job itself is looked at this often.
_LOOK_S = 60.0
_TOO_SOON_S = 1.0
_ENDS = ",".join(sorted(f"job.{state}" for state in TERMINAL))


def path_of(job_id: str) -> str:
    """This function will give the path of a job."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


class Waiting:
    """One wait; `latest` is the job as last seen."""

    def __init__(self, calls: Calls, job_id: str) -> None:
        self._calls = calls
        self._job_id = job_id
        self._may_look = True
        self.latest: Mapping[str, Any] | None = None

    async def until_final(self) -> Mapping[str, Any]:
        """This function will return the job object once it is final.

        :raises ProblemAnswered: if the service refuses every way.
        :raises Unreachable: if nothing answers for longer than the client is patient.
        """
        if self._calls.streams_work():
            try:
                return await self._by_stream()
            except Unusable:
                self._calls.do_without_streams()
            except Forbidden:
                # A key that may not read events may well read jobs.
                pass
        try:
            return await self._by_long_poll()
        except Forbidden as refused:
            try:
                return await self._by_feed()
            except Forbidden:
                raise refused from None

    async def _by_stream(self) -> Mapping[str, Any]:
        look_at_s = self._calls.surroundings.elapsed_s()
        path = f"{path_of(self._job_id)}/events/stream"
        async with aclosing(streamed(self._calls, path, query={}, cursor=None)) as stream:
            async for seen in stream:
                now_s = self._calls.surroundings.elapsed_s()
                if isinstance(seen, Event):
                    if self._ends(seen):
                        return await self._look() or seen.data
                elif seen is Sign.OPENED or now_s >= look_at_s:
                    look_at_s = now_s + _LOOK_S
                    found = await self._look()
                    if found is not None:
                        return found
        raise AssertionError("a stream that ends raises")

    async def _look(self) -> Mapping[str, Any] | None:
        """The job itself, if it is final and this key may read it: an event does not carry all of it."""
        if not self._may_look:
            return None
        try:
            self.latest = await self._calls.get(path_of(self._job_id))
        except Forbidden:
            self._may_look = False
            return None
        return self.latest if is_final(self.latest.get("state")) else None

    async def _by_long_poll(self) -> Mapping[str, Any]:
        while True:
            asked_s = self._calls.surroundings.elapsed_s()
            self.latest = await self._calls.get(path_of(self._job_id), wait_s=WAIT_S)
            if is_final(self.latest.get("state")):
                return self.latest
            if self._calls.surroundings.elapsed_s() - asked_s < _TOO_SOON_S:
                await self._calls.surroundings.sleep(_TOO_SOON_S)

    async def _by_feed(self) -> Mapping[str, Any]:
        async with aclosing(paged(self._calls, query={"types": _ENDS}, position=None)) as pages:
            async for event in pages:
                if self._ends(event):
                    return event.data
        raise UnexpectedAnswer("the feed never ends")

    def _ends(self, event: Event) -> bool:
        return event.job_id == self._job_id and is_final(event.data.get("state"))
