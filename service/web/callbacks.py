"""Where providers call back: the raw bytes go to the receive flow, and its verdict becomes a status."""

from starlette.responses import Response

from service.flows.receive import Answered
from service.web.problems import Problem, unavailable
from service.web.replies import json_reply
from service.web.visit import Visit

MOST_BODY = 8 * 1024 * 1024
_RECEIVED = b'{"received":true}'


async def receive(visit: Visit) -> Response:
    """This function will answer a callback: 200 once it is committed, else what is wrong with it."""
    headers = {name: ", ".join(values) for name, values in visit.headers.items()}
    body = await visit.body(most=MOST_BODY)
    answered = await visit.service.receive(visit.path("provider"), visit.path("token"), headers, body)
    if answered.status != 200:
        raise _refusal(answered)
    return json_reply(_RECEIVED)


def _refusal(answered: Answered) -> Problem:
    match answered.status:
        case 400:
            return Problem("malformed_callback", "the signature headers or the body are malformed")
        case 401:
            return Problem(
                "unauthenticated",
                "the callback is not proved to be this provider's, for this request",
                headers={"WWW-Authenticate": 'Signature realm="fluxgate callbacks"'},
            )
        case 404:
            return Problem("not_found", "there is nothing at this path")
        case _:
            return unavailable("the callback is kept but cannot be judged now: send it again")
