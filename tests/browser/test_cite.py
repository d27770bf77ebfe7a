"""Citing a unit or one of its behaviours, and meeting a page of an edition that has been followed by another."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from atlas_builder.config_file import validate
from atlas_builder.site import constants
from atlas_builder.site.citing.cite import Citation, cite
from atlas_builder.site.hosting.serve import server
from atlas_builder.site.theme import environment, find_theme
from tests.support.atlases import HOSTILE

pytestmark = pytest.mark.browser

LABELS = [
    "after import",
    *HOSTILE,
    "$& $1 $$ \\1 a_b & 50% #1 {open \\n ~ ^ `` '' -- --- <a> |b| \\textbf{c} }{",
    "https://example.org/a/L3/N12.html tiny-L3-N12 Neuron 12 of layer 3",
    "   two  spaces\n\tand a line ",
]


def _citation(url: str | None) -> Citation:
    atlas = {"id": "tiny", "title": "Atlas & <b>", "authors": [{"name": "Doe, Jane"}], "url": url}
    settings = validate({"atlas": atlas, "model": {"name": "demo"}, "corpus": {"source": "stdlib"}})
    return cite(settings, "Neuron 12 of layer 3", "tiny-L3-N12", "L3/N12.html", "2026-01-02", digest="ab" * 32)


@pytest.fixture
def cite_page(tmp_path: Path) -> Callable[[str | None], tuple[str, Citation]]:
    """Makes a page that is nothing but its section on citing, of a unit with the behaviours of `LABELS`."""

    def make(url: str | None) -> tuple[str, Citation]:
        citation = _citation(url)
        theme = find_theme("atlas")
        shutil.copytree(theme / "assets", tmp_path / "assets", dirs_exist_ok=True)
        (tmp_path / "assets" / "constants.js").write_bytes(constants.script())
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title>{% import "cite.html" as cite %}'
            "<script src=assets/constants.js></script>{{ cite.tags(citation) }}"
            '{{ cite.section(citation, "neuron", "", behaviours) }}'
            '{% for b in behaviours %}<section class="behaviour" id="b{{ b.id }}">'
            '<h2><a href="#b{{ b.id }}">{{ b.id }}</a> '
            "{{ b.label|visible }}</h2><p class=meta>5 of 100 examples<br>Next token</section>{% endfor %}</html>"
        )
        behaviours = [{"id": number, "label": label} for number, label in enumerate(LABELS, start=1)]
        rendered = environment(theme).from_string(page).render(citation=citation, behaviours=behaviours)
        (tmp_path / "page.html").write_text(rendered, encoding="utf-8")
        return (tmp_path / "page.html").as_uri(), citation

    return make


def _forms(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.locator("[data-form]").evaluate_all(
        "forms => Object.fromEntries(forms.map(form => [form.dataset.form, form.textContent]))"
    )
    return found


def _expected(citation: Citation) -> dict[str, str]:
    return {kind: getattr(citation, kind) for kind in ("text", "bibtex", "csl", "ris")}


@pytest.mark.parametrize("url", ["https://example.org/a", None])
def test_a_behaviour_is_cited_as_the_builder_would_cite_it(
    cite_page: Callable[[str | None], tuple[str, Citation]], page: Page, errors: list[str], url: str | None
) -> None:
    place, citation = cite_page(url)
    page.goto(place)
    assert _forms(page) == _expected(citation)
    select = page.get_by_role("combobox", name="What to cite")
    for number, label in enumerate(LABELS, start=1):
        select.select_option(index=number)
        assert _forms(page) == _expected(citation.behaviour(number, label)), label
    select.select_option("This neuron")
    assert _forms(page) == _expected(citation)
    page.locator("#b3").get_by_role("link", name="cite", exact=True).click()
    assert _forms(page) == _expected(citation.behaviour(3, LABELS[2]))
    assert page.evaluate("window.pwned") is None
    assert errors == []


def test_each_form_is_copied_as_it_stands(
    cite_page: Callable[[str | None], tuple[str, Citation]], page: Page, context: BrowserContext
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    place, citation = cite_page("https://example.org/a")
    page.goto(place)
    page.get_by_role("combobox", name="What to cite").select_option(index=1)
    for name, form in zip(
        ("text", "BibTeX", "CSL-JSON", "RIS"), _expected(citation.behaviour(1, LABELS[0])).values(), strict=True
    ):
        if name != "text":
            page.get_by_text(name, exact=True).click()
        button = page.get_by_role("button", name=f"Copy {name}")
        button.focus()
        page.keyboard.press("Enter")
        expect(button).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == form


def test_without_leave_to_copy_the_form_is_selected(
    cite_page: Callable[[str | None], tuple[str, Citation]], page: Page
) -> None:
    place, citation = cite_page(None)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(place)
    page.get_by_role("button", name="Copy text").click()
    assert page.evaluate("String(getSelection())") == citation.text


@pytest.fixture
def host(tmp_path: Path, tiny_site: Path) -> Iterator[str]:
    """A host with edition 2 of the tiny atlas at its address and edition 1 beside it, without L1/N4 in the newer."""
    (tmp_path / "index.html").write_text("the host's own page", encoding="utf-8")
    with server(tmp_path, 0) as running:
        origin = f"http://127.0.0.1:{running.server_port}"
        for folder, edition in (("atlas", "2"), ("old", "1")):
            shutil.copytree(tiny_site, tmp_path / folder)
            for page in (*(tmp_path / folder).glob("*.html"), *(tmp_path / folder).glob("L1/N[34].html")):
                text = page.read_text(encoding="utf-8").replace("https://example.org/atlas", f"{origin}/atlas")
                page.write_text(text.replace('data-edition="1"', f'data-edition="{edition}"'), encoding="utf-8")
            facts = tmp_path / folder / "atlas.json"
            text = facts.read_text(encoding="utf-8")
            facts.write_text(text.replace('"version": "1"', f'"version": "{edition}"'), encoding="utf-8")
        (tmp_path / "atlas" / "L1" / "N4.html").unlink()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield origin
        running.shutdown()


@pytest.mark.parametrize("name", ["L1/N3.html#b1", "index.html", "methods.html"])
def test_a_page_of_an_old_edition_leads_to_itself_in_the_one_that_followed(
    host: str, page: Page, errors: list[str], name: str
) -> None:
    page.goto(f"{host}/old/{name}")
    notice = page.locator(".edition")
    expect(notice).to_have_text("You are reading edition 1. See this page in edition 2.")
    notice.get_by_role("link").click()
    page.wait_for_url(f"{host}/atlas/{name}")
    page.wait_for_load_state("networkidle")
    expect(page.locator(".edition")).to_have_count(0)
    assert errors == []


def test_a_page_that_the_next_edition_lacks_leads_to_its_first(host: str, page: Page) -> None:
    page.goto(f"{host}/old/L1/N4.html")
    expect(page.locator(".edition")).to_have_text("You are reading edition 1. Go to edition 2.")
    assert page.locator(".edition a").get_attribute("href") == f"{host}/atlas/"


def test_the_notice_moves_nothing_on_the_page(host: str, page: Page) -> None:
    page.add_init_script(
        "window.shifts = []; new PerformanceObserver(list => shifts.push(...list.getEntries()))"
        ".observe({ type: 'layout-shift', buffered: true })"
    )
    page.goto(f"{host}/old/L1/N3.html")
    expect(page.locator(".edition")).to_be_in_viewport()
    page.wait_for_timeout(100)
    assert page.evaluate("shifts.length") == 0


@pytest.mark.parametrize("over", ["file", "http"])
def test_no_page_asks_another_host_whether_there_is_a_newer_edition(
    tiny_site: Path, page: Page, errors: list[str], over: str
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with server(tiny_site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        root = tiny_site.as_uri() if over == "file" else f"http://127.0.0.1:{running.server_port}"
        page.goto(f"{root}/L1/N3.html")
        page.wait_for_load_state("networkidle")
        running.shutdown()
    assert 'data-home="https://example.org/atlas"' in page.content()
    assert any(url.endswith("atlas.js") for url in asked)
    assert not any(url.endswith(("edition-notice.js", "atlas.json")) for url in asked)
    expect(page.locator(".edition")).to_have_count(0)
    assert errors == []
