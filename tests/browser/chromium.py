"""A page in the system's Chromium (the package `chromium`): playwright brings no browser of its own here."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

CHROMIUM = "/usr/bin/chromium"


@asynccontextmanager
async def new_page() -> AsyncIterator[Page]:
    """Start a browser with one empty page, and end it with the context."""
    assert os.access(CHROMIUM, os.X_OK), f"{CHROMIUM} is not there: install the package chromium"
    async with async_playwright() as playwright:
        # As root, as in most containers, it has no sandbox of its own; it only ever sees pages of these tests.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield await browser.new_page()
        finally:
            await browser.close()
