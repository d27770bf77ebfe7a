"""Checks of a built site: sums, links, records, pages, tables, search index, map, size; all without the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pyarrow as pa

from atlas_builder.errors import AtlasError
from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.records import tables
from atlas_builder.records.columns import tables_of
from atlas_builder.records.explanations import PUBLISHED
from atlas_builder.site.hosting import size, sums
from atlas_builder.site.hosting.checks.explanations import explanation_problems
from atlas_builder.site.hosting.checks.index import index_problems
from atlas_builder.site.hosting.checks.links import SiteLinks
from atlas_builder.site.hosting.checks.markup import any_links
from atlas_builder.site.hosting.checks.overviews import by_layer, overview_problems
from atlas_builder.site.hosting.checks.published import PublishedSite, objection
from atlas_builder.site.hosting.checks.surroundings import surrounding_problems
from atlas_builder.site.hosting.checks.tables import count_problems, schema_problems
from atlas_builder.site.hosting.checks.units import UnitReport, check_units, chunks
from atlas_builder.site.summary import Summary

_UNITS_AT_ONCE = 256
_WORTH_WORKERS = 2048  # units from which on it pays to start processes


@dataclass
class CheckReport:
    """The results of a check."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be compared, and why, a sentence each."""
    yours: list[str] = field(default_factory=list)
    """Files that the builder did not make, outside of its folders: `CNAME`, `notes/a.txt`."""
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

    @property
    def lines(self) -> list[str]:
        """What is no problem but to be known: notes, and the user's own files by their folders."""
        yours = sums.grouped(self.yours)
        return [*self.notes, *([f"yours: {', '.join(yours)}"] if yours else [])]


def check(site: Path, progress: Progress, executor: Executor | None = None) -> CheckReport:
    """Read every file of a built site, or of atlases and the page above them, and report problems.

    `executor` checks units of large atlases, without one this process does. Raises
    `NoAtlasError` where the folder holds no atlas.
    """
    if (site / "index.html").exists() and not (site / "atlas.json").exists() and (atlases := _atlases(site)):
        return _check_all(site, atlases, progress, executor)
    facts = read_facts(site)
    report = CheckReport()
    try:
        published = PublishedSite.at(site, facts)
        layers, host = facts["layers"], published.config.site.host
        [(layer["layer"] + 0, layer["units"] + 0) for layer in layers]
    except (AtlasError, ValueError, KeyError, TypeError) as error:
        said = str(error).splitlines()[0][:200]
        report.problems.append(f"atlas.json: it is damaged ({type(error).__name__}: {said}): build the atlas again.")
        return report
    files = size.site_files(site)
    report.sizes = size.measure_sizes(files, host)
    report.problems += size.size_problems(files, host)
    names = [file.name for file in files if file.is_file]
    units = _check_units(published, progress, executor)
    read = {name: digest for part in units for name, digest in part.digests.items()}
    problems, report.yours = sums.sum_problems(site, facts, names, read)
    report.problems += problems
    report.notes += filter(None, [objection(facts)])
    _check_tables(published, report)
    for part in units:
        report.records += part.records
        report.problems += part.problems
    summaries = [summary for part in units for summary in part.summaries]
    _check_links(published, names, units, report)
    _check_map(site, layers, report)
    report.problems += _guarded(PUBLISHED, lambda: explanation_problems(published))
    _check_overviews(published, summaries, names, report)
    report.problems = list(dict.fromkeys(report.problems))
    return report


def _atlases(folder: Path) -> list[Path]:
    """The atlases that a folder holds side by side, such as those of `demo --all`."""
    return sorted(path.parent for path in folder.glob("*/atlas.json") if not path.parent.name.startswith("."))


