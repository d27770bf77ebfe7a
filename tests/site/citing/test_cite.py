"""Citations, read back by the programs that people paste them into."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import pytest
import rispy
from bibtexparser.entrypoint import parse_string
from bibtexparser.middlewares import SeparateCoAuthors, SplitNameParts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

from atlas_builder.config_file import validate
from atlas_builder.corpus.token_text import plain
from atlas_builder.site.citing.cite import Citation, cite
from tests.support.atlases import HOSTILE

TEX = r"a_b & 50% $x$ #1 {open \n ~ ^ `` '' -- --- <a> |b| \textbf{c} }{"
HASH = "0123456789abcdef" * 4


def _citation(title: str = "A tiny atlas", authors: tuple[str, ...] = (), **atlas: Any) -> Citation:
    made = validate(
        {
            "atlas": {"id": "tiny", "title": title, "authors": [{"name": name} for name in authors], **atlas},
            "model": {"name": "demo"},
            "corpus": {"source": "stdlib"},
        }
    )
    return cite(made, "Neuron 12 of layer 3", "tiny-L3-N12", "L3/N12.html", "2026-01-02", digest=HASH)


def _full() -> Citation:
    authors = ("Doe, Jane", "Roe, Richard")
    return _citation("Atlas of GPT-2 small", authors, url="https://example.org/gpt2", doi="10.5281/zenodo.1234567")


# What LaTeX prints for the macros that the decoder does not know.
_MACROS = {"textbraceleft": "{", "textbraceright": "}", "textasciicircum": "^", "textasciigrave": "`"}
_MACROS |= {"textless": "<", "textgreater": ">", "textbar": "|", "textasciitilde": "~", "textbackslash": "\\"}
_LATEX = get_default_latex_context_db()
_LATEX.add_context_category("ours", [MacroTextSpec(name, sign) for name, sign in _MACROS.items()], prepend=True)


def _printed(tex: str) -> str:
    found: str = LatexNodes2Text(latex_context=_LATEX, strict_latex_spaces=True).latex_to_text(tex)
    return found


def _from_bibtex(text: str) -> tuple[str, list[str], dict[str, str]]:
    library = parse_string(text, append_middleware=[SeparateCoAuthors(), SplitNameParts()])
    assert library.failed_blocks == []
    (entry,) = library.entries
    fields = {name: field.value for name, field in entry.fields_dict.items()}
    authors = []
    for name in fields.pop("author", []):
        family, given_name = " ".join((*name.von, *name.last)), " ".join(name.first)
        assert name.jr == []
        authors.append(_printed(f"{family}, {given_name}" if given_name else family))
    title = fields.pop("title")
    assert re.fullmatch(r"\{.*\}", title)
    return _printed(title), authors, fields


def _from_csl(text: str) -> tuple[str, list[str], dict[str, Any]]:
    (item,) = json.loads(text)
    authors = [name.get("literal") or f"{name['family']}, {name['given']}" for name in item.pop("author", [])]
    return item.pop("title"), authors, item


def _from_ris(text: str) -> tuple[str, list[str], dict[str, Any]]:
    (item,) = rispy.loads(text)
    return item.pop("title"), item.pop("authors", []), item


READ = {"bibtex": _from_bibtex, "csl": _from_csl, "ris": _from_ris}


def _read(citation: Citation, kind: str) -> tuple[str, list[str], dict[str, Any]]:
    return READ[kind](getattr(citation, kind))


# Any text, and more of what the formats have a use for themselves.
_hostile = (
    st.text(max_size=40) | st.text(alphabet="{}\\\"'`%$&#_~^-,<> \t\n@=|ab", max_size=40) | st.sampled_from(HOSTILE)
)
_encodable = _hostile.map(lambda text: text.encode("utf-8", "ignore").decode().replace("\0", ""))
_printed_text = _encodable.filter(lambda text: bool(re.search(r"[^\W_]", text[:80])))
_title = _printed_text.map(lambda text: text[:150])
_names = st.lists(_printed_text.map(lambda text: text[:80]), max_size=3)


@pytest.mark.parametrize("kind", READ)
@settings(deadline=None)
@given(title=_title, authors=_names, label=_hostile)
@example(title=TEX, authors=["Smith and Sons, Inc.", "von Neumann, John", "a,b, c", "Doe, J., Jr."], label=TEX)
@example(title="0", authors=["Doe, J. & Co.", "&, 0"], label="")
def test_every_form_parses_back_to_the_same_title_and_authors(
    kind: str, title: str, authors: list[str], label: str
) -> None:
    unit = _citation(title, tuple(authors), url="https://example.org/a", doi="10.1234/x_y")
    names = [str(name) for name in unit.authors]
    for citation in (unit, unit.behaviour(2, label)):
        found, found_authors, rest = _read(citation, kind)
        assert found == citation.title
        assert found_authors == names
        assert citation.url in rest.values() or citation.url in rest.get("urls", ())
    assert unit.container == plain(re.sub(r"[\s\x00-\x1f\x7f-\x9f\ufffe\uffff]+", " ", title).strip())


@settings(deadline=None)
@given(title=_title, authors=_names, label=_hostile)
def test_the_text_is_one_line_that_says_who_what_where_and_which_edition(
    title: str, authors: list[str], label: str
) -> None:
    citation = _citation(title, tuple(authors), url="https://example.org/a", version="3.1").behaviour(2, label)
    assert len(citation.text.splitlines()) == 1
    said = [*map(str, citation.authors), "2026", citation.title, citation.container, "3.1", HASH[:16], citation.url]
    assert all(str(part) in citation.text for part in said)


def test_a_unit_is_cited_in_full() -> None:
    citation = _full()
    assert citation.text == (
        "Doe, Jane; Roe, Richard (2026). Neuron 12 of layer 3. In Atlas of GPT-2 small (edition 1) [Data set]. "
        "SHA-256 0123456789abcdef. https://doi.org/10.5281/zenodo.1234567 https://example.org/gpt2/L3/N12.html"
    )
    assert _from_bibtex(citation.bibtex)[2] == {
        "year": "2026",
        "howpublished": "Atlas of GPT-2 small",
        "note": "Data set, edition 1, SHA-256 0123456789abcdef",
        "doi": "10.5281/zenodo.1234567",
        "url": "https://example.org/gpt2/L3/N12.html",
    }
    assert _from_csl(citation.csl)[2] == {
        "id": "tiny-L3-N12",
        "type": "dataset",
        "container-title": "Atlas of GPT-2 small",
        "version": "1",
        "issued": {"date-parts": [[2026, 1, 2]]},
        "note": "SHA-256 0123456789abcdef",
        "DOI": "10.5281/zenodo.1234567",
        "URL": "https://example.org/gpt2/L3/N12.html",
    }
    ris = _from_ris(citation.ris)[2]
    assert (ris["type_of_reference"], ris["secondary_title"], ris["edition"]) == ("DATA", "Atlas of GPT-2 small", "1")
    assert (ris["year"], ris["date"], ris["doi"]) == ("2026", "2026/01/02", "10.5281/zenodo.1234567")


def test_a_behaviour_is_cited_by_its_number_label_and_address() -> None:
    unit, behaviour = _full(), _full().behaviour(2, "after import")
    assert behaviour.title == "Behaviour 2 (“after import”) of neuron 12 of layer 3"
    assert behaviour.url == "https://example.org/gpt2/L3/N12.html#b2"
    assert behaviour.key == "tiny-L3-N12-b2"
    assert (behaviour.container, behaviour.edition, behaviour.hash) == (unit.container, unit.edition, unit.hash)


def test_what_an_atlas_lacks_is_left_out() -> None:
    citation = _citation("A tiny atlas")
    assert citation.text.startswith("Neuron 12 of layer 3 (2026). In A tiny atlas (edition 1) [Data set].")
    assert "http" not in citation.text
    for kind in READ:
        _, authors, rest = _read(citation, kind)
        assert authors == []
        assert not {"doi", "DOI", "url", "URL", "urls"} & set(rest)
        assert "None" not in getattr(citation, kind)


def test_an_atlas_without_a_date_says_so() -> None:
    made = validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib"}})
    citation = cite(made, made.title, "atlas", "index.html", None)
    assert citation.text == "Neuron atlas of demo (n.d.) (edition 1) [Data set]."
    assert "year" not in _from_bibtex(citation.bibtex)[2]


def test_the_four_forms_and_the_head_of_a_page_are_small() -> None:
    """Sizes in bytes, for two authors, an address and a DOI, as the pages hold them."""
    citation = _full()
    assert sum(len(form.markup.encode()) for form in citation.forms) <= 1200
    tags = sum(len(f"<meta name={tag.name} property={tag.property} content={tag.content}>\n") for tag in citation.tags)
    links = len(f'<link rel="canonical" href="{citation.url}">\n<link rel="cite-as" href="{citation.place}">\n')
    script = len(f'<script type="application/ld+json">{citation.json_ld}</script>\n')
    assert tags + links + script <= 1500


def _head(page: Path) -> tuple[dict[str, list[str]], dict[str, str], dict[str, Any]]:
    """What a page's head says: meta tags, links by their relation, JSON-LD."""
    tree = html5lib.parse(page.read_bytes(), namespaceHTMLElements=False)
    tags: dict[str, list[str]] = {}
    for tag in tree.iter("meta"):
        for name in filter(None, (tag.get("name"), tag.get("property"))):
            tags.setdefault(name, []).append(tag.get("content"))
    links = {link.get("rel"): link.get("href") for link in tree.iter("link")}
    scripts = [script for script in tree.iter("script") if script.get("type") == "application/ld+json"]
    return tags, links, json.loads(scripts[0].text) if scripts else {}


