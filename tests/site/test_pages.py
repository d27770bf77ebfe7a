"""Every page of the fixtures: strict HTML that keeps its own Content-Security-Policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import pytest

from atlas_builder.collect.results import Collected
from atlas_builder.pipeline.build import build
from atlas_builder.rounding import number
from atlas_builder.site.theme import sha256
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure

POLICY = {
    "default-src": "'self'",
    "form-action": "'self' file:",
    "base-uri": "'none'",
}
_LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data", "form": "action"}
_LOADING = {"stylesheet", "icon", "preload", "prefetch", "next", "prev", "manifest"}


def _faults(page: Path) -> list[str]:
    """What is wrong with a page, in words."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    root = parser.parse(page.read_bytes())
    faults = [f"{code} at {place}" for place, code, _ in parser.errors]
    head = list(root.find("head"))
    policy = next((place for place, tag in enumerate(head) if tag.get("http-equiv")), None)
    if policy is None or any(tag.tag in _LOADED or tag.tag == "link" for tag in head[:policy]):
        return [*faults, "no policy before all that it is for"]
    rules = dict(rule.split(" ", 1) for rule in head[policy].get("content", "").split("; "))
    if page.name == "404.html":
        assert re.fullmatch(r"'self' 'sha256-[^']+'", rules.pop("script-src"))
        rules["base-uri"] = "'none'"
    if rules != POLICY:
        faults.append(f"another policy: {rules}")
    return faults + [fault for tag in root.iter() for fault in _breaches(tag, head[policy].get("content", ""))]


def _breaches(tag: Element, policy: str) -> Iterator[str]:
    """What of an element the policy would stop, or lead off the site."""
    if tag.tag == "style" or "style" in tag.attrib:
        yield f"{tag.tag} with a style of its own"
    if any(name.startswith("on") for name in tag.attrib):
        yield f"{tag.tag} with a handler of events"
    runs = tag.tag == "script" and "src" not in tag.attrib and tag.get("type") != "application/ld+json"
    if runs and sha256(tag.text or "") not in policy:
        yield "a script in the page"
    address = tag.get(_LOADED.get(str(tag.tag), ""))
    if tag.tag == "link" and _LOADING & set(tag.get("rel", "").split()):
        address = tag.get("href")
    if address and re.match(r"(?!data:)[a-z]+:|//", address):
        yield f"{tag.tag} from {address}"
    if tag.tag == "a" and re.match(r"\s*(javascript|data|vbscript):", tag.get("href", ""), re.IGNORECASE):
        yield "a link that runs"


def _all_faults(pages: list[Path]) -> list[str]:
    return [f"{page}: {fault}" for page in pages for fault in _faults(page)]


@pytest.mark.parametrize("site", ["tiny_site", "demo_site", "hostile_site"])
def test_every_page_is_strict_html_and_keeps_its_policy(
    site: str, request: pytest.FixtureRequest, pool: Executor
) -> None:
    pages = sorted(request.getfixturevalue(site).rglob("*.html"))
    units = [page for page in pages if re.fullmatch(r"N\d+\.html", page.name)]
    # Of many pages of one template some say it all.
    pages = [*(page for page in pages if page not in set(units)), *units[:: max(1, len(units) // 200)]]
    assert len(pages) > 40
    chunks = [pages[start : start + 8] for start in range(0, len(pages), 8)]  # those of layers are large
    assert [fault for faults in pool.map(_all_faults, chunks) for fault in faults] == []


def test_a_threshold_and_what_was_not_seen_are_said_where_examples_are_sampled(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    settings = configure(examples={"policy": "robust", "share": 0.9, "least": 12})
    site = build(settings, tmp_path / "robust", executor=pool)
    layer = Collected(work_folder(site) / "collect").layers[0]
    filled = layer.selection["filled"][:, 0]
    assert 0 < filled.sum() < layer.units
    for unit, (robust, reach, is_filled) in enumerate(layer.selection[:, 0].tolist()):
        said = f"Examples are above the threshold of {number(0.9 * robust)} (line)"
        page = (site / f"L0/N{unit}.html").read_text(encoding="utf-8")
        assert (said in page) == (reach > 0 and not is_filled)
        estimated = len(layer.of_side(unit, 1)[1]) >= 10 and not is_filled
        assert ("<dt>Richness, at least<dd>" in page) == estimated
        assert ("<dt>Effective number at 50 % coverage<dd>" in page) == estimated
        assert ("Behaviours that no example shows are not estimated" in page) != estimated


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("<b><p></b>", "adoption-agency-1.3 at"),
        ("<i style=color:red>", "i with a style"),
        ("<style></style>", "style with a style"),
        ("<i onclick=x()>", "i with a handler"),
        ("<script>x()</script>", "a script in the page"),
        ("<img src=//elsewhere.example/x.png>", "img from //"),
        ("<a href=' JavaScript:x()'>", "a link that runs"),
        ("<form action=https://elsewhere.example>", "form from https:"),
        ('<script type="application/ld+json">{}</script>', None),
    ],
)
def test_a_planted_fault_is_found(tiny_site: Path, tmp_path: Path, planted: str, said: str | None) -> None:
    page = tmp_path / "page.html"
    text = (tiny_site / "about.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</h1>", f"</h1>{planted}", 1), encoding="utf-8")
    assert any(said in fault for fault in _faults(page)) if said else _faults(page) == []


def test_a_page_that_opens_its_policy_is_found(tiny_site: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = (tiny_site / "about.html").read_text(encoding="utf-8")
    page.write_text(text.replace("default-src 'self'", "default-src 'self' 'unsafe-inline'"), encoding="utf-8")
    assert any("another policy" in fault for fault in _faults(page))
    page.write_text(re.sub("<meta http-equiv.*?>", "", text), encoding="utf-8")
    assert _faults(page) == ["no policy before all that it is for"]
