"""The sitemap: the addresses of a site's pages for search engines, in one file or in several under an index.

A file holds 50,000 addresses at most (https://www.sitemaps.org/protocol.html); of more, `sitemap.xml` is the
index of `sitemap-1.xml`, `sitemap-2.xml`, ….
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape

from atlas_builder.config import AtlasSettings
from atlas_builder.site.citing.cite import address

SITEMAP = "sitemap.xml"
PART_OF_SITEMAP = re.compile(r"sitemap-\d+\.xml")
MOST_ADDRESSES = 50_000
"""Addresses of one file."""
_NAMESPACE = "http://www.sitemaps.org/schemas/sitemap/0.9"


def sitemap_files(atlas: AtlasSettings, addresses: Sequence[str], most: int = MOST_ADDRESSES) -> dict[str, str]:
    """The files of the sitemap by name, with `most` addresses in each."""
    if len(addresses) <= most:
        return {SITEMAP: _xml("urlset", "url", addresses)}
    parts = {
        _part(number): _xml("urlset", "url", addresses[first : first + most])
        for number, first in enumerate(range(0, len(addresses), most), start=1)
    }
    return {SITEMAP: _xml("sitemapindex", "sitemap", [address(atlas, name) or name for name in parts]), **parts}


def listed_addresses(atlas: AtlasSettings, text_of: Callable[[str], str]) -> dict[str, list[str]]:
    """The addresses that each file of a sitemap lists, by its name; `text_of` reads a file of the site.

    Raises `ValueError` where a file cannot be read, or the index names other files than its parts.
    """
    kind, listed = _locations(SITEMAP, text_of)
    if kind != "sitemapindex":
        return {SITEMAP: listed}
    names = [_part(number) for number in range(1, len(listed) + 1)]
    if listed != [address(atlas, name) for name in names]:
        raise ValueError(f"{SITEMAP}: its files are not {_part(1)} and those that follow it")
    return {name: _locations(name, text_of)[1] for name in names}


def _part(number: int) -> str:
    return f"sitemap-{number}.xml"


def _xml(kind: str, entry: str, addresses: Iterable[str]) -> str:
    entries = "\n".join(f"<{entry}><loc>{escape(url)}</loc></{entry}>" for url in addresses)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{kind} xmlns="{_NAMESPACE}">\n{entries}\n</{kind}>\n'


def _locations(name: str, text_of: Callable[[str], str]) -> tuple[str, list[str]]:
    """The kind of a file, and the addresses in it."""
    try:
        root = ET.fromstring(text_of(name))
    except ET.ParseError as error:
        raise ValueError(f"{name}: cannot be read ({error})") from None
    return root.tag.rpartition("}")[2], [each.text or "" for each in root.iter() if each.tag.endswith("loc")]
