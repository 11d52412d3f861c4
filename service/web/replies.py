"""Answers as JSON, and the checks that ids of paths share."""

import re
from collections.abc import Mapping

from starlette.responses import Response

from service.flows.errors import NotFound
from service.web.visit import Visit

_ID = re.compile(r"[0-9a-z]{1,64}")


def json_reply(text: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """This function will answer with JSON text."""
    return Response(text, status, headers, media_type="application/json")


def id_in_path(visit: Visit, name: str, prefix: str) -> str:
    """This function will take an id out of the path.

    :raises NotFound: if it cannot be one of ours: there is no such thing, and no database need hear of it.
    """
    given = visit.path(name)
    head, _, tail = given.partition("_")
    if head != prefix or not _ID.fullmatch(tail):
        raise NotFound("there is nothing with this id")
    return given
