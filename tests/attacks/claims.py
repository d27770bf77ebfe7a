"""One fact altered at a time in the record of a drawn unit, hashes made anew: does `verify` find it?

Every leaf of a record, and every list, is altered: numbers by two units of their last digit, counts by one, texts
by a letter, entries of lists swapped, dropped and doubled.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.rerun.source import Rerun, open_rerun
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.run import Verification
from tests.support.atlases import write_words
from tests.support.models import SHAPES, save_tiny

Record = dict[str, Any]
Path_ = tuple[str | int, ...]

ATLASES: dict[str, dict[str, Any]] = {
    "plain": {
        "family": "gpt2",
        "examples": {"policy": "robust", "per_unit": 40, "least": 20},
        "describe": {"steering": True, "associations": True},
    },
    "gated": {
        "family": "llama",
        "examples": {"policy": "robust", "share": 0.8, "least": 5, "per_unit": 12},
        "describe": {"importance": "shown", "graphs": True},
    },
}
NOT_OF_THE_MODEL = ("schema", "id", "atlas.id", "atlas.version", "layer", "unit", "kind", "bands.quantiles", "hash")
"""What no run of the model determines, but `atlas.json` or the record's own bytes do."""


class Alteration(NamedTuple):
    """A change of one fact."""

    field: str
    """Such as `behaviours.label`."""
    what: str
    apply: Callable[[Record], None]


def build_miniature(name: str, folder: Path) -> Path:
    """Build one of `ATLASES`."""
    settings = dict(ATLASES[name])
    family = settings.pop("family")
    save_tiny(SHAPES[family], folder / "model")
    write_words(folder / "words")
    data = {
        "atlas": {"id": "tiny", "title": "A tiny atlas"},
        "model": {"name": str(folder / "model")},
        "corpus": {"source": "jsonl", "path": str(folder / "words" / "words.jsonl"), "context": 32},
        **settings,
    }
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        return build(validate(data), folder / "site", executor=pool, progress=Progress(quiet=True))