def _check_all(folder: Path, atlases: list[Path], progress: Progress, executor: Executor | None) -> CheckReport:
    """Check each atlas of a folder, and the links of the page above them."""
    names = [site.name for site in atlases]
    parts = ((file, file.name.partition("/")) for file in size.site_files(folder))
    whole = CheckReport(
        sizes=size.measure_sizes(
            [file._replace(name=rest) if top in names else file for file, (top, _, rest) in parts], "none"
        )
    )
    links = SiteLinks(folder)
    _read_page(folder, "index.html", links, whole, is_ours=True)
    whole.pages, whole.links = 1, links.count
    whole.problems += [*links.problems, *links.lost()]
    for site in atlases:
        report = check(site, progress, executor)
        for name in ("problems", "notes", "yours"):
            getattr(whole, name).extend(f"{site.name}/{line}" for line in getattr(report, name))
        whole.pages, whole.links = whole.pages + report.pages, whole.links + report.links
        whole.records += report.records
    return whole


def _check_tables(site: PublishedSite, report: CheckReport) -> None:
    """The tables as a whole; their rows are compared with records one unit after the other."""
    problems = tables.table_problems(site.folder / "tables", site.facts["layers"], tables_of(site.config))
    if not problems:
        problems += _guarded("tables", lambda: [*count_problems(site.folder), *_schemas(site)])
    report.problems += problems


def _schemas(site: PublishedSite) -> list[str]:
    return [] if objection(site.facts) else list(schema_problems(site.folder, site.config))


def _check_units(site: PublishedSite, progress: Progress, executor: Executor | None) -> list[UnitReport]:
    """Check the units one by one, in this process or by the executor."""
    total, content = len(site.units), orjson.dumps(site.facts)
    parts = []
    with progress.task("units", total=total, unit="units") as advance:
        spread = executor if total >= _WORTH_WORKERS else None
        tasks: list[tuple[int, Future[UnitReport] | None, tuple[int, int]]] = []
        for first, last in chunks(total, _UNITS_AT_ONCE):
            task = spread.submit(check_units, site.folder, content, site.run, first, last) if spread else None
            tasks.append((last - first, task, (first, last)))
        for count, task, places in tasks:
            parts.append(task.result() if task else check_units(site.folder, content, site.run, *places))
            advance(count)
    return parts


def _check_links(site: PublishedSite, names: Sequence[str], units: Sequence[UnitReport], report: CheckReport) -> None:
    """Follow the links of all pages, those of units included, and object to what no template makes."""
    links = SiteLinks(site.folder)
    links.join(part.links for part in units)
    yours = set(report.yours)
    for name in names:
        if name.endswith(".html") and name not in links.anchors:
            _read_page(site.folder, name, links, report, is_ours=name not in yours)
    report.pages, report.links = len(links.anchors), links.count
    report.problems += [*links.problems, *links.lost()]


def _read_page(folder: Path, name: str, links: SiteLinks, report: CheckReport, *, is_ours: bool) -> None:
    try:
        text = (folder / name).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        text = ""
        report.problems.append(f"{name}: it is not UTF-8")
    found = any_links(text, own_scripts=name == "404.html")
    links.add(name, found)
    if is_ours and text:
        report.problems += [f"{name}: {said}" for said in found.objections]


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


def _check_overviews(site: PublishedSite, summaries: list[Summary], names: Sequence[str], report: CheckReport) -> None:
    """What is made from many units; from all of them only where every record is sound."""
    same_version = objection(site.facts) is None
    report.problems += _guarded("search", lambda: index_problems(site, summaries))
    report.problems += _guarded("atlas.json", lambda: surrounding_problems(site, names, same_version=same_version))
    if same_version and len(summaries) == len(site.units):
        report.problems += _guarded("overviews", lambda: overview_problems(site, by_layer(site, summaries)))


def _guarded(name: str, find: Callable[[], list[str]]) -> list[str]:
    """What a function finds; one sentence where what it reads is too damaged for it."""
    try:
        return find()
    except (
        AtlasError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OSError,
        pa.ArrowException,
    ) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        return [f"{name}: cannot be read or compared ({type(error).__name__}: {said})"]
