"""Who may: the key in the `Authorization` header, and the scopes that a call takes."""

import re

from service.storage.keys import ApiKey
from service.web.problems import Problem
from service.web.visit import Visit

_BEARER = re.compile(r"bearer +([!-~]{1,4096})", re.IGNORECASE)
_CHALLENGE = 'Bearer realm="fluxgate"'


async def authorized(visit: Visit, scopes: tuple[str, ...]) -> ApiKey:
    """This function will find the caller's key and see that it has one of the scopes.

    :raises Problem: if there is no valid key, or it lacks every one of the scopes.
    :raises DatabaseUnavailable: if keys cannot be looked up now.
    """
    given = visit.header("authorization")
    if not given:
        raise _unauthenticated("this path needs a key: Authorization: Bearer <api key>")
    bearer = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
    key = await visit.service.keys.find(bearer[1]) if bearer else None
    if key is None:
        raise _unauthenticated("the key is not valid", error="invalid_token")
    if not key.scopes.intersection(scopes):
        wanted = " or ".join(scopes)
        challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{" ".join(scopes)}"'
        raise Problem("forbidden", f"this needs the scope {wanted}", headers={"WWW-Authenticate": challenge})
    return key


def _unauthenticated(detail: str, *, error: str | None = None) -> Problem:
    challenge = _CHALLENGE if error is None else f'{_CHALLENGE}, error="{error}"'
    return Problem("unauthenticated", detail, headers={"WWW-Authenticate": challenge})