def test_a_page_carries_what_reference_managers_and_previews_read(tiny_site: Path) -> None:
    tags, links, data = _head(tiny_site / "L1" / "N3.html")
    record = json.loads((tiny_site / "L1" / "N3.json").read_bytes())
    assert tags["citation_title"] == tags["og:title"] == ["Neuron 3 of layer 1"]
    assert tags["DC.type"] == ["Dataset"]
    assert "og:type" not in tags
    assert tags["og:site_name"] == ["A tiny atlas"]
    assert tags["citation_publication_date"] == ["2026/01/02"]
    assert tags["bibo.edition"] == ["1"]
    assert links["canonical"] == links["cite-as"] == "https://example.org/atlas/L1/N3.html"
    assert tags["og:description"][0].startswith("This neuron ")
    assert data == {}  # its hash is in its citation and its record
    assert f"SHA-256 {record['hash'][:16]}." in (tiny_site / "L1" / "N3.html").read_text(encoding="utf-8")
    data = _head(tiny_site / "L1" / "index.html")[2]
    assert data["@type"] == "Dataset"
    assert data["isPartOf"]["name"] == "A tiny atlas"


def test_an_edition_with_a_doi_is_cited_by_it() -> None:
    assert _full().place == "https://doi.org/10.5281/zenodo.1234567"
    assert json.loads(_full().json_ld)["isPartOf"]["sameAs"] == _full().place