def alterations(record: Record, each: int, brief: bool = False) -> Iterator[Alteration]:
    """All alterations of a record; of a field that comes in many entries, `each` entries, spread evenly.

    If `brief`, in two ways each at most.
    """
    by_field: dict[tuple[str, type], list[Path_]] = defaultdict(list)
    for path in _paths(record, ()):
        field = "".join(f".{part}" if isinstance(part, str) else "[]" for part in path)[1:]
        by_field[field, type(_at(record, path))].append(path)
    for (field, _), paths in by_field.items():
        for path in sorted({paths[len(paths) * step // each] for step in range(min(each, len(paths)))}, key=str):
            changed = list(_changed(_at(record, path), field.replace("[]", ""), record))
            for what, value in changed[: 2 if brief else None]:
                yield Alteration(field, f"{_named(path)} {what}", _setting(path, value))
    for index, example in enumerate(record["examples"]):
        for key in ("source", "importance"):
            if key in example and index % 4 == 0:
                yield Alteration(
                    f"examples[].{key}", f"examples.{index}.{key} left out", _without(("examples", index), key)
                )


def _paths(value: Any, path: Path_) -> Iterator[Path_]:
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _paths(entry, (*path, key))


def _at(record: Any, path: Path_) -> Any:
    for part in path:
        record = record[part]
    return record


def _named(path: Path_) -> str:
    return ".".join(map(str, path))


def _setting(path: Path_, value: Any) -> Callable[[Record], None]:
    def apply(record: Record) -> None:
        _at(record, path[:-1])[path[-1]] = value

    return apply


def _without(path: Path_, key: str) -> Callable[[Record], None]:
    def apply(record: Record) -> None:
        del _at(record, path)[key]

    return apply


def _changed(value: Any, field: str, record: Record) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "turned", not value
    elif isinstance(value, int | float):
        step = _step(value, field, record)
        for way in (1, -1):
            moved = round(value + way * step, 12)
            yield f"{value} → {moved:.6g}", int(moved) if float(moved).is_integer() else moved
    elif isinstance(value, str):
        yield f"{value!r} longer", value + "a"
        yield f"{value!r} emptied", ""
    elif value is None:
        yield "null → 0", 0
    elif isinstance(value, list):
        yield from _changed_list(value)
    elif field == "negative":
        yield "→ null", None


def _step(value: float, field: str, record: Record) -> float:
    """A little more than the rounding of a published number."""
    if field.startswith("steering.") and field != "steering.value":
        return abs(value) / 100  # a difference of two probabilities, known to fewer digits than it is published with
    if field == "examples.importance":
        return 0.02
    if field == "examples.values":
        return 2 * 10.0 ** (math.floor(math.log10(max(record["stats"]["max"], -record["stats"]["min"]))) - 2)
    if isinstance(value, int) and field not in ("stats.max", "bands.range", "behaviours.coverage"):
        return 1
    return 2 * 10.0 ** (math.floor(math.log10(abs(value))) - 3) if value else 1e-4


def _changed_list(entries: list[Any]) -> Iterator[tuple[str, Any]]:
    if entries:
        yield "without its last", entries[:-1]
        yield "without its first", entries[1:]
        yield "its last twice", [*entries, entries[-1]]
    for place in {0, len(entries) - 2} if len(entries) > 1 else ():
        swapped = copy.copy(entries)
        swapped[place : place + 2] = reversed(swapped[place : place + 2])
        if swapped != entries:
            yield f"{place} and the next swapped", swapped


class Attacker:
    """Alters a record of a site in place, and asks `verify`; the model and the text are loaded once."""

    def __init__(self, site: Path, layer: int, unit: int, source: Rerun | None = None) -> None:
        self._verification = Verification(site, source or open_rerun(site), {layer: [unit]}, 0, Progress(quiet=True))
        self.file = site / UnitAddress(layer, unit).record
        self.raw = self.file.read_bytes()

    @property
    def record(self) -> Record:
        record: Record = json.loads(self.raw)
        return record

    def problems(self, alteration: Alteration | None = None) -> list[str]:
        """The claims of the unit that `verify` finds not to hold, after an alteration."""
        return self.report(alteration).problems

    def report(self, alteration: Alteration | None = None) -> VerificationReport:
        """What `verify` says of the unit, after an alteration."""
        record = self.record
        if alteration is not None:
            alteration.apply(record)
            if alteration.field != "hash":
                record["hash"] = content_hash(record)
            self.file.write_bytes(serialise(record))
        try:
            return self._verification.report()
        finally:
            self.file.write_bytes(self.raw)


def richest_unit(site: Path) -> tuple[int, int]:
    """The unit with the most to say: neighbours, behaviours, examples."""

    def size(path: Path) -> tuple[int, int, int]:
        record = json.loads(path.read_bytes())
        neighbours = sum(len(behaviour["neighbours"]) for behaviour in record["behaviours"])
        return min(neighbours, 2), min(len(record["behaviours"]), 6), path.stat().st_size

    best = max(sorted(site.glob("L*/N*.json")), key=size)
    return int(best.parent.name[1:]), int(best.stem[1:])


def attack(site: Path, each: int, brief: bool, table: dict[str, list[int]], missed: list[str]) -> None:
    """Try all alterations on one unit of a site; `table` has tried and found, by field."""
    attacker = Attacker(site, *richest_unit(site))
    before = attacker.problems()
    if before:
        missed.append(f"before any alteration: {before[0]}")
        return
    for alteration in alterations(attacker.record, each, brief):
        found = attacker.problems(alteration)
        counts = table.setdefault(alteration.field, [0, 0])
        counts[0] += 1
        counts[1] += bool(found)
        if not found:
            missed.append(alteration.what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one atlas, one entry a field")
    parser.add_argument("--each", type=int, default=3, help="entries of a field that are altered")
    small = parser.parse_args().small
    table: dict[str, list[int]] = {}
    missed: list[str] = []
    for name in list(ATLASES)[: 1 if small else None]:
        with tempfile.TemporaryDirectory() as folder:
            attack(build_miniature(name, Path(folder)), 1 if small else parser.parse_args().each, small, table, missed)
    print("| field | tried | found |\n| --- | ---: | ---: |")
    for field, (tried, found) in table.items():
        mark = " (not the model's)" if field.replace("[]", "") in NOT_OF_THE_MODEL else ""
        print(f"| `{field}`{mark} | {tried} | {found} |")
    tried, found = (sum(counts[place] for counts in table.values()) for place in (0, 1))
    print(f"| all | {tried} | {found} |")
    for what in missed:
        print(f"- missed: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
