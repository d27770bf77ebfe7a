"""Whether two atlases publish the same values: `python -m tests.benchmarks.same_values OLD NEW`.

Compares every address of a unit, its record and the tables. Labels have the same words in another
form since version 0.6, in which those of OLD are compared. Hashes differ with the labels.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

_PART = re.compile(r"^-?(?P<part>.+?)-? \((?P<words>.*)\)$")


def in_todays_form(label: str) -> str:
    """A label of version 0.5 as it reads since: `-low- (allow_none · shallow)` is `“low” in allow_none, shallow`."""
    match = _PART.match(label) if label.startswith("-") or "- (" in label else None
    label = f"“{match['part']}” in {match['words']}" if match else label
    return label.replace(" · ", ", ")


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The places in two records where they differ, lists without their numbers."""
    if path.endswith(".label"):
        if in_todays_form(old) != new:
            yield path
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key != "hash":
                yield from differences(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from differences(one, other, path)
    elif old != new:
        yield path


def _names(site: Path) -> set[str]:
    return {path.relative_to(site).as_posix() for path in site.glob("L*/N*")}


def _anchors(site: Path, page: str) -> set[str]:
    return set(re.findall(r"\bid=\"?([\w-]+)", (site / page).read_text(encoding="utf-8")))


def main() -> None:
    """Print what differs, and end with 1 where anything does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    names = _names(options.old)
    gone = names - _names(options.new)
    lost: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for name in sorted(names - gone):
        if name.endswith(".json"):
            old, new = (orjson.loads((site / name).read_bytes()) for site in (options.old, options.new))
            changed.update(set(differences(old, new)))
        else:
            lost.update(_anchors(options.old, name) - _anchors(options.new, name))
    print(f"{len(names):,} pages and records: {len(gone)} addresses gone, anchors gone {dict(lost) or 'none'}")
    print(f"fields of records that differ, with how many records: {dict(changed) or 'none'}")
    tables: dict[str, list[str]] = {}
    for path in sorted((options.old / "tables").glob("*.parquet")):
        old, new = (pq.read_table(site / "tables" / path.name) for site in (options.old, options.new))
        unlike = [
            column
            for column in old.column_names
            if column != "label" and (column not in new.column_names or not old[column].equals(new[column]))
        ]
        if "label" in old.column_names:
            pairs = zip(old["label"].to_pylist(), new["label"].to_pylist(), strict=True)
            unlike += ["label"] * any(in_todays_form(one) != other for one, other in pairs)
        tables[path.stem] = unlike
        print(f"{path.name}: {old.num_rows:,} rows, {old.num_columns} columns, that differ: {unlike or 'none'}")
    sys.exit(bool(gone or lost or changed or any(tables.values())))


if __name__ == "__main__":
    main()
