"""Checks of a built site: links, records, hashes, search index, map, tables, size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from jsonschema import Draft202012Validator

from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.records import tables
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import SCHEMA_FILE, content_hash
from atlas_builder.site.hosting import size
from atlas_builder.site.search import index


@dataclass
class CheckReport:
    """The results of a check."""

    problems: list[str] = field(default_factory=list)
    pages: int = 0
    links: int = 0
    records: int = 0
    sizes: size.Sizes = field(default_factory=lambda: size.measure_sizes([], "none"))

    @property
    def summary(self) -> str:
        """One line."""
        verdict = f"{len(self.problems)} problems" if self.problems else "no problems"
        return (
            f"{self.pages:,} pages, {self.links:,} links, {self.records:,} records, "
            f"{self.sizes.bytes / 1e6:,.1f} MB: {verdict}"
        )


class _Page(HTMLParser):
    """The links of a page, and its anchors."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action") and value is not None:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.add(value)


def check(site: Path, progress: Progress) -> CheckReport:
    """Read every file of a built site, or of atlases and the page above them, and report problems.

    Raises `NoAtlasError` where the folder holds no atlas.
    """
    if (site / "index.html").exists() and not (site / "atlas.json").exists() and (atlases := _atlases(site)):
        return _check_all(site, atlases, progress)
    facts = read_facts(site)
    layers, host = facts["layers"], facts["configuration"]["site"]["host"]
    report = CheckReport()
    files = size.site_files(site)
    report.sizes = size.measure_sizes(files, str(host))
    report.problems += size.size_problems(files, str(host))
    pages = [site / file.name for file in files if file.is_file and file.name.endswith(".html")]
    _check_links(site, pages, report, progress)
    _check_records(site, layers, report, progress)
    _check_search(site, report)
    _check_map(site, layers, report)
    report.problems += tables.table_problems(site / "tables", layers)
    return report


def _atlases(folder: Path) -> list[Path]:
    """The atlases that a folder holds side by side, such as those of `demo --all`."""
    return sorted(path.parent for path in folder.glob("*/atlas.json") if not path.parent.name.startswith("."))


def _check_all(folder: Path, atlases: list[Path], progress: Progress) -> CheckReport:
    """Check each atlas of a folder, and the links of the page above them."""
    names = [site.name for site in atlases]
    parts = ((file, file.name.partition("/")) for file in size.site_files(folder))
    whole = CheckReport(
        sizes=size.measure_sizes(
            [file._replace(name=rest) if top in names else file for file, (top, _, rest) in parts], "none"
        )
    )
    _check_links(folder, [folder / "index.html"], whole, progress)
    for site in atlases:
        report = check(site, progress)
        whole.problems += [f"{site.name}/{problem}" for problem in report.problems]
        whole.pages, whole.links = whole.pages + report.pages, whole.links + report.links
        whole.records += report.records
    return whole