def test_a_hostile_title_and_author_stay_text_in_the_head(hostile_site: Path) -> None:
    tags = _head(hostile_site / "L0" / "N1.html")[0]
    data = _head(hostile_site / "L0" / "index.html")[2]
    title = "</title><script>window.pwned=4</script> {{ 7*7 }} of two U+202E lines"
    assert data["isPartOf"]["name"] == tags["og:site_name"][0] == title
    assert tags["citation_author"] == ['"><script>window.pwned=5</script>']


def test_a_page_offers_forms_to_copy_and_says_how_to_cite_a_behaviour(tiny_site: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in sorted(tiny_site.glob("L1/N*.html"))]
    page = next(page for page in pages if "id=b1>" in page)
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    forms = {node.get("data-form"): node.text for node in tree.iter() if node.get("data-form")}
    assert list(forms) == ["text"]
    assert re.match(r"Neuron \d of layer 1 \(2026\)\. In A tiny atlas \(edition 1\) \[Data set\]\.", forms["text"])
    assert "<noscript><p class=note>For one behaviour, add #b1 to the address" in page


def test_a_layer_has_the_citations_of_all_its_units_in_the_other_forms(tiny_site: Path) -> None:
    records = [json.loads(path.read_bytes()) for path in tiny_site.glob("L1/N*.json")]
    listed = json.loads((tiny_site / "L1" / "cite.json").read_bytes())
    entries = rispy.loads((tiny_site / "L1" / "cite.ris").read_text(encoding="utf-8"))
    said = {f"Neuron {record['unit']} of layer 1": f"SHA-256 {record['hash'][:16]}" for record in records}
    assert len(records) > 1
    assert {item["title"]: item["note"] for item in listed} == said
    assert {entry["title"]: entry["notes"][0] for entry in entries} == said
    assert len(listed) == len(entries) == len(records)


def test_what_cannot_be_seen_in_a_title_or_name_is_spelt_out_in_every_form() -> None:
    shown = _citation("Atlas \u202eof\u2066", ("Doe\u202e, J\u200bane",), url="https://example.org/a")
    for form in (shown.text, shown.bibtex, shown.csl, shown.ris, str(shown.json_ld), str(shown.tags)):
        assert not re.search("[\u200b\u202e\u2066]", form)
    assert "Atlas U+202Eof" in shown.text
    assert "DoeU+202E, JU+200Bane" in shown.text
