"""One call to the service: sent again while that can help and cannot harm, and until patience ends.

Rule: every call that is sent again is one that may be: reads, and writes that the service knows again by an
idempotency key or by the job they are about.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from service.client import answers
from service.client.errors import ProblemAnswered, RateLimited, Unavailable, UnexpectedAnswer, Unreachable
from service.client.surroundings import Surroundings

#: Beyond what a long poll waits by itself, an answer may take this long.
_ANSWER_S = 30.0
_CONNECT_S = 10.0
#: A stream says something every 15 s: who hears nothing for longer than two heartbeats hears nobody.
SILENCE_S = 40.0
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
#: Where a stream did not work, another one is tried after so long.
_WITHOUT_STREAMS_S = 600.0
#: Answers that say that another try may be answered differently; a 500 would most likely come again.
_TRANSIENT = (429, 502, 503, 504)

Query = Mapping[str, str | int | float]


class Patience:
    """How long to go on after failures in a row, and how long to wait between them."""

    def __init__(self, surroundings: Surroundings, *, retry_for_s: float) -> None:
        self._surroundings = surroundings
        self._retry_for_s = retry_for_s
        self._failures = 0
        self._until = self._deadline()

    def _deadline(self) -> float:
        return self._surroundings.elapsed_s() + self._retry_for_s

    def renew(self) -> None:
        """This function will begin anew, since there was a sign of life."""
        self._failures = 0
        self._until = self._deadline()

    async def wait(self, error: Exception) -> None:
        """This function will wait before the next try, longer each time and at least as long as the service asked.

        :raises Exception: the error itself, or `Unreachable` from it, if the wait would exceed the patience.
        """
        backoff_s = min(_FIRST_DELAY_S * 2 ** min(self._failures, 10), _LONGEST_DELAY_S)
        asked_s = error.retry_after_s if isinstance(error, ProblemAnswered) else None
        delay_s = max(backoff_s * (0.5 + self._surroundings.chance() / 2), asked_s or 0.0)
        self._failures += 1
        if _is_final(error) or self._surroundings.elapsed_s() + delay_s > self._until:
            raise error if isinstance(error, ProblemAnswered) else _unreachable(error) from error
        await self._surroundings.sleep(delay_s)


class Calls:
    """Sends requests with the key, to one service."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        http: httpx.AsyncClient,
        surroundings: Surroundings,
        retry_for_s: float,
    ) -> None:
        self.surroundings = surroundings
        self._base_url = base_url
        self._authorization = f"Bearer {api_key}"
        self._http = http
        self._retry_for_s = retry_for_s
        self._streams_from_s = surroundings.elapsed_s()

    def streams_work(self) -> bool:
        """This function will tell whether it is worth while to open a stream."""
        return self.surroundings.elapsed_s() >= self._streams_from_s

    def do_without_streams(self) -> None:
        """This function will keep everybody from streams for some minutes, since one did not work here."""
        self._streams_from_s = self.surroundings.elapsed_s() + _WITHOUT_STREAMS_S

    def patience(self) -> Patience:
        """This function will begin to be patient."""
        return Patience(self.surroundings, retry_for_s=self._retry_for_s)

    async def get(self, path: str, query: Query | None = None, *, wait_s: float = 0) -> dict[str, Any]:
        """This function will read one object; `wait_s` is how long the service was asked to wait for news."""
        answer, _ = await self._send("GET", path, query={**(query or {}), **_wait(wait_s)}, wait_s=wait_s)
        return answers.document(answer)

    async def post(
        self, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[httpx.Response, int]:
        """This function will send a call that changes something, and tell how often it had to be sent.

        :raises Unreachable: if nothing answered; the call may have been done all the same.
        """
        kind = {} if content is None else {"Content-Type": "application/json"}
        return await self._send("POST", path, content=content, headers={**kind, **(headers or {})})

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> tuple[httpx.Response, int]:
        patience = self.patience()
        tries = 0
        while True:
            tries += 1
            try:
                answer = await self._http.request(
                    method,
                    f"{self._base_url}{path}",
                    params=query or None,
                    content=content,
                    headers={"Authorization": self._authorization, "Accept": "application/json"}
                    | dict(headers or {}),
                    timeout=httpx.Timeout(_ANSWER_S + wait_s, connect=_CONNECT_S),
                    follow_redirects=False,
                )
            except httpx.TransportError as error:
                await patience.wait(error)
            except httpx.DecodingError as error:
                raise UnexpectedAnswer(f"{method} {path} was answered with a broken encoding") from error
            else:
                if answer.status_code not in _TRANSIENT:
                    return answer, tries
                await patience.wait(answers.problem(answer))

    @asynccontextmanager
    async def open(
        self, path: str, query: Query, *, last_event_id: str | None
    ) -> AsyncIterator[httpx.Response]:
        """This function will open a stream and leave its reading to the caller; it is tried once.

        :raises httpx.TransportError: if the connection fails, or is silent for `SILENCE_S`.
        """
        resume = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async with self._http.stream(
            "GET",
            f"{self._base_url}{path}",
            params=query or None,
            headers={
                "Authorization": self._authorization,
                "Accept": "text/event-stream",
                # Whoever compresses a stream collects it first.
                "Accept-Encoding": "identity",
                "Cache-Control": "no-store",
            }
            | resume,
            timeout=httpx.Timeout(SILENCE_S, connect=_CONNECT_S),
            follow_redirects=False,
        ) as answer:
            yield answer


def _wait(wait_s: float) -> Query:
    return {"wait": f"{wait_s:g}"} if wait_s else {}


def _is_final(error: Exception) -> bool:
    """A certificate that cannot be trusted will not be trusted in a second either."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return isinstance(error, ProblemAnswered) and not isinstance(error, RateLimited | Unavailable)


def _unreachable(error: Exception) -> Exception:
    return Unreachable(f"the service did not answer: {str(error) or type(error).__name__}")