def _check_links(site: Path, pages: list[Path], report: CheckReport, progress: Progress) -> None:
    anchors: dict[Path, set[str]] = {}
    fragments_of: dict[Path, dict[str, Path]] = defaultdict(dict)
    exists: dict[Path, bool] = {}
    with progress.task("links", total=len(pages), unit="pages") as advance:
        for page in pages:
            parsed = _Page()
            try:
                parsed.feed(page.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                report.problems.append(f"{_name(site, page)}: it is not UTF-8")
            anchors[page] = parsed.anchors
            for link in parsed.links:
                report.links += 1
                try:
                    parts = urlsplit(link)
                except ValueError:
                    report.problems.append(f"{_name(site, page)}: {link} is not a valid URL")
                    continue
                if parts.scheme or parts.netloc:
                    continue
                if link.startswith("/"):
                    report.problems.append(f"{_name(site, page)}: {link} is not relative")
                    continue
                target = _resolve(page, parts.path)
                if target not in exists:
                    exists[target] = target.is_file()
                if not exists[target]:
                    report.problems.append(f"{_name(site, page)}: {link} leads nowhere")
                elif parts.fragment and target.suffix == ".html":
                    fragments_of[target].setdefault(unquote(parts.fragment), page)
            advance(1)
    report.pages = len(pages)
    for target, fragments in fragments_of.items():
        if target not in anchors:  # a page that is not one of `pages`
            parsed = _Page()
            parsed.feed(target.read_text(encoding="utf-8", errors="replace"))
            anchors[target] = parsed.anchors
        for fragment, page in fragments.items():
            if fragment not in anchors[target]:
                report.problems.append(f"{_name(site, page)}: {_name(site, target)}#{fragment} leads nowhere")


def _resolve(page: Path, link: str) -> Path:
    """The file that a relative link names, without access to the disk."""
    if not link:
        return page
    parts = list(page.parent.parts)
    for step in unquote(link).split("/"):
        if step == ".." and parts:
            parts.pop()
        elif step not in ("", "."):
            parts.append(step)
    return Path(*parts)


def _check_records(site: Path, layers: list[dict[str, int]], report: CheckReport, progress: Progress) -> None:
    try:
        schema = orjson.loads((site / "schema" / SCHEMA_FILE.name).read_bytes())
    except (OSError, ValueError) as error:
        report.problems.append(f"schema/{SCHEMA_FILE.name}: cannot be read ({error})")
        return
    validator = Draft202012Validator(schema)
    total = sum(layer["units"] for layer in layers)
    with progress.task("records", total=total, unit="records") as advance:
        for path in _record_files(site, layers):
            name = _name(site, path)
            advance(1)
            try:
                record = orjson.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                report.problems.append(f"{name}: cannot be read ({error})")
                continue
            report.records += 1
            problem = next(iter(validator.iter_errors(record)), None)
            if problem is not None:
                report.problems.append(f"{name}: {problem.json_path} {problem.message[:200]}")
            elif record["hash"] != content_hash(record):
                report.problems.append(f"{name}: its hash is not that of its content")
            elif problem_text := _inconsistency(record):
                report.problems.append(f"{name}: {problem_text}")


def _check_search(site: Path, report: CheckReport) -> None:
    """Whether every file that search may load exists."""
    try:
        (content,) = index.read_index_file(site / "search" / "index.js")
        names = list(index.index_files(content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.problems.append(f"search/index.js: cannot be read ({error})")
        return
    report.problems += [f"search/{name} is missing" for name in names if not (site / "search" / name).is_file()]


def _check_map(site: Path, layers: list[dict[str, int]], report: CheckReport) -> None:
    """Whether the map exists and is of this atlas."""
    if not (site / "map.html").is_file():
        report.problems.append("map.html is missing")
    try:
        text = (site / "map" / "points.js").read_text(encoding="utf-8")
        drawn = orjson.loads(text.removeprefix("Atlas.map(").removesuffix(");\n"))["layers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.problems.append(f"map/points.js: cannot be read ({error})")
        return
    if drawn != [[layer["layer"], layer["units"]] for layer in layers]:
        report.problems.append("map/points.js: its layers differ from those of atlas.json")


def _record_files(site: Path, layers: list[dict[str, int]]) -> Iterator[Path]:
    for layer in layers:
        for unit in range(layer["units"]):
            yield site / UnitAddress(layer["layer"], unit).record


def _inconsistency(record: dict[str, Any]) -> str | None:
    """What the schema cannot express: valid indices, sums that agree; None where all is well."""
    examples = record["examples"]
    for example in examples:
        if len(example["tokens"]) != len(example["values"]) or example["key"] >= len(example["tokens"]):
            return "an example's tokens, values and key do not match"
    for behaviour in record["behaviours"]:
        for place in (behaviour["central"], *behaviour["examples"]):
            if place >= len(examples) or examples[place]["behaviour"] != behaviour["id"]:
                return f"behaviour {behaviour['id']} lists an example of another behaviour"
    histogram = record["stats"]["histogram"]
    if sum(histogram["counts"]) != record["stats"]["tokens"]:
        return "the histogram does not count every token"
    return None


def _name(site: Path, path: Path) -> str:
    return path.relative_to(site).as_posix() if path.is_relative_to(site) else str(path)
