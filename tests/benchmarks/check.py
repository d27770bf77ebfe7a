"""What `check` spends on a unit, by part, in processor time: `python -m tests.benchmarks.check SITE [UNITS]`.

SITE is a built atlas, such as `python -m tests.benchmarks.site 2 512 --keep SITE` leaves. Parts are run one after
the other on the same units, in one process and in five rounds, of which the least counts; the ways that they
replaced, `jsonschema` and Python's parser of HTML, beside them.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import content_hash, schema, serialise
from atlas_builder.records.validation import schema_problem
from atlas_builder.site.hosting.check import check
from atlas_builder.site.hosting.checks.links import SiteLinks
from atlas_builder.site.hosting.checks.markup import any_links, known_links
from atlas_builder.site.hosting.checks.pages import page_problem
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.hosting.checks.records import chance_problems, record_problem
from atlas_builder.site.hosting.checks.tables import layer_tables, row_problems
from atlas_builder.site.hosting.checks.texts import text_problems
from atlas_builder.site.summary import summary_of

_ROUNDS = 5


def main(folder: Path, most: int = 256) -> None:
    """Print a row for each part."""
    facts = read_facts(folder)
    site = PublishedSite.at(folder, facts, "benchmark")
    places = [UnitAddress(*unit) for unit in site.units[:most]]
    records = [(folder / place.record).read_bytes() for place in places]
    pages = [(folder / place.page).read_text(encoding="utf-8") for place in places]
    plain: list[Any] = list(map(orjson.loads, records))
    units = {layer["layer"]: layer["units"] for layer in facts["layers"]}
    found = list(map(known_links, pages))
    slow = Draft202012Validator(schema())

    def each(do: Callable[[int], object]) -> float:
        """Milliseconds a unit."""

        def run() -> float:
            started = time.process_time()
            for number in range(len(places)):
                do(number)
            return time.process_time() - started

        return 1000 * min(run() for _ in range(_ROUNDS)) / len(places)

    def tables(number: int) -> None:
        layer = places[number].layer
        rows = layer_tables(folder, layer, units[layer], site.run)
        list(row_problems(rows, plain[number], site.labels, site.config.site.neighbours_shown, site.explanations))
        list(text_problems(site, plain[number]))

    def follow(number: int) -> None:
        links.add(places[number].page, found[number])

    links = SiteLinks(folder)
    rows: list[tuple[str, Callable[[int], object]]] = [
        (
            "files are read",
            lambda n: ((folder / places[n].record).read_bytes(), (folder / places[n].page).read_bytes()),
        ),
        ("  their SHA-256", lambda n: (hashlib.sha256(records[n]), hashlib.sha256(pages[n].encode()))),
        ("a record is parsed", lambda n: orjson.loads(records[n])),
        ("  its schema", lambda n: schema_problem(plain[n])),
        ("  by jsonschema", lambda n: slow.is_valid(plain[n])),
        ("  its hash", lambda n: (content_hash(plain[n]), serialise(plain[n]))),
        ("  all of it", lambda n: record_problem(plain[n], records[n], places[n], facts)),
        ("its page is rendered again", lambda n: page_problem(site, plain[n], pages[n])),
        ("  its links are read", lambda n: known_links(pages[n])),
        ("  of another's page", lambda n: any_links(pages[n])),
        ("  by html.parser", lambda n: HTMLParser().feed(pages[n])),
        ("  they are followed", follow),
        ("tables and search", tables),
        ("its summary", lambda n: summary_of(plain[n])),
        ("p-values of bands", lambda n: n or list(chance_problems({record["id"]: record for record in plain}))),
    ]
    for name, do in rows:
        print(f"{name:28} {each(do):7.3f} ms", flush=True)
    started = time.process_time()
    report = check(folder, Progress(quiet=True))
    print(f"the whole check, a unit      {1000 * (time.process_time() - started) / len(site.units):7.3f} ms")
    print(report.summary)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *(int(count) for count in sys.argv[2:3]))
