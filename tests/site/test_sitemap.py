"""The sitemap: one file, or an index of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.config import AtlasSettings
from atlas_builder.errors import ConfigurationError
from atlas_builder.progress import Progress
from atlas_builder.site.hosting import sums
from atlas_builder.site.hosting.check import check
from atlas_builder.site.prose.render import check_prose
from atlas_builder.site.sitemap import MOST_ADDRESSES, listed_addresses, sitemap_files

ATLAS = AtlasSettings(id="demo", title="Demo", url="https://example.org/atlas/")
Copy = Callable[[Path], Path]


@given(st.lists(st.sampled_from("ab&<>'é/"), max_size=30), st.integers(1, 12))
def test_every_address_is_listed_once_and_no_file_has_more_than_it_may(pieces: list[str], most: int) -> None:
    addresses = [f"https://example.org/{number}{piece}" for number, piece in enumerate(pieces)]
    files = sitemap_files(ATLAS, addresses, most)
    found = listed_addresses(ATLAS, files.__getitem__)
    assert [address for listed in found.values() for address in listed] == addresses
    assert all(len(listed) <= most for listed in found.values())
    assert (len(files) > 1) == (len(addresses) > most)


def test_above_fifty_thousand_addresses_the_sitemap_is_an_index_of_files() -> None:
    addresses = [f"https://example.org/atlas/{number}" for number in range(MOST_ADDRESSES)]
    assert list(sitemap_files(ATLAS, addresses)) == ["sitemap.xml"]
    files = sitemap_files(ATLAS, [*addresses, "https://example.org/atlas/last"])
    assert list(files) == ["sitemap.xml", "sitemap-1.xml", "sitemap-2.xml"]
    index = ElementTree.fromstring(files["sitemap.xml"])
    assert index.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}sitemapindex"
    assert [each.text for each in index.iter() if each.tag.endswith("loc")] == [
        "https://example.org/atlas/sitemap-1.xml",
        "https://example.org/atlas/sitemap-2.xml",
    ]


def _divided(site: Path) -> Path:
    """A site whose sitemap is in files of ten addresses."""
    text = (site / "sitemap.xml").read_text(encoding="utf-8")
    (addresses,) = listed_addresses(ATLAS, lambda name: text).values()
    for name, content in sitemap_files(ATLAS, addresses, 10).items():
        (site / name).write_text(content, encoding="utf-8", newline="\n")
    sums.seal(site)
    return site


def test_a_site_with_an_index_is_sound(tiny_site: Path, copy_of: Copy) -> None:
    site = _divided(copy_of(tiny_site))
    assert (site / "sitemap-2.xml").is_file()
    assert check(site, Progress(quiet=True)).problems == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("sitemap-2.xml", "/N", "/N9", "its addresses are not"),
        ("sitemap.xml", "sitemap-2.xml", "sitemap-3.xml", "its files are not"),
        ("sitemap.xml", "sitemapindex", "urlset", "its addresses are not"),
        ("sitemap-1.xml", "</urlset>", "", "sitemap-1.xml: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_under_the_index_is_found(
    tiny_site: Path, copy_of: Copy, name: str, old: str, new: str, said: str
) -> None:
    site = _divided(copy_of(tiny_site))
    (site / name).write_text((site / name).read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    sums.seal(site)
    assert any(said in problem for problem in check(site, Progress(quiet=True)).problems)


def test_a_part_that_no_index_names_is_found(tiny_site: Path, copy_of: Copy) -> None:
    site = copy_of(tiny_site)
    (site / "sitemap-1.xml").write_text("", encoding="utf-8")
    sums.seal(site)
    assert any("does not name it" in problem for problem in check(site, Progress(quiet=True)).problems)


def test_prose_has_no_page_in_the_place_of_a_part(tmp_path: Path) -> None:
    (tmp_path / "sitemap-1.xml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="would overwrite"):
        check_prose(str(tmp_path))
