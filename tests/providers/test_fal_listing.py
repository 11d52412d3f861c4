"""fal's request listing finds a lost request by its input and its time, and proves nothing by silence."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from service.providers.base import Listed, Search, Stage, Trouble
from service.providers.fal.listing import MOST_PAGES
from tests.providers.fal_scene import KEY, MODEL, SEED, drive, fal, reply

FROM_MS = 1_760_000_000_000  # 2025-10-09T08:53:20Z
SEARCH = Search(
    attempt_id="att_1",
    model=MODEL,
    input={"prompt": "a cat", "seed": SEED, "guidance_scale": 2},
    from_ms=FROM_MS,
    until_ms=FROM_MS + 30_000,
)
FOUND = Listed(provider_request_id="req-1", sent_ms=FROM_MS + 5_000)


def item(**changes: Any) -> dict[str, Any]:
    return {
        "request_id": "req-1",
        "endpoint_id": MODEL,
        "sent_at": "2025-10-09T08:53:25Z",
        "status_code": 200,
        "json_input": {"guidance_scale": 2.0, "seed": SEED, "prompt": "a cat"},
        **changes,
    }


def page(*items: Any, **members: Any) -> Any:
    return reply(200, {"items": list(items), "next_cursor": None, "has_more": False, **members})


def found(*answers: Any) -> tuple[Listed, ...]:
    return drive(fal().find(SEARCH), *answers)[0]


def test_the_question_names_the_endpoint_and_the_time_and_wants_the_inputs() -> None:
    _, calls = drive(fal().find(SEARCH), page())
    url = urlsplit(calls[0].url)
    assert url._replace(query="").geturl() == "https://api.fal.ai/v1/models/requests/by-endpoint"
    assert parse_qs(url.query) == {
        "endpoint_id": [MODEL],
        "start": ["2025-10-09T08:53:18Z"],
        "limit": ["100"],
        "expand": ["payloads"],
    }
    assert (calls[0].method, calls[0].headers["Authorization"]) == ("GET", f"Key {KEY}")


def test_equal_input_in_the_window_is_found() -> None:
    assert found(page(item())) == (FOUND,)
    assert found(page(item(sent_at="2025-10-09T10:53:25.000+02:00"))) == (FOUND,)
    assert found(page(item(sent_at="2025-10-09T08:53:25"))) == (FOUND,)


def test_several_are_all_told_oldest_first_and_each_once() -> None:
    later = item(request_id="req-2", sent_at="2025-10-09T08:53:45Z")
    assert [listed.provider_request_id for listed in found(page(later, item(), item()))] == ["req-1", "req-2"]


@pytest.mark.parametrize(
    "other",
    [
        item(sent_at="2025-10-09T08:53:10Z"),
        item(sent_at="2025-10-09T08:54:00Z"),
        item(sent_at=None),
        item(sent_at="yesterday"),
        item(sent_at=1_760_000_005),
        item(request_id=None),
        item(request_id="../x"),
        item(endpoint_id="fal-ai/flux-2"),
        item(json_input=None),
        item(json_input={"prompt": "a cat", "seed": SEED + 1, "guidance_scale": 2}),
        item(json_input={"prompt": "a cat", "seed": SEED}),
        None,
        "req-1",
    ],
)
def test_what_differs_is_not_found(other: Any) -> None:
    assert found(page(other)) == ()
    assert found(page(other, item())) == (FOUND,)


def test_all_pages_are_read() -> None:
    outcome, calls = drive(fal().find(SEARCH), page(next_cursor="Mg==", has_more=True), page(item()))
    assert outcome == (FOUND,)
    assert parse_qs(urlsplit(calls[1].url).query)["cursor"] == ["Mg=="]


@pytest.mark.parametrize(
    "answers",
    [
        [page(item(), next_cursor="Mg==", has_more=True), Trouble(stage=Stage.MAYBE_SENT, reason="reset")],
        [page(item(), next_cursor="Mg==", has_more=True), reply(500, {})],
        [page(item(), next_cursor=None, has_more=True)],
        [page(item(), next_cursor="Mg==", has_more=True)] * MOST_PAGES,
    ],
)
def test_of_half_a_listing_nothing_is_told(answers: list[Any]) -> None:
    assert found(*answers) == ()


@pytest.mark.parametrize(
    "answer",
    [
        Trouble(stage=Stage.NOT_SENT, reason="refused"),
        reply(401, {"items": [item()]}),
        reply(404, b""),
        reply(200, b"<html>"),
        reply(200, []),
        reply(200, {"items": None}),
    ],
)
def test_trouble_finds_nothing(answer: Any) -> None:
    assert found(answer) == ()
