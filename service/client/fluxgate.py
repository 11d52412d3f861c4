"""The client: jobs in, results and events out."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from service.client import answers, feed
from service.client.calls import Calls
from service.client.errors import Conflict, FluxgateError, NotSendable, UnexpectedAnswer, WaitTimedOut
from service.client.event import Event
from service.client.job import Job
from service.client.surroundings import Surroundings
from service.client.waiting import Waiting, path_of
from service.client.webhooks import verify_webhook


class Fluxgate:
    """Speaks to one Fluxgate service with one API key. Close it with `aclose`, or use it in `async with`.

    Calls that fail on the way, or are answered 429, 502, 503 or 504, are sent again for up to `retry_for_s`
    seconds (`math.inf`: for ever), not sooner than `Retry-After` says. Other refusals are raised at once.

    `http` is an own httpx client, for proxies, certificates or limits; it is not closed with this one. Each wait
    holds a connection, so it must allow as many as there are waits.
    """

    #: Needs neither a service nor a key: `Fluxgate.verify_webhook(headers, body, secret)`.
    verify_webhook = staticmethod(verify_webhook)

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        http: httpx.AsyncClient | None = None,
        retry_for_s: float = 60.0,
        surroundings: Surroundings | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("base_url must begin with https:// or http://, without ? and #")
        if not api_key or not all("!" <= sign <= "~" for sign in api_key):
            raise ValueError(
                "api_key must be printable ASCII without spaces, as 'fluxgate keys create' shows it"
            )
        if not retry_for_s >= 0:
            raise ValueError("retry_for_s must be a number of seconds from 0")
        self._own = None if http else httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
        self._base_url = base_url.rstrip("/")
        chosen = http or self._own
        assert chosen is not None
        self._surroundings = surroundings or Surroundings()
        self._calls = Calls(
            base_url=self._base_url,
            api_key=api_key,
            http=chosen,
            surroundings=self._surroundings,
            retry_for_s=retry_for_s,
        )

    def __repr__(self) -> str:
        """Without the key: a representation ends up in logs."""
        return f"Fluxgate({self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """This function will close the connections, unless they belong to a client that was brought along."""
        if self._own is not None:
            await self._own.aclose()

    async def submit(
        self,
        *,
        model: str,
        input: Mapping[str, Any],
        idempotency_key: str | None = None,
        provider: str | None = None,
        route: Sequence[str] | None = None,
        deadline_s: int | None = None,
        priority: str | None = None,
        webhook_url: str | None = None,
        metadata: Mapping[str, str] | None = None,
        max_cost_usd: str | None = None,
        cache: str | None = None,
        archive: bool | None = None,
        on_uncertain: str | None = None,
    ) -> Job:
        """This function will hand in a job, and return once the service has committed it.

        All of its own retries carry one idempotency key (`idempotency_key`, made when absent), so that one call
        never makes two jobs. The key is on the job and on every `FluxgateError` that this raises: whoever submits
        the same again under it gets the same job. The other arguments are the fields of `POST /v1/jobs`; None
        leaves one out.

        :raises InvalidInput: if fields are wrong; `errors` names them.
        :raises IdempotencyMismatch: if the key was used before, with another body.
        :raises Unreachable: if nothing answered; the job may be there all the same.
        """
        key = self._surroundings.make_key() if idempotency_key is None else idempotency_key
        fields = {
            "model": model,
            "input": input,
            "provider": provider,
            "route": route,
            "deadline_s": deadline_s,
            "priority": priority,
            "webhook_url": webhook_url,
            "metadata": metadata,
            "max_cost_usd": max_cost_usd,
            "cache": cache,
            "archive": archive,
            "on_uncertain": on_uncertain,
        }
        try:
            content = _json({name: value for name, value in fields.items() if value is not None})
            _check_key(key)
            answer, _ = await self._calls.post("/v1/jobs", content=content, headers={"Idempotency-Key": key})
            return self._job(answers.document(answer), answer=answer, idempotency_key=key)
        except FluxgateError as error:
            error.idempotency_key = key
            raise

    async def get(self, job_id: str) -> Job:
        """This function will read a job.

        :raises NotFound: if there is none with this id.
        """
        return self._job(await self._calls.get(path_of(job_id)))

    async def cancel(self, job_id: str) -> Job:
        """This function will end a job that is not final; the provider is asked to cancel it, too.

        :raises Conflict: if it was final already.
        """
        answer, tries = await self._calls.post(f"{path_of(job_id)}/cancel")
        try:
            return self._job(answers.document(answer))
        except Conflict:
            # The answer to an earlier try may have been lost: then it is canceled, by us.
            job = await self.get(job_id) if tries > 1 else None
            if job is None or job.state != "canceled":
                raise
            return job

    async def retry(self, job_id: str) -> Job:
        """This function will submit a failed or expired job anew, and return the new job: one, however often called.

        :raises Conflict: if the job is in another state.
        """
        answer, _ = await self._calls.post(f"{path_of(job_id)}/retry")
        return self._job(answers.document(answer), answer=answer)

    def events(self, *, after: str | None = None, types: Sequence[str] = ()) -> AsyncGenerator[Event]:
        """This function will iterate over all events behind a cursor, in commit order, and go on with new ones.

        It never ends by itself: it connects again by itself and goes on where it was. Store `event.cursor` once an
        event is handled, and begin there after a restart; each event is seen at least once, so know it again by
        `event.id`. Without `after` it begins with the oldest event that is kept, with "now" behind the newest. Leaving the loop early? Put
        `contextlib.aclosing` around it, so that the connection is closed at once.

        :raises CursorExpired: if what stood behind the cursor is no longer kept; `oldest_cursor` is.
        :raises Unreachable: if the service is away for longer than `retry_for_s`. Whatever is raised, its `cursor`
            is where to go on.
        """
        return feed.events(self._calls, after=after, types=types)

    async def newest_cursor(self) -> str:
        """This function will give the cursor behind the newest event, to follow from there on."""
        return await feed.newest(self._calls)

    async def webhook_keys(self, tenant: str = "default") -> list[str]:
        """This function will read the public keys (`whpk_…`) that a tenant's `v1a` signatures are verified with."""
        found = (await self._calls.get(f"/.well-known/webhook-keys/{quote(tenant, safe='')}")).get("keys")
        if not isinstance(found, list) or not all(isinstance(key, dict) and "whpk" in key for key in found):
            raise UnexpectedAnswer("a list of keys was expected, and this is something else")
        return [str(key["whpk"]) for key in found]

    async def until_final(self, job: Job, timeout_s: float | None = None) -> Job:
        """This function will wait until a job is final and return it, however it ended.

        :raises WaitTimedOut: if `timeout_s` passed first; the job goes on.
        :raises Unreachable: if the service is away for longer than the client is patient.
        """
        waiting = Waiting(self._calls, job.id)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return self._job(await waiting.until_final(), idempotency_key=job.idempotency_key)
        except TimeoutError as error:
            if not limit.expired():
                raise
            seen = job if waiting.latest is None else self._job(waiting.latest)
            raise WaitTimedOut(f"{job.id} was {seen.state} after {timeout_s:g} s", job=seen) from error

    def _job(
        self,
        document: Mapping[str, Any],
        *,
        answer: httpx.Response | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        job_id, state = document.get("id"), document.get("state")
        if not isinstance(job_id, str) or not isinstance(state, str):
            raise UnexpectedAnswer("a job was expected, and this is something else")
        return Job(
            id=job_id,
            state=state,
            document=document,
            idempotency_key=idempotency_key,
            replayed=answer is not None and answer.headers.get("idempotent-replayed") == "true",
            _client=self,
        )


def _json(fields: Mapping[str, Any]) -> bytes:
    """Written by the standard library: integers of any size stay as they are, and NaN is refused, not made null."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSendable(f"the job cannot be written as JSON: {error}") from error


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= 255 or not all(" " <= sign <= "~" for sign in key):
        raise NotSendable("idempotency_key must have 1 to 255 printable ASCII characters")
