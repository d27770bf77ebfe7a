"""What surrounds the pages: metadata, assets, the schema, files for search engines, and files that nobody made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from urllib.parse import quote

import orjson

from atlas_builder.records.address import UnitAddress
from atlas_builder.records.columns import tables_of
from atlas_builder.records.schema import SCHEMA_FILE, schema
from atlas_builder.shipped import shipped_folder
from atlas_builder.site import constants, layer_table
from atlas_builder.site.citing import metadata
from atlas_builder.site.citing.cite import address
from atlas_builder.site.graph import interaction_addresses
from atlas_builder.site.hosting import sums
from atlas_builder.site.hosting.checks.comparison import Comparison
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.search.index import index_files, read_index_file
from atlas_builder.site.sitemap import PART_OF_SITEMAP, SITEMAP, listed_addresses


def surrounding_problems(site: PublishedSite, names: Sequence[str], *, same_version: bool) -> list[str]:
    """Where metadata, assets, the schema or the files for search engines are not what the atlas's facts give."""
    compared = Comparison(site)
    if not same_version:
        return compared.problems
    folder, citation = site.folder, site.pages.citation
    compared.same(f"schema/{SCHEMA_FILE.name}", orjson.dumps(schema(), option=orjson.OPT_INDENT_2))
    shipped = shipped_folder("themes") / "atlas" / "assets"
    for asset in sorted(shipped.rglob("*")):
        if asset.is_file():
            compared.same(f"assets/{asset.relative_to(shipped).as_posix()}", asset.read_bytes())
    compared.same("assets/constants.js", constants.script())
    compared.same(metadata.METADATA["citation"], metadata.citation_cff(citation))
    try:
        described = {
            "croissant": metadata.croissant(folder, citation),
            "ro_crate": metadata.ro_crate(folder, citation),
        }
    except (OSError, ValueError) as error:
        compared.problems.append(f"croissant.json: the tables cannot be read ({error})")
    else:
        for kind, content in described.items():
            compared.same(metadata.METADATA[kind], orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    compared.problems += _unaccounted(site, names)
    _facts(compared)
    _engines(compared, names)
    return compared.problems


def _unaccounted(site: PublishedSite, names: Sequence[str]) -> Iterator[str]:
    """Files in the builder's folders that no atlas like this has, whether or not they are listed in the sums."""
    shipped = shipped_folder("themes") / "atlas" / "assets"
    expected = {f"assets/{path.relative_to(shipped).as_posix()}" for path in shipped.rglob("*") if path.is_file()}
    expected |= {"assets/constants.js", "map/points.js", f"schema/{SCHEMA_FILE.name}"}
    expected |= {f"tables/{name}.parquet" for name in tables_of(site.config)}
    expected |= set(interaction_addresses(site.facts))
    for address_ in (UnitAddress(*unit) for unit in site.units):
        expected |= {address_.page, address_.record}
    for layer in site.facts["layers"]:
        files = (*layer_table.leaf_names(layer["units"]), "units.js", "cite.json", "cite.ris")
        expected |= {f"L{layer['layer']}/{name}" for name in files}
    (content,) = read_index_file(site.folder / "search" / "index.js")
    expected |= {f"search/{name}" for name in index_files(content)}
    for name in names:
        if sums.is_in_own_folder(name) and name not in expected:
            yield f"{name}: nothing accounts for it: remove it, or build the atlas again."


def _facts(compared: Comparison) -> None:
    """What `atlas.json` holds twice."""
    facts, config = compared.site.facts, compared.site.config
    pairs = {
        "atlas": config.atlas.model_dump(),
        "title": config.title,
        "metadata": metadata.METADATA,
    }
    compared.problems += [
        f"atlas.json: {name} is not what its configuration gives"
        for name, value in pairs.items()
        if facts[name] != value
    ]
    if facts["atlas"]["date"] not in (None, facts["date"]):
        compared.problems.append("atlas.json: its date is not that of its configuration")
    for name in ("name", "revision", "dtype"):
        if facts["model"][name] != facts["configuration"]["model"][name]:
            compared.problems.append(f"atlas.json: the model's {name} is not that of its configuration")
    for name in ("source", "revision"):
        if facts["corpus"][name] != facts["configuration"]["corpus"][name]:
            compared.problems.append(f"atlas.json: the corpus's {name} is not that of its configuration")


def _sitemap_problems(
    compared: Comparison, names: Sequence[str], known: AbstractSet[str | None], possible: AbstractSet[str | None]
) -> Iterator[str]:
    """What a sitemap lists in all, with its parts if it has any: all `known` addresses, and `possible` ones only."""
    try:
        files = listed_addresses(compared.site.config.atlas, compared.text)
    except ValueError as error:
        yield str(error)
        return
    listed = [place for addresses in files.values() for place in addresses]
    if len(set(listed)) != len(listed) or not known <= set(listed) <= possible:
        yield f"{SITEMAP}: its addresses are not those of the atlas's pages"
    for name in sorted({name for name in names if PART_OF_SITEMAP.fullmatch(name)} - set(files)):
        yield f"{name}: {SITEMAP} does not name it: remove it, or build the atlas again."


def _engines(compared: Comparison, names: Sequence[str]) -> None:
    """`robots.txt` and `sitemap.xml`; prose may be in folders, which only the sitemap lists."""
    site = compared.site
    atlas, robots = site.config.atlas, "User-agent: *\nAllow: /\n"
    if atlas.url:
        robots += f"Sitemap: {address(atlas, SITEMAP)}\n"
        leaves = [
            f"L{layer['layer']}/{leaf}"
            for layer in site.facts["layers"]
            for leaf in layer_table.leaf_names(layer["units"])
        ]
        pages = ["index.html", "map.html", *leaves, *(UnitAddress(*unit).page for unit in site.units)]
        pages += interaction_addresses(site.facts)
        pages += [page for page, _ in site.prose]
        known = {address(atlas, page) for page in pages}
        possible = known | {address(atlas, quote(name)) for name in names if name.endswith(".html")}
        compared.problems += _sitemap_problems(compared, names, known, possible)
    compared.same("robots.txt", robots)
