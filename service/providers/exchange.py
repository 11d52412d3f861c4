"""The one place from which providers are called: it drives talks and fetches result files.

Rule 1: every request has a total time and a largest answer, follows no redirect (a 3xx is an answer), uses no
proxy from the environment and keeps no cookie.
Rule 2: `NOT_SENT` is said only where it is proved; whatever else goes wrong may have left (`MAYBE_SENT`).
Rule 3: a result file is fetched without any key of ours.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx

from service.providers.base import Answer, Call, Reply, Stage, Trouble
from service.providers.transport import CONNECT_S, DEPARTURE, Departure, Transport

MAX_REPLY_BYTES = 8 * 1024 * 1024
CONNECTIONS = 64

#: What proves that no byte of the request left. A timeout of ours is judged by the `Departure` instead.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
#: identity: the largest answer is meant as it comes, and a small one cannot become large.
_OUR_HEADERS = {"user-agent": "fluxgate", "accept-encoding": "identity"}

Concluded = TypeVar("Concluded")
Sink = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The answer to a download. Only a 200 is given to the sink; `size_bytes` is how much that was."""

    status: int
    content_type: str | None
    size_bytes: int
    #: The file is larger than allowed; what the sink got is only its beginning.
    too_large: bool


class Exchange:
    """The connections to one provider (or, apart from them, for result files), for the life of the process."""

    def __init__(self, *, tls: ssl.SSLContext, connections: int = CONNECTIONS) -> None:
        self._client = httpx.AsyncClient(
            transport=Transport(tls=tls, connections=connections),
            headers=_OUR_HEADERS,
            timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def aclose(self) -> None:
        """This function will close all connections."""
        await self._client.aclose()

    async def run(self, talk: Generator[Call, Answer, Concluded]) -> Concluded:
        """This function will make the calls of a talk one after the other and return what it concludes.

        It raises what the talk raises; trouble on the way is an answer, not an exception.
        """
        try:
            call = next(talk)
            while True:
                call = talk.send(await self._answer(call))
        except StopIteration as end:
            concluded: Concluded = end.value
            return concluded
        finally:
            talk.close()

    async def _answer(self, call: Call) -> Answer:
        departure = Departure()
        try:
            async with asyncio.timeout(call.timeout_s):
                return await self._exchange(call, departure)
        except TimeoutError:
            stage = Stage.NOT_SENT if departure.provably_not_sent else Stage.MAYBE_SENT
            return Trouble(stage=stage, reason=f"The provider did not answer within {call.timeout_s:g} s.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _trouble(error)

    async def _exchange(self, call: Call, departure: Departure) -> Answer:
        request = self._client.build_request(
            call.method,
            call.url,
            headers=dict(call.headers),
            content=call.body,
            extensions={DEPARTURE: departure},
        )
        response = await self._client.send(request, stream=True)
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    return Trouble(
                        stage=Stage.MAYBE_SENT, reason="The provider's answer is larger than 8 MiB."
                    )
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(status=response.status_code, headers=headers, body=bytes(body))

    async def download(self, url: str, *, sink: Sink, max_bytes: int, timeout_s: float) -> Fetched | Trouble:
        """This function will give a result file to `sink`, piece by piece.

        Whether the URL may be fetched at all (`Provider.may_download`) was asked by the caller. What the sink
        raises passes through.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
                return Trouble(
                    stage=Stage.NOT_SENT, reason="The result's URL is not a plain http or https URL."
                )
            async with limit:
                return await self._fetch(parsed, sink, max_bytes)
        except TimeoutError:
            if not limit.expired():
                raise
            return Trouble(
                stage=Stage.MAYBE_SENT, reason=f"The result did not arrive within {timeout_s:g} s."
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _trouble(error)

    async def _fetch(self, url: httpx.URL, sink: Sink, max_bytes: int) -> Fetched:
        response = await self._client.send(self._client.build_request("GET", url), stream=True)
        size, too_large = 0, False
        try:
            if response.status_code == 200:
                too_large = _announced_bytes(response) > max_bytes
                async for chunk in response.aiter_bytes():
                    too_large = too_large or size + len(chunk) > max_bytes
                    if too_large:
                        break
                    await sink(chunk)
                    size += len(chunk)
        finally:
            await response.aclose()
        return Fetched(
            status=response.status_code,
            content_type=response.headers.get("content-type"),
            size_bytes=size,
            too_large=too_large,
        )


def _announced_bytes(response: httpx.Response) -> int:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _trouble(error: Exception) -> Trouble:
    """The transport's words are safe; those of other errors are replaced, since they may name the URL."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Trouble(stage=Stage.NOT_SENT, reason=f"The provider could not be reached: {error}.")
    if isinstance(error, (*_NEVER_SENT, httpx.InvalidURL)):
        return Trouble(stage=Stage.NOT_SENT, reason="The request could not be sent.")
    if isinstance(error, httpx.ReadError):
        return Trouble(stage=Stage.MAYBE_SENT, reason=f"The provider gave no complete answer: {error}.")
    return Trouble(stage=Stage.MAYBE_SENT, reason="The provider gave no complete answer.")
