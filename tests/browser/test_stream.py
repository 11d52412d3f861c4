"""A page in a real browser follows the stream by fetch, with its key in the header, and goes on after a break."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Route

from tests.browser.chromium import new_page
from tests.cli.process import staying
from tests.faults.processes import Port

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

API_KEY = "a-key-for-the-tests-of-a-browser"
BODY = {"provider": "fal", "model": "fal-ai/flux-2", "input": {"prompt": "a fox"}}
#: As strict as a page can be that follows the stream of its own origin.
POLICY = "default-src 'none'; script-src 'nonce-own'; connect-src 'self'; base-uri 'none'"
PAGE = """<!doctype html>
<title>Events</title>
<script nonce="own">
const seen = [], comments = [], breaks = [];

async function follow(key) {
  let last = null;
  for (;;) {
    try {
      const headers = {Authorization: `Bearer ${key}`};
      if (last) headers["Last-Event-ID"] = last;
      const answer = await fetch("/v1/events/stream", {headers, cache: "no-store"});
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "", event = {};
      for (;;) {
        const {value, done} = await reader.read();
        if (done) throw new Error("the stream ended");
        const lines = (rest + value).split("\\n");
        rest = lines.pop();
        for (const line of lines) {
          if (line.startsWith(":")) { comments.push(line); continue; }
          if (line) {
            const colon = line.indexOf(": ");
            event[line.slice(0, colon)] = line.slice(colon + 2);
            continue;
          }
          seen.push({id: event.id, type: event.event, ...JSON.parse(event.data)});
          last = event.id;
          event = {};
        }
      }
    } catch (error) {
      breaks.push(String(error));
      await new Promise(resolve => setTimeout(resolve, 100));
    }
  }
}
</script>
"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with new_page() as made:
        yield made


async def opened(page: Page, url: str) -> list[str]:
    """Show the page as the service's own origin would, behind a proxy; gives what the browser complains of."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)

    async def answer(route: Route) -> None:
        headers = {"Content-Security-Policy": POLICY}
        await route.fulfill(body=PAGE, content_type="text/html", headers=headers)

    await page.route(f"{url}/page", answer)
    await page.goto(f"{url}/page")
    return complaints


async def until(page: Page, holds: str) -> None:
    """Wait for something in the page; its policy would not let playwright wait inside."""
    try:
        # A machine that runs the whole suite beside a browser may be slow.
        async with asyncio.timeout(60):
            while not await page.evaluate(holds):
                await asyncio.sleep(0.05)
    except TimeoutError:
        shown = await page.evaluate("({seen: seen.length, comments, breaks})")
        raise AssertionError(f"{holds} does not come true: {shown}") from None


async def seen_by(page: Page, count: int) -> list[dict[str, Any]]:
    await until(page, f"seen.length >= {count}")
    seen: list[dict[str, Any]] = await page.evaluate("seen")
    return seen


async def submitted(url: str, count: int) -> list[str]:
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
    ) as http:
        return [(await http.post("/v1/jobs", json=BODY)).json()["id"] for _ in range(count)]


async def test_a_page_follows_the_stream_and_goes_on_after_a_break(
    sqlite_url: str, tmp_path: Path, page: Page
) -> None:
    port = Port()
    settings = {
        "FLUXGATE_DATABASE_URL": sqlite_url,
        "FLUXGATE_BOOTSTRAP_KEY": API_KEY,
        "FAL_KEY": "test",
        "FLUXGATE_FAL_QUEUE_URL": "http://127.0.0.1:9",
    }
    command = ("serve", "--port", str(port.number))
    try:
        with staying(*command, log=tmp_path / "first", **settings) as first:
            ids = await submitted(first.url, 2)
            complaints = await opened(page, first.url)
            await page.evaluate("key => { follow(key); }", API_KEY)
            assert [event["job_id"] for event in await seen_by(page, 2)] == ids
            ids += await submitted(first.url, 2)
            await seen_by(page, 4)
            assert complaints == [], "the page's policy lets it, and there is no other origin to ask"
            first.process.kill()
        await until(page, "breaks.length > 0")
        with staying(*command, log=tmp_path / "second", **settings) as second:
            ids += await submitted(second.url, 3)
            seen = await seen_by(page, 7)
            assert [event["job_id"] for event in seen] == ids, "each once, in order"
            assert [event["seq"] for event in seen] == list(range(1, 8))
            assert {event["type"] for event in seen} == {"job.accepted"}
            assert await page.evaluate("comments.filter(line => line === ': connected').length") >= 2
            code, seconds = await asyncio.to_thread(second.stop)
            assert (code, seconds < 10) == (0, True)
    finally:
        port.close()
