"""Chromium, headless, with the network closed but for this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # tests may run as root in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium must be installed where CI runs")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def errors() -> list[str]:
    """What went wrong on a page: scripts that failed, files that were not there, requests off the site."""
    return []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, errors: list[str]) -> Page:
    made = context.new_page()
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

    def failed(request: Request) -> None:
        if "ERR_ABORTED" not in str(request.failure):  # the reader went on before it came
            errors.append(f"failed: {request.url}")

    made.on("requestfailed", failed)

    def local(url: str) -> bool:
        return url.startswith(("file://", "http://127.0.0.1"))

    made.on("request", lambda request: None if local(request.url) else errors.append(f"off the site: {request.url}"))
    return made
