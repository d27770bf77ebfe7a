"""The same atlas in the other engine, from a folder and over http."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from marionette_driver import Wait
from marionette_driver.keys import Keys
from marionette_driver.marionette import Marionette

from tests.support.models import NARROW

pytestmark = pytest.mark.browser


@pytest.fixture
def faults(firefox: Marionette) -> Iterator[list[str]]:
    """Afterwards: what Firefox's own console says of pages, errors of scripts and breaches of the policy alike."""
    found: list[str] = []
    with firefox.using_context("chrome"):
        firefox.execute_script("Services.console.reset()")
    yield found
    with firefox.using_context("chrome"):
        found += firefox.execute_script("""
            return Services.console.getMessageArray()
                .filter(message => message instanceof Ci.nsIScriptError)
                .filter(error => !(error.flags & Ci.nsIScriptError.warningFlag) || /CSP|Security/.test(error.category))
                .filter(error => /^(file|http):/.test(error.sourceName))
                .map(error => error.sourceName + ': ' + error.errorMessage)
        """)
    assert found == []


def _until(firefox: Marionette, condition: str) -> None:
    Wait(firefox, timeout=10).until(lambda client: client.execute_script(f"return {condition}"), message=condition)


def _find(firefox: Marionette, selector: str):  # type: ignore[no-untyped-def]
    return firefox.find_element("css selector", selector)


def _click(firefox: Marionette, element: Any) -> None:
    firefox.execute_script("arguments[0].click()", script_args=[element])


@pytest.mark.usefixtures("faults")
def test_firefox_leads_from_home_to_a_sorted_layer_a_unit_and_a_search_hit(address: str, firefox: Marionette) -> None:
    firefox.navigate(f"{address}/index.html")
    # WebDriver does not scroll to links of a drawing.
    firefox.execute_script("""
        document.querySelector('main a[href="L1/index.html"]').dispatchEvent(new MouseEvent('click', {bubbles: true}));
    """)
    # The title is there before the scripts that sort have run.
    _until(firefox, "/Layer 1/.test(document.title) && document.readyState === 'complete'")

    # Nor does it scroll, in newer versions, to what is in a table that scrolls itself.
    _click(firefox, firefox.find_element("xpath", "//th/button[.='Maximum']"))
    _until(firefox, "document.querySelector('th[aria-sort]') !== null")
    values = firefox.execute_script("""
        const head = document.querySelector('th[aria-sort]'), place = head.cellIndex;
        return Array.from(head.closest('table').tBodies[0].rows, row => parseFloat(row.cells[place].textContent));
    """)
    assert len(values) == NARROW
    known = [value for value in values if value is not None]
    assert len(known) > NARROW / 2
    assert values == sorted(known, reverse=True) + [None] * (NARROW - len(known))  # never active: at the end

    _click(firefox, _find(firefox, "table.units tbody th a"))
    _until(firefox, "/L1\\/N\\d+\\.html$/.test(location.pathname) && document.readyState === 'complete'")
    assert re.fullmatch(r"Neuron \d+ of layer 1", _find(firefox, "h1").text)
    assert _find(firefox, "#b1 mark").is_displayed()

    box = _find(firefox, "input[type=search]")
    box.send_keys("return", Keys.ENTER)
    _until(firefox, "document.querySelector('#results li a') !== null")
    _click(firefox, _find(firefox, "#results li a"))
    _until(firefox, "/N\\d+\\.html$/.test(location.pathname)")
    assert "return" in _find(firefox, "main").text


@pytest.mark.usefixtures("faults")
def test_firefox_keeps_the_theme_that_a_reader_chose(address: str, firefox: Marionette) -> None:
    firefox.navigate(f"{address}/index.html")
    before = firefox.execute_script("return getComputedStyle(document.body).backgroundColor")
    _find(firefox, "#theme").click()
    after = firefox.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert after != before
    firefox.navigate(f"{address}/methods.html")
    assert firefox.execute_script("return getComputedStyle(document.body).backgroundColor") == after
    _find(firefox, "#theme").click()


@pytest.mark.usefixtures("faults")
def test_hostile_text_runs_nowhere_in_firefox(hostile_site: Path, firefox: Marionette) -> None:
    names = ["index.html", "L0/index.html", "404.html", "search.html?q=%3Cscript%3E", "search.html?q=__proto__"]
    names += [f"L{layer}/N{unit}.html" for layer in (0, 1) for unit in range(0, 24, 4)]
    for name in names:
        firefox.navigate(f"{hostile_site.as_uri()}/{name}")
        assert firefox.execute_script("return window.wrappedJSObject.pwned === undefined"), name
        assert firefox.title
