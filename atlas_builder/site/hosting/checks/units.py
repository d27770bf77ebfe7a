"""Units, some at a time: record, page, rows of the tables and texts of the search index of each, side by side."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson
import pyarrow as pa

from atlas_builder.errors import AtlasError
from atlas_builder.progress import gc_paused
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import Record
from atlas_builder.site.hosting.checks.explanations import edition_problems
from atlas_builder.site.hosting.checks.links import SiteLinks
from atlas_builder.site.hosting.checks.markup import any_links, known_links
from atlas_builder.site.hosting.checks.pages import page_problem
from atlas_builder.site.hosting.checks.published import PublishedSite, objection
from atlas_builder.site.hosting.checks.records import chance_problems, record_problem
from atlas_builder.site.hosting.checks.tables import layer_tables, row_problems
from atlas_builder.site.hosting.checks.texts import text_problems
from atlas_builder.site.summary import Summary, summary_of


@dataclass
class UnitReport:
    """What was found of some units."""

    links: SiteLinks
    problems: list[str] = field(default_factory=list)
    records: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that were read, by name."""
    summaries: list[Summary] = field(default_factory=list)
    """Of the units whose record is sound."""


def check_units(folder: Path, facts: bytes, run: str, first: int, last: int) -> UnitReport:
    """Check the units at places `first` to `last - 1` of the atlas in a folder, whose facts are these as JSON.

    What several calls of one `run` need is read once.
    """
    site = _site(folder, facts, run)
    report = UnitReport(SiteLinks(folder))
    sound: dict[str, Record] = {}
    with gc_paused():
        for layer, unit in site.units[first:last]:
            address = UnitAddress(layer, unit)
            record = _read_record(site, address, report)
            if record is not None:
                sound[address.record] = record
                report.summaries.append(summary_of(record, site.explanations))
                report.problems += _beside(site, address, record)
            _check_page(site, address, record, report)
        report.problems += chance_problems(sound)
    return report


@lru_cache(maxsize=1)
def _site(folder: Path, facts: bytes, run: str) -> PublishedSite:
    return PublishedSite.at(folder, orjson.loads(facts), run)


def _read_record(site: PublishedSite, address: UnitAddress, report: UnitReport) -> Record | None:
    """A unit's record if it is sound."""
    try:
        content = _content(site, address.record, report)
        record: Record = orjson.loads(content)
    except (OSError, ValueError) as error:
        report.problems.append(f"{address.record}: cannot be read ({error})")
        return None
    report.records += 1
    if problem := record_problem(record, content, address, site.facts):
        report.problems.append(f"{address.record}: {problem}")
        return None
    return record


def _content(site: PublishedSite, name: str, report: UnitReport) -> bytes:
    """A file's bytes, of which the report keeps the sum: no file is read twice."""
    content = (site.folder / name).read_bytes()
    report.digests[name] = hashlib.sha256(content).hexdigest()
    return content


def _beside(site: PublishedSite, address: UnitAddress, record: Record) -> list[str]:
    """Where tables and search index differ from a record; nothing where they cannot be read, which is said once."""
    problems = list(edition_problems(site.explanations, record))
    units = next(layer["units"] for layer in site.facts["layers"] if layer["layer"] == address.layer)
    try:
        tables = layer_tables(site.folder, address.layer, units, site.run)
        problems += row_problems(tables, record, site.labels, site.config.site.neighbours_shown, site.explanations)
        problems += text_problems(site, record)
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        pass  # `check` names tables that cannot be read
    return problems


def _check_page(site: PublishedSite, address: UnitAddress, record: Record | None, report: UnitReport) -> None:
    try:
        page = _content(site, address.page, report).decode("utf-8")
    except FileNotFoundError:
        report.problems.append(f"{address.page} is missing")
        return
    except (OSError, UnicodeDecodeError) as error:
        kind = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error})"
        report.problems.append(f"{address.page}: {kind}")
        return
    compared = record is not None and objection(site.facts) is None
    problem = _difference(site, record, page) if compared and record is not None else None
    if compared and problem is None:
        report.links.add(address.page, known_links(page))
        return
    found = any_links(page)
    report.links.add(address.page, found)
    report.problems += [f"{address.page}: {said}" for said in (problem, *found.objections) if said]


def _difference(site: PublishedSite, record: Record, page: str) -> str | None:
    try:
        return page_problem(site, record, page)
    except (AtlasError, ArithmeticError, LookupError, TypeError, ValueError, pa.ArrowException, OSError) as error:
        return f"its record cannot be rendered ({type(error).__name__}), so that they cannot be compared"


def chunks(total: int, size: int) -> list[tuple[int, int]]:
    """First and last places of parts of `total` units."""
    return [(first, min(first + size, total)) for first in range(0, total, size)]
