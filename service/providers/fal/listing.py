"""Looking for a lost request in fal's own listing, which may only adopt, never deny.

https://fal.ai/docs/platform-apis/v1/models/requests/by-endpoint (read 2026-11-20). UNCONFIRMED: whether requests
that have not ended are listed, and whether `start` and `end` mean the sending or the ending; so `end` is left
out, and the time of sending is compared here.
"""

from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from service.domain.canonical import canonical
from service.providers.base import Answer, Call, Listed, Search, Trouble
from service.providers.fal.account import Account
from service.providers.fal.reading import text_member
from service.providers.fal.urls import readable_id
from service.providers.reading import object_in

TIMEOUT_S = 20.0
PAGE_SIZE = 100
MOST_PAGES = 10
#: fal's clock is not ours, and its times may be cut to whole seconds.
CLOCKS_APART_MS = 2_000


def find(account: Account, search: Search) -> Generator[Call, Answer, tuple[Listed, ...]]:
    """This function will return the requests with equal input that were sent in the window, oldest first.

    Nothing is returned unless the listing was read to its end: of half a listing nobody can say that a match is
    the only one.
    """
    wanted = _canonical(search.input)
    if wanted is None:
        return ()
    found: dict[str, Listed] = {}
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        url = _page_url(account, search, cursor)
        answer = yield Call(method="GET", url=url, headers=account.headers(), timeout_s=TIMEOUT_S)
        page = object_in(answer.body) if not isinstance(answer, Trouble) and answer.status == 200 else None
        if page is None or not isinstance(page.get("items"), list):
            return ()
        found |= {listed.provider_request_id: listed for listed in _matches(page["items"], search, wanted)}
        cursor = text_member(page, "next_cursor")
        if page.get("has_more") is True and cursor is None:
            return ()
        if page.get("has_more") is False or cursor is None:
            return tuple(
                sorted(found.values(), key=lambda listed: (listed.sent_ms, listed.provider_request_id))
            )
    return ()


def _page_url(account: Account, search: Search, cursor: str | None) -> str:
    start = datetime.fromtimestamp((search.from_ms - CLOCKS_APART_MS) // 1_000, UTC)
    query = {
        "endpoint_id": search.model,
        "start": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "limit": str(PAGE_SIZE),
        "expand": "payloads",
    }
    if cursor is not None:
        query["cursor"] = cursor
    return f"{account.urls.platform}/models/requests/by-endpoint?{urlencode(query)}"


def _matches(items: list[Any], search: Search, wanted: bytes) -> Iterator[Listed]:
    for item in items:
        if not isinstance(item, dict):
            continue
        request_id, sent_ms = readable_id(item.get("request_id")), _time_ms(item.get("sent_at"))
        if request_id is None or sent_ms is None or item.get("endpoint_id", search.model) != search.model:
            continue
        earliest, latest = search.from_ms - CLOCKS_APART_MS, search.until_ms + CLOCKS_APART_MS
        given = item.get("json_input")
        if earliest <= sent_ms <= latest and isinstance(given, dict) and _canonical(given) == wanted:
            yield Listed(provider_request_id=request_id, sent_ms=sent_ms)


def _canonical(value: Mapping[str, Any]) -> bytes | None:
    """None for what has no canonical form, and so equals nothing."""
    try:
        return canonical(dict(value))
    except (ValueError, RecursionError):
        return None


def _time_ms(value: Any) -> int | None:
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None
