"""Our key goes to fal or where the operator said, and nowhere else; result files come from there too."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.fal.urls import Urls
from tests.providers.fal_scene import completed, drive, fal, order, reply, subject

LIVE = Urls(
    queue="https://queue.fal.run",
    run="https://fal.run",
    jwks="https://rest.fal.ai/.well-known/jwks.json",
    platform="https://api.fal.ai/v1",
)
LOCAL = Urls(
    queue="http://127.0.0.1:9090/fal-queue",
    run="http://127.0.0.1:9090/fal-run",
    jwks="http://127.0.0.1:9090/fal-rest/.well-known/jwks.json",
    platform="http://127.0.0.1:9090/fal-api/v1",
)


@pytest.mark.parametrize(
    "url",
    [
        "https://queue.fal.run/a/b",
        "https://queue.falrun.com/a",
        "https://api.fal.ai/v1",
        "https://fal.run/a",
        "https://QUEUE.fal.run:443/a?x=1&y=%20",
    ],
)
def test_the_key_may_go_to_fals_own_domains(url: str) -> None:
    assert LIVE.may_carry_key(url)


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "queue.fal.run/a",
        "//queue.fal.run/a",
        "http://queue.fal.run/a",
        "ftp://queue.fal.run/a",
        "https://queue.fal.run:8443/a",
        "https://queue.fal.run:x/a",
        "https://queue.fal.run./a",
        "https://fal.run.evil.example/a",
        "https://evilfal.run/a",
        "https://evil.example/queue.fal.run",
        "https://user@queue.fal.run/a",
        "https://queue.fal.run@evil.example/a",
        "https://evil.example\\@queue.fal.run/a",
        "https://evil.example/\\.fal.run",
        "https://queue.fal.run/a#x",
        "https://queue.fal.run/a b",
        "https://queue.fal.run/a\nb",
        " https://queue.fal.run/a",
        "https://queue.fal.run\t/a",
        "https://v3.fal.media/a",
        "https://[::1/a",
        "https:///a",
        "http://127.0.0.1:9090/a",
        "https://queue.fal.run/" + "a" * 5_000,
    ],
)
def test_the_key_goes_nowhere_else(url: Any) -> None:
    assert not LIVE.may_carry_key(url)


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("http://127.0.0.1:9090/anything?x=1", True),
        ("http://127.0.0.1:9091/fal-queue", False),
        ("https://127.0.0.1:9090/fal-queue", False),
        ("http://localhost:9090/fal-queue", False),
        ("http://127.0.0.1:9090@evil.example/", False),
        ("https://queue.fal.run/a", True),
    ],
)
def test_a_configured_origin_is_trusted_exactly(url: str, may: bool) -> None:
    assert LOCAL.may_carry_key(url) is may


@pytest.mark.parametrize(
    ("urls", "url", "may"),
    [
        (LIVE, "https://v3.fal.media/files/a.png", True),
        (LIVE, "https://v3b.fal.media/files/a.png", True),
        (LIVE, "https://rest.fal.ai/a.png", True),
        (LIVE, "http://v3.fal.media/files/a.png", False),
        (LIVE, "https://fal.media.evil.example/a.png", False),
        (LIVE, "https://evil.example/a.png", False),
        (LIVE, "https://user:pw@v3.fal.media/a.png", False),
        (LIVE, "data:image/png;base64,AA==", False),
        (LIVE, "file:///etc/passwd", False),
        (LIVE, "http://127.0.0.1:9090/fal-files/a.png", False),
        (LOCAL, "http://127.0.0.1:9090/fal-files/a.png", True),
        (LOCAL, "http://user@127.0.0.1:9090/fal-files/a.png", False),
        (LOCAL, "http://127.0.0.1/fal-files/a.png", False),
    ],
)
def test_result_files_come_from_fals_delivery_hosts_or_a_configured_origin(
    urls: Urls, url: str, may: bool
) -> None:
    assert urls.may_download(url) is may
    adapter = fal(queue_url=urls.queue, run_url=urls.run, jwks_url=urls.jwks, platform_url=urls.platform)
    assert adapter.may_download(url) is may


@given(st.text() | st.text(alphabet=":/@#?.\\fal.runhtps[]%", max_size=40))
def test_no_text_raises(url: str) -> None:
    LIVE.may_carry_key(url)
    LIVE.may_download(url)


def test_a_configured_path_prefix_and_a_final_slash_are_kept_apart_from_the_model() -> None:
    adapter = fal(queue_url="http://127.0.0.1:9090/fal-queue/")
    _, calls = drive(adapter.submit(order(callback_url=None)), reply(200, {"request_id": "r"}))
    assert calls[0].url == "http://127.0.0.1:9090/fal-queue/fal-ai/flux-2/klein/4b/edit"
    links = {"status": "http://127.0.0.1:9090/elsewhere", "result": "https://queue.fal.run/r"}
    _, calls = drive(adapter.ask(subject(links=links)), completed(), reply(404, {}))
    assert [call.url for call in calls] == list(links.values())


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_an_empty_key_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        fal(key=key)


def test_the_key_is_not_shown_by_the_account() -> None:
    assert "0123456789abcdef" not in repr(fal()._account)
