"""What the site adds to Markdown: parts that scroll by keyboard, alignment by classes, anchors of any script."""

from __future__ import annotations

import unicodedata
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.extensions.toc import slugify
from markdown.postprocessors import Postprocessor
from markdown.treeprocessors import Treeprocessor


class _Tables(Treeprocessor):
    """Tables in an element that scrolls; headings name their columns, classes align cells."""

    def run(self, root: Element) -> None:
        for parent in list(root.iter()):
            for place, table in enumerate(parent):
                if table.tag == "table":
                    parent[place] = Element("div", {"class": "scroll", "tabindex": "0", "role": "group"})
                    parent[place].set("aria-label", "Table")
                    parent[place].append(table)
        for cell in root.iter():
            if cell.tag == "th" and len(cell) == 0 and not (cell.text or "").strip():
                cell.tag = "td"
            elif cell.tag == "th":
                cell.set("scope", "col")
            # Markdown writes the alignment as a style, which the Content-Security-Policy forbids.
            if cell.tag in ("td", "th") and (style := cell.attrib.pop("style", None)):
                cell.set("class", style.removeprefix("text-align: ").rstrip(";"))


class _Code(Postprocessor):
    """Blocks of code take the focus, so that keys scroll them."""

    def run(self, text: str) -> str:
        return text.replace("<pre>", '<pre tabindex="0">')


def heading_anchor(heading: str, separator: str) -> str:
    """The anchor of a heading, of its letters, marks and digits in whatever script.

    Where these are Latin it is Markdown's own, without accents, so that links stay as they were.
    """
    letters = [character for character in unicodedata.normalize("NFKD", heading) if character.isalnum()]
    if all(map(str.isascii, letters)) and (anchor := slugify(heading, separator)):
        return anchor
    words = "".join(character if _is_kept(character) else " " for character in unicodedata.normalize("NFKC", heading))
    return separator.join(words.lower().split()) or "section"


def _is_kept(character: str) -> bool:
    return character in "-_" or unicodedata.category(character)[0] in "LMN"


class Reachable(Extension):
    """Both, after Markdown and other extensions."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - Markdown's own name
        """Register what runs after the inline patterns, and after stored HTML is back."""
        md.treeprocessors.register(_Tables(md), "reachable-tables", 15)
        md.postprocessors.register(_Code(md), "reachable-code", 5)


def makeExtension(**settings: Any) -> Reachable:  # noqa: N802 - the name that Markdown looks for
    """What `markdown_extensions: [atlas_builder.site.prose.markdown]` loads."""
    return Reachable(**settings)
