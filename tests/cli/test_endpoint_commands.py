"""endpoints and deliveries: what they print, what they leave in the database, and how they fail."""

import json
from typing import Any

import pytest

from service import wiring
from service.domain.endpoint import Tried
from service.flows import deliveries
from service.flows.conclude import Conclude
from service.flows.fan_out import fan_out
from service.settings import Settings
from service.storage import events
from tests.cli.commands import said, within

#: A public address: nothing is sent there, and no name has to be resolved.
URL = "https://93.184.215.14/hook"
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("settings")


def made(capsys: Capture, *options: str) -> str:
    """Make an endpoint and give its id."""
    return dict(row.split(": ") for row in said(capsys, "endpoints", "create", URL, *options).splitlines())[
        "id"
    ]


def shown(capsys: Capture, endpoint_id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(said(capsys, "endpoints", "show", endpoint_id, "--json"))
    return document


def test_a_made_endpoint_prints_its_secret_this_once(capsys: Capture) -> None:
    rows = dict(row.split(": ") for row in said(capsys, "endpoints", "create", URL).splitlines())
    assert list(rows) == ["id", "secret"]
    assert rows["secret"].startswith("whsec_")
    for arguments in (["list"], ["list", "--json"], ["show", rows["id"]], ["show", rows["id"], "--json"]):
        assert rows["secret"] not in said(capsys, "endpoints", *arguments)
    plain = said(capsys, "endpoints", "show", rows["id"])
    assert f"url: {URL}\n" in plain
    assert "types: all\n" in plain


def test_an_endpoint_has_what_was_asked(capsys: Capture) -> None:
    options = (
        "--types job.failed,job.succeeded --format cloudevents --signatures v1,v1a --concurrency 4 --rate 7"
    )
    made_now = json.loads(
        said(capsys, "endpoints", "create", URL, *options.split(), "--description", "for billing", "--json")
    )
    assert made_now.pop("secret").startswith("whsec_")
    assert made_now == shown(capsys, made_now["id"])
    assert (made_now["types"], made_now["format"]) == (["job.failed", "job.succeeded"], "cloudevents")
    assert (made_now["signatures"], made_now["concurrency"], made_now["rate_per_s"]) == (["v1", "v1a"], 4, 7)
    assert made_now["description"] == "for billing"


def test_endpoints_are_listed_newest_first_and_page_by_page(capsys: Capture) -> None:
    ids = [made(capsys) for _ in range(3)]
    made(capsys, "--tenant", "other")
    rows = [row.split("\t") for row in said(capsys, "endpoints", "list").splitlines()]
    assert [row[:4] for row in rows] == [[one, "active", URL, "all"] for one in ids[::-1]]
    first = json.loads(said(capsys, "endpoints", "list", "--limit", "2", "--json"))
    rest = json.loads(
        said(capsys, "endpoints", "list", "--limit", "2", "--json", "--cursor", first["next_cursor"])
    )
    assert [one["id"] for one in first["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None


def test_an_update_changes_what_it_names(capsys: Capture) -> None:
    endpoint_id = made(capsys, "--types", "job.failed", "--rate", "7")
    before = shown(capsys, endpoint_id)
    for options, changed in (
        (["--types", "all"], {"types": []}),
        (["--rate", "0"], {"rate_per_s": None}),
        (["--description", "new", "--url", URL + "/2"], {"description": "new", "url": URL + "/2"}),
        (["--state", "disabled"], {"state": "disabled", "disabled_reason": "operator"}),
        (["--state", "active"], {"state": "active", "disabled_reason": None}),
    ):
        after = json.loads(said(capsys, "endpoints", "update", endpoint_id, *options, "--json"))
        assert after == {**before, **changed, "updated_at": after["updated_at"]}
        assert shown(capsys, endpoint_id) == after
        before = after


def test_a_rotated_secret_is_a_new_one(capsys: Capture) -> None:
    first = json.loads(said(capsys, "endpoints", "create", URL, "--json"))
    second = json.loads(said(capsys, "endpoints", "rotate-secret", first["id"], "--json"))
    assert second["secret"] != first["secret"]
    assert second["previous_secret_until"] is not None


def test_a_url_that_may_not_be_called_is_one_line(capsys: Capture) -> None:
    for url in ("https://127.0.0.1/", "http://93.184.215.14/", "hook"):
        line = said(capsys, "endpoints", "create", url, code=1)
        assert line.startswith("fluxgate: the URL must ")
        assert "FLUXGATE_EGRESS_ALLOW" in line
    assert said(capsys, "endpoints", "list") == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "show ID",
        "update ID --state disabled",
        "delete ID",
        "rotate-secret ID",
        "test ID",
        "replay ID --after start",
    ],
)
def test_another_tenants_endpoint_is_as_unknown_as_none(arguments: str, capsys: Capture) -> None:
    endpoint_id = made(capsys, "--tenant", "other")
    unknown, others = (
        said(capsys, "endpoints", *arguments.replace("ID", one).split(), code=1)
        for one in ("ep_0", endpoint_id)
    )
    assert unknown == others
    assert "fluxgate endpoints list" in others
    still = json.loads(said(capsys, "endpoints", "show", endpoint_id, "--tenant", "other", "--json"))
    assert (still["state"], still["previous_secret_until"]) == ("active", None)


def test_a_deleted_endpoint_is_gone(capsys: Capture) -> None:
    endpoint_id = made(capsys)
    assert said(capsys, "endpoints", "delete", endpoint_id) == f"deleted: {endpoint_id}\n"
    assert said(capsys, "endpoints", "list") == ""
    said(capsys, "endpoints", "show", endpoint_id, code=1)


def sent_test(settings: Settings, capsys: Capture, endpoint_id: str) -> str:
    """Send a test event, let it be handed out, and give the event's id."""
    event_id = said(capsys, "endpoints", "test", endpoint_id).partition(":")[0]
    within(settings, lambda service: fan_out(service.runtime))
    return event_id


def test_a_test_event_goes_to_the_one_endpoint(settings: Settings, capsys: Capture) -> None:
    endpoint_id, other = made(capsys), made(capsys)
    event_id = sent_test(settings, capsys, endpoint_id)
    (only,) = json.loads(said(capsys, "deliveries", "list", "--event", event_id, "--json"))["data"]
    assert (only["endpoint_id"], only["event_type"]) == (endpoint_id, "endpoint.test")
    assert said(capsys, "deliveries", "list", "--endpoint", other) == ""


def test_a_disabled_endpoint_is_not_tested(capsys: Capture) -> None:
    endpoint_id = made(capsys)
    said(capsys, "endpoints", "update", endpoint_id, "--state", "disabled")
    assert "disabled" in said(capsys, "endpoints", "test", endpoint_id, code=1)
    assert "disabled" in said(capsys, "endpoints", "replay", endpoint_id, "--after", "start", code=1)


def test_a_replay_begins_at_the_start_a_seq_or_a_cursor(capsys: Capture) -> None:
    for after, told in (("start", "all that is kept"), ("7", "after seq 7"), ("ZXZlbnRzOjc", "after seq 7")):
        endpoint_id = made(capsys)
        assert said(capsys, "endpoints", "replay", endpoint_id, "--after", after).endswith(f"{told}\n")


def tried(settings: Settings, delivery_id: str, **told: Any) -> None:
    """Record an attempt as if it had been made."""

    async def act(service: wiring.Service) -> None:
        whole = await deliveries.one(service.runtime, tenant="default", delivery_id=delivery_id)
        outcome = Tried(at_ms=service.runtime.now_ms(), took_ms=12, **told)
        assert await Conclude(service.runtime)(whole.delivery, outcome) is not None

    within(settings, act)


def test_deliveries_are_listed_shown_and_retried(settings: Settings, capsys: Capture) -> None:
    endpoint_id = made(capsys)
    sent_test(settings, capsys, endpoint_id)
    (row,) = said(capsys, "deliveries", "list").splitlines()
    delivery_id, *rest = row.split("\t")
    assert rest[:6] == ["pending", endpoint_id, "endpoint.test", "-", "0", "-"]
    tried(settings, delivery_id, status=503, answer="come\tlater")
    (row,) = said(capsys, "deliveries", "list", "--state", "pending").splitlines()
    assert row.split("\t")[5:7] == ["1", "503"]
    plain = said(capsys, "deliveries", "show", delivery_id)
    assert "attempt 1 status: 503\n" in plain
    assert "attempt 1 answer: come?later\n" in plain
    tried(settings, delivery_id, status=200)
    before = json.loads(said(capsys, "deliveries", "show", delivery_id, "--json"))
    assert (before["state"], len(before["attempts"])) == ("succeeded", 2)
    assert said(capsys, "deliveries", "retry", delivery_id) == f"{delivery_id}: pending\n"
    after = json.loads(said(capsys, "deliveries", "show", delivery_id, "--json"))
    assert (after["state"], after["attempts"]) == ("pending", before["attempts"])


def test_another_tenants_delivery_is_as_unknown_as_none(settings: Settings, capsys: Capture) -> None:
    sent_test(settings, capsys, made(capsys))
    delivery_id = said(capsys, "deliveries", "list").partition("\t")[0]
    assert said(capsys, "deliveries", "list", "--tenant", "other") == ""
    for command in ("show", "retry"):
        unknown = said(capsys, "deliveries", command, "dlv_0", "--tenant", "other", code=1)
        assert said(capsys, "deliveries", command, delivery_id, "--tenant", "other", code=1) == unknown
        assert "fluxgate deliveries list" in unknown


def test_a_test_event_is_in_the_stream(settings: Settings, capsys: Capture) -> None:
    endpoint_id = made(capsys)
    event_id = said(capsys, "endpoints", "test", endpoint_id).partition(":")[0]

    async def act(service: wiring.Service) -> list[tuple[str, str]]:
        found = await service.runtime.door.read(
            lambda tx: events.feed(tx, tenant="default", after=0, most=10)
        )
        return [(event.id, event.type) for event in found]

    assert within(settings, act) == [(event_id, "endpoint.test")]
