"""How an atlas and its units are cited."""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml

from atlas_builder.config import Atlas, Configuration

# BibTeX counts braces whether or not they are escaped, so these are spelt out.
_TEX = {character: f"\\{character}" for character in "&%$#_"}
_TEX |= {"{": "\\textbraceleft{}", "}": "\\textbraceright{}", "\\": "\\textbackslash{}"}
_TEX |= {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}


class Citation(NamedTuple):
    """One citable thing, as text, as BibTeX and as tags for reference managers."""

    text: str
    bibtex: str
    tags: list[tuple[str, str]]
    url: str | None


def cite(config: Configuration, title: str, key: str, page: str, date: str | None) -> Citation:
    """Cite a page of the atlas; `page` is its path in the site, `key` names it in BibTeX."""
    atlas = config.atlas
    year = date[:4] if date else "n.d."
    authors = [author.name for author in atlas.authors]
    url = address(atlas, page)
    where = f"https://doi.org/{atlas.doi}" if atlas.doi else url
    edition = f"(edition {atlas.version}) [Data set]."
    if title != config.title:
        edition = f"In {config.title} {edition}"
    # A page of a data set with a DOI is found through its own address.
    text = f"{'; '.join(authors)} ({year}). {title}" if authors else f"{title} ({year})"
    text += f" {edition}" if title == config.title else f". {edition}"
    for place in dict.fromkeys(place for place in (where, url) if place):
        text += f" {place}"
    fields = {
        "author": " and ".join(_tex(author) for author in authors),
        "title": f"{{{_tex(title)}}}",
        "year": date[:4] if date else None,
        "version": atlas.version,
        "howpublished": None if title == config.title else _tex(config.title),
        "doi": atlas.doi,
        "url": url and url.replace("{", "%7B").replace("}", "%7D"),
        "note": "Data set",
    }
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    bibtex = f"@misc{{{re.sub(r'[^A-Za-z0-9]+', '-', key).strip('-')},\n" + ",\n".join(lines) + "\n}"
    tags = [("citation_title", title), *(("citation_author", author) for author in authors)]
    tags += [("DC.title", title), ("DC.type", "Dataset"), *(("DC.creator", author) for author in authors)]
    if date:
        tags += [("citation_publication_date", date.replace("-", "/")), ("DC.date", date)]
    if atlas.doi:
        tags += [("citation_doi", atlas.doi), ("DC.identifier", f"doi:{atlas.doi}")]
    if url:
        tags.append(("citation_public_url", url))
    return Citation(text, bibtex, tags, url)


def address(atlas: Atlas, page: str) -> str | None:
    """The public address of a page, where the atlas has one."""
    if atlas.url is None:
        return None
    return atlas.url.rstrip("/") + "/" + ("" if page == "index.html" else page)


def citation_cff(config: Configuration, date: str | None) -> str:
    """`CITATION.cff` of the atlas as a whole (Citation File Format 1.2)."""
    atlas = config.atlas
    authors: list[dict[str, str]] = []
    for author in atlas.authors:
        entry = {"name": author.name}
        if ", " in author.name:
            family, given = author.name.split(", ", 1)
            entry = {"family-names": family, "given-names": given}
        if author.orcid:
            entry["orcid"] = f"https://orcid.org/{author.orcid}"
        authors.append(entry)
    fields = {
        "cff-version": "1.2.0",
        "message": "If you use this atlas, please cite it as below.",
        "type": "dataset",
        "title": config.title,
        "version": atlas.version,
        "authors": authors or [{"name": config.title}],
        "license": atlas.license,
        "url": atlas.url,
        "doi": atlas.doi,
        "date-released": date,
    }
    kept = {name: value for name, value in fields.items() if value}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
