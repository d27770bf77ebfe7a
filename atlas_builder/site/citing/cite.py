"""How an atlas, its units and their behaviours are cited."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from markupsafe import Markup

from atlas_builder.config import AtlasSettings, Configuration
from atlas_builder.corpus.token_text import plain

_DIGITS = 16
"""Digits of a record's hash in what people copy: enough to distinguish contents. The record has all 64."""

# BibTeX counts braces whether or not they are escaped, so these are spelt out.
TEX = {character: f"\\{character}" for character in "&%$#_"}
TEX |= {"{": "\\textbraceleft{}", "}": "\\textbraceright{}", "\\": "\\textbackslash{}"}
TEX |= {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "`": "\\textasciigrave{}"}
TEX |= {"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}"}
_OF_TEX = str.maketrans(TEX | {"\0": "{}"})
LIGATURES = re.compile(r"([-',])(?=\1)")  # TeX prints -- as a dash


class Name(NamedTuple):
    """An author; without a given name, `family` is printed as it is."""

    family: str
    given: str = ""
    orcid: str | None = None

    def __str__(self) -> str:
        return f"{self.family}, {self.given}" if self.given else self.family


class Tag(NamedTuple):
    """A `<meta>` of a page's head: its name, its OpenGraph property if it has one, its content."""

    name: str
    property: str
    content: str


class Form(NamedTuple):
    """A citation to copy: its name for scripts, its title for people, its text as HTML."""

    kind: str
    title: str
    markup: Markup


