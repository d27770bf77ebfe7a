"""Take the README's pictures: `python site_config/figures/make.py output/demo output/demo-all`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

UNIT = "L1/N425.html"
SCORE = "Token F1"
_HERE = Path(__file__).parent


def main(demo: Path, everything: Path) -> None:
    """Photograph a neuron's page and a figure of the comparison, light, at a width that a README shows well."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 820}, color_scheme="light")
        page.goto((demo / UNIT).absolute().as_uri())
        page.screenshot(path=_HERE / "unit.png")
        _compared(page, everything)
        browser.close()


def _compared(page: Page, everything: Path) -> None:
    page.goto((everything / "index.html").absolute().as_uri())
    page.locator("figure", has_text=SCORE).locator("svg").screenshot(path=_HERE / "compared.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
