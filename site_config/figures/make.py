"""Take the README's picture of a neuron's page: `python site_config/figures/make.py output/demo`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

UNIT = "L1/N160.html"


def main(site: Path) -> None:
    """Photograph one page, light, at a width that a README shows well."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 820}, color_scheme="light")
        page.goto((site / UNIT).absolute().as_uri())
        page.screenshot(path=Path(__file__).parent / "unit.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
