"""Posts events to a program on the developer's machine, exactly as the service posts its webhooks."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from service.domain import webhook
from service.domain.timestamps import rfc3339

if TYPE_CHECKING:
    from service.client import Event
    from service.client.surroundings import Surroundings

#: As long as the service itself waits for an answer to a webhook.
_ANSWER_S = 15.0
#: A program that is being restarted is back within this; one that stays broken does not hold up the rest.
_DELAYS_S = (0.5, 1.0, 2.0, 4.0)


class Forwarder:
    """Posts one event after the other to one URL; `say` gets a line for each try."""

    def __init__(
        self, url: str, secret: str, *, surroundings: "Surroundings", say: Callable[[str], None]
    ) -> None:
        self._url = url
        self._secret = secret
        self._surroundings = surroundings
        self._say = say
        # The rules for user-given URLs do not apply here: it is the developer's own machine that posts to the
        # developer's own program, so private addresses are the point, and nobody else's wish is carried out.
        self._http = httpx.AsyncClient(timeout=_ANSWER_S, trust_env=False)

    async def aclose(self) -> None:
        """This function will close the connections."""
        await self._http.aclose()

    async def forward(self, event: "Event") -> bool:
        """This function will post an event until it is taken, for some seconds; it tells whether it was."""
        for delay_s in (*_DELAYS_S, None):
            came_of_it = await self._post(event)
            if came_of_it is None:
                return True
            then = "left out" if delay_s is None else f"again in {delay_s:g} s"
            self._say_of(event, f"{came_of_it}: {then}")
            if delay_s is not None:
                await self._surroundings.sleep(delay_s)
        return False

    async def _post(self, event: "Event") -> str | None:
        """Try once; give what went wrong, None when it was taken. Each try has its own time and signature."""
        now_s, began_s = int(self._surroundings.clock_s()), self._surroundings.elapsed_s()
        body = webhook.standard_body(event.type, event.timestamp, event.text)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event.id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": webhook.sign(
                message_id=event.id, timestamp_s=now_s, body=body, secrets=[self._secret]
            ),
        }
        try:
            answer = await self._http.post(self._url, content=body, headers=headers)
        except httpx.RequestError as error:
            return str(error) or type(error).__name__
        took_ms = round((self._surroundings.elapsed_s() - began_s) * 1000)
        if not answer.is_success:
            return f"{_status(answer)} in {took_ms} ms"
        self._say_of(event, f"{answer.status_code} in {took_ms} ms")
        return None

    def _say_of(self, event: "Event", what: str) -> None:
        at = rfc3339(int(self._surroundings.clock_s() * 1000))
        self._say(f"{at} {event.type} {event.job_id or '-'} {what}")


def _status(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code} {HTTPStatus(answer.status_code).phrase}"
    except ValueError:
        return str(answer.status_code)