@dataclass(frozen=True)
class Citation:
    """One citable thing. Every form of the citation is made from these fields."""

    title: str
    key: str
    """Its key in BibTeX and CSL-JSON."""
    edition: str
    license: str
    authors: tuple[Name, ...] = ()
    container: str | None = None
    """The atlas that it is a part of; none for an atlas."""
    date: str | None = None
    doi: str | None = None
    """Of the edition as a whole."""
    url: str | None = None
    hash: str | None = None
    """SHA-256 of its record."""
    description: str = ""

    def behaviour(self, number: int, label: str) -> Citation:
        """The citation of one behaviour of this unit; assets/cite.js makes the same from the page."""
        return replace(
            self,
            title=f"Behaviour {self.name_of(number, label)} of {self.title[0].lower()}{self.title[1:]}",
            key=f"{self.key}-b{number}",
            url=self.url and f"{self.url}#b{number}",
        )

    @staticmethod
    def name_of(number: int, label: str) -> str:
        """A behaviour's number and label: `2 (“after import”)`."""
        return f"{number} (“{_line(plain(label))}”)"

    @property
    def place(self) -> str | None:
        """The address that lasts longest: the edition's DOI, else the page's own address."""
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    @property
    def text(self) -> str:
        """For a list of references, in APA style for data sets."""
        year = self.date[:4] if self.date else "n.d."
        authors = "; ".join(map(str, self.authors))
        head = f"{authors} ({year}). {self.title}" if authors else f"{self.title} ({year})"
        container = f". In {self.container}" if self.container else ""
        parts = [f"{head}{container} (edition {self.edition}) [Data set]."]
        # A part of a data set with a DOI is found through its own address.
        parts += filter(None, [self._digest and f"{self._digest}.", *dict.fromkeys((self.place, self.url))])
        return " ".join(parts)

    @property
    def bibtex(self) -> str:
        """An entry that every style prints: `misc`, with what styles leave out in its note."""
        note = ", ".join(filter(None, ["Data set", f"edition {self.edition}", self._digest]))
        fields = {
            "author": " and ".join(map(_tex_name, self.authors)),
            "title": f"{{{_tex(self.title)}}}",
            "year": self.date and self.date[:4],
            "howpublished": self.container and _tex(self.container),
            "note": _tex(note),
            "doi": self.doi,
            "url": self.url,
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@misc{{{self.key},\n" + ",\n".join(lines) + "\n}"

    @property
    def csl(self) -> str:
        """CSL-JSON: a list of one item."""
        fields = {
            "id": self.key,
            "type": "dataset",
            "title": self.title,
            "author": [
                {"family": name.family, "given": name.given} if name.given else {"literal": name.family}
                for name in self.authors
            ],
            "container-title": self.container,
            "version": self.edition,
            "issued": self.date and {"date-parts": [[int(part) for part in self.date.split("-")]]},
            "note": self._digest,
            "DOI": self.doi,
            "URL": self.url,
        }
        return f"[{_json(fields)}]"

    @property
    def ris(self) -> str:
        """RIS, a line a field."""
        fields = [
            ("TY", "DATA"),
            *(("AU", str(name)) for name in self.authors),
            ("TI", self.title),
            ("T2", self.container),
            ("ET", self.edition),
            ("PY", self.date and self.date[:4]),
            ("DA", self.date and self.date.replace("-", "/")),
            ("N1", self._digest),
            ("DO", self.doi),
            ("UR", self.url),
        ]
        return "".join(f"{name}  - {value}\n" for name, value in fields if value) + "ER  - \n"

    @property
    def forms(self) -> list[Form]:
        """The citations that a page offers to copy; scripts make those of a unit for programs."""
        forms = [("text", "Text", self.text)]
        if not self.container:
            forms += [("bibtex", "BibTeX", self.bibtex), ("csl", "CSL-JSON", self.csl), ("ris", "RIS", self.ris)]
        # Quotes need no escape between tags, and JSON has many.
        return [Form(kind, title, Markup(html.escape(form, quote=False))) for kind, title, form in forms]

    @property
    def tags(self) -> list[Tag]:
        """What reference managers and previews read from a page's head.

        Zotero makes a data set of `DC.type` (where no `og:type` outranks it), takes the
        version from `bibo.edition`, the repository from `DC.publisher`, and of a tag with
        a name and a property the name.
        """
        authors = [str(name) for name in self.authors]
        tags = [
            Tag("citation_title", "og:title", self.title),
            *(Tag("citation_author", "", name) for name in authors),
            Tag("citation_publication_date", "", self.date.replace("-", "/") if self.date else ""),
            Tag("citation_doi", "", self.doi or ""),
            Tag("DC.type", "", "Dataset"),
            Tag("DC.publisher", "og:site_name", self.container or ""),
            Tag("bibo.edition", "", self.edition),
            Tag("description", "og:description", self.description),
        ]
        return [tag for tag in tags if tag.content]

    @property
    def json_ld(self) -> Markup:
        """A Dataset of schema.org: of a part only what distinguishes it, of an atlas more."""
        fields: dict[str, Any] = {
            "@context": "https://schema.org/",
            "@type": "Dataset",
            "name": self.title,
        }
        if self.container:
            fields["identifier"] = self.hash and f"sha256:{self.hash}"
            fields["isPartOf"] = {"@type": "Dataset", "name": self.container, "sameAs": self.doi and self.place}
        else:
            fields |= {
                "url": self.url,
                "version": self.edition,
                "license": licence_url(self.license),
                "identifier": self.doi and self.place,
                "description": self.description,
                "datePublished": self.date,
                "creator": [person(name) for name in self.authors],
            }
        return Markup(_json(fields).replace("<", "\\u003c"))

    @property
    def _digest(self) -> str | None:
        return self.hash and f"SHA-256 {self.hash[:_DIGITS]}"


def cite(
    config: Configuration,
    title: str,
    key: str,
    page: str,
    date: str | None,
    *,
    digest: str | None = None,
    description: str = "",
) -> Citation:
    """Cite a page of the atlas; `page` is its path in the site, `key` names it, `digest` is its record's hash."""
    atlas = config.atlas
    return Citation(
        title=_line(title),
        key=re.sub(r"[^A-Za-z0-9]+", "-", key).strip("-"),
        edition=_line(atlas.version),
        license=atlas.license,
        authors=names(atlas),
        container=None if title == config.title else _line(config.title),
        date=date,
        doi=atlas.doi,
        url=address(atlas, page),
        hash=digest,
        description=_line(description),
    )


def csl_of(citations: Iterable[Citation]) -> str:
    """Many citations as CSL-JSON, one a line."""
    return "[" + ",\n".join(citation.csl[1:-1] for citation in citations) + "]\n"


def ris_of(citations: Iterable[Citation]) -> str:
    """Many citations as RIS."""
    return "".join(citation.ris for citation in citations)


def names(atlas: AtlasSettings) -> tuple[Name, ...]:
    """The authors of an atlas; `Foote, Alex` has a family name and a given one."""
    authors = []
    for author in atlas.authors:
        line = _line(author.name)
        family, given = (part.strip() for part in line.partition(", ")[::2])
        authors.append(Name(family, given, author.orcid) if family and given else Name(line, "", author.orcid))
    return tuple(name for name in authors if name.family)


def address(atlas: AtlasSettings, page: str) -> str | None:
    """The public address of a page, where the atlas has one."""
    if atlas.url is None:
        return None
    return atlas.url.rstrip("/") + "/" + ("" if page == "index.html" else page)


def licence_url(licence: str) -> str:
    """Where SPDX describes a licence; an expression of several stays as it is."""
    return licence if " " in licence else f"https://spdx.org/licenses/{licence}"


def person(name: Name) -> dict[str, str]:
    """An author as a Person of schema.org."""
    place = f"https://orcid.org/{name.orcid}" if name.orcid else f"#{quote(str(name))}"
    fields = {"@id": place, "@type": "Person", "name": f"{name.given} {name.family}".strip()}
    return fields | ({"givenName": name.given, "familyName": name.family} if name.given else {})


@lru_cache(maxsize=64)
def _line(text: str) -> str:
    """Text on one line, its invisible characters spelt out as those of a corpus are.

    In every format here a line end or control character ends a field or the entry.
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return plain(re.sub(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+", " ", text).strip())


def _json(fields: dict[str, Any]) -> str:
    """Compact JSON without empty values, on two levels."""
    kept = {name: value for name, value in fields.items() if value}
    for name, value in kept.items():
        if isinstance(value, dict):
            kept[name] = {inner: part for inner, part in value.items() if part}
    return orjson.dumps(kept).decode()


def _tex(text: str) -> str:
    return LIGATURES.sub("\\1\0", text).translate(_OF_TEX)


@lru_cache(maxsize=64)
def _tex_name(name: Name) -> str:
    """A name, protected where BibTeX would split it."""
    splits = str(name).count(",") > 1 or re.search(r"\band\b", str(name), re.IGNORECASE)
    # A part of nothing but signs is no name for readers of BibTeX.
    whole = splits or not (re.search(r"[^\W_]", name.given) and re.search(r"[^\W_]", name.family))
    return f"{{{_tex(str(name))}}}" if whole else _tex(str(name))
