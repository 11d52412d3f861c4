"""The browser program of docs/consume.md: in a real browser, through a break of its connection."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Route

from tests.browser.chromium import new_page
from tests.cli.process import staying
from tests.cli.test_consume_doc import BLOCKS
from tests.faults.processes import Port

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

API_KEY = "a-key-for-the-program-in-a-browser"
BODY = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "ein Füchslein"}}
PAGE = """<!doctype html><title>Events</title><script type="module">
import { follow } from "/follow.js";
window.seen = []; window.ended = [];
window.begin = (key, signal) => follow(key, (event) => seen.push(event), { signal })
  .then(() => ended.push("in peace"), (error) => ended.push(error.message));
</script>"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with new_page() as made:
        yield made


async def open_at(page: Page, url: str) -> None:
    """Show the page as a proxy before the service would, which serves both under one origin."""

    async def html(route: Route) -> None:
        await route.fulfill(body=PAGE, content_type="text/html")

    async def script(route: Route) -> None:
        await route.fulfill(body=BLOCKS["follow.js"], content_type="text/javascript")

    await page.route(f"{url}/page", html)
    await page.route(f"{url}/follow.js", script)
    await page.goto(f"{url}/page")
    await page.wait_for_function("!!window.begin")


async def submit(url: str, count: int) -> list[str]:
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
    ) as http:
        return [(await http.post("/v1/jobs", json=BODY)).json()["id"] for _ in range(count)]


async def seen(page: Page, count: int) -> list[dict[str, Any]]:
    await page.wait_for_function(f"seen.length >= {count}", timeout=20_000)
    found: list[dict[str, Any]] = await page.evaluate("seen")
    return found


async def test_the_program_of_the_page_follows_from_now_on_and_through_a_restart(
    sqlite_url: str, tmp_path: Path, page: Page
) -> None:
    port = Port()
    settings = {
        "FLUXGATE_DATABASE_URL": sqlite_url,
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FAL_KEY": "test",
        # Nobody is there: a job is accepted, and nothing else happens to it.
        "FLUXGATE_FAL_QUEUE_URL": "http://127.0.0.1:9",
    }
    command = ("serve", "--port", str(port.number))
    try:
        with staying(*command, log=tmp_path / "first", **settings) as first:
            await submit(first.url, 1)
            await open_at(page, first.url)
            async with page.expect_request("**/v1/events/stream*"):
                await page.evaluate(
                    "key => { window.control = new AbortController(); begin(key, control.signal); }", API_KEY
                )
            ids = await submit(first.url, 2)
            assert [event["job_id"] for event in await seen(page, 2)] == ids
            first.process.kill()
        with staying(*command, log=tmp_path / "second", **settings) as second:
            ids += await submit(second.url, 2)
            found = await seen(page, 4)
            assert [event["job_id"] for event in found] == ids, "each once, in order, and none from before"
            await page.evaluate("control.abort()")
            await page.wait_for_function("ended.length === 1", timeout=20_000)
            await page.evaluate("begin('a-key-that-nobody-made')")
            await page.wait_for_function("ended.length === 2", timeout=20_000)
            assert await page.evaluate("ended") == ["in peace", "refused: 401"]
    finally:
        port.close()
