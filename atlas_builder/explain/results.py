"""Explanations of units and of their behaviours, a line of JSON each, in a file beside the atlas.

One line a key: the unit or behaviour, the source of the explanation, and the model that said it. Lines of version 0.5,
of whole units only, are read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import (
    LONGEST_TEXT,
    SOURCES,
    Explanation,
    ExplanationScores,
    digest_of,
    parse_lines,
)


def kept_text(text: str) -> str:
    """An explanation as it is kept: one line, without invisible characters, cut after `LONGEST_TEXT` characters."""
    # A long answer is cut twice: what is cut away first can neither be kept nor cost time.
    joined = " ".join(text[: 20 * LONGEST_TEXT].encode(errors="replace").decode().split())
    return plain(joined)[:LONGEST_TEXT].rstrip()


def digest(site: Path, layer: int, unit: int, behaviour: int | None = None) -> str:
    """`digest_of` a unit of a built atlas, or of one of its behaviours."""
    return digest_of(read_json(site / UnitAddress(layer, unit).record), behaviour)


def beside(site: Path) -> Path:
    """The file of explanations of a built atlas."""
    site = site.resolve()
    return site.with_name(f"{site.name}.explained.jsonl")


def read_explanations(path: Path, say: Callable[[str], object] = lambda text: None) -> list[Explanation]:
    """The lines of a file, without an unfinished last one; none if there is no file.

    A later line of the same key replaces an earlier one, which is said once. Raises `ConfigurationError` if the file
    holds anything else.
    """
    if not path.exists():
        return []
    try:
        found, notes = parse_lines(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except ConfigurationError:
        raise ConfigurationError(f"{path} is not a file of explanations: name another file.") from None
    for note in notes:
        say(note)
    return list(found)


def drop_unfinished(path: Path, explanations: Sequence[Explanation]) -> None:
    """Remove an unfinished last line of a file, of which these are the others."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        write_explanations(path, explanations)


def write_explanations(path: Path, explanations: Sequence[Explanation]) -> None:
    """Write a file of explanations in one step."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("".join(one.line for one in explanations), encoding="utf-8", errors="replace")
    draft.replace(path)


def of_atlas(site: Path, explanations: Sequence[Explanation]) -> list[Explanation]:
    """The explanations that fit the units and behaviours of an atlas as it is now."""
    atlas = read_facts(site)
    counts = {layer["layer"]: layer["units"] for layer in atlas["layers"]}
    by_unit: dict[UnitAddress, list[Explanation]] = {}
    for one in explanations:
        address = UnitAddress(one.layer, one.unit)
        if one.id == address.within(atlas["atlas"]["id"]) and 0 <= one.unit < counts.get(one.layer, 0):
            by_unit.setdefault(address, []).append(one)
    fitting = set()
    for address, of_unit in by_unit.items():
        record = read_json(site / address.record)
        existing = {None, *(behaviour["id"] for behaviour in record["behaviours"])}
        fitting |= {
            id(one)
            for one in of_unit
            if one.behaviour in existing and one.does == digest_of(record, one.behaviour)
        }  # fmt: skip
    return [one for one in explanations if id(one) in fitting]


def of_whole_units(explanations: Iterable[Explanation]) -> list[Explanation]:
    """Those of whole units by a model that `explain` asked."""
    return [one for one in explanations if one.behaviour is None and one.source == "explain"]


def mean_scores(explanations: Sequence[Explanation]) -> Iterator[str]:
    """The mean of each score and of its floor, by layer, a line for each source of units and of behaviours."""

    def group(one: Explanation) -> tuple[int, bool, int, str]:
        return one.layer, one.behaviour is None, SOURCES.index(one.source) if one.source in SOURCES else 99, one.source

    for (layer, whole, _, source), members in groupby(sorted(explanations, key=group), group):
        of_group = list(members)
        means = [
            f"{name} {sum(values) / len(values):.3f} ({len(values)}{_floor(of_group, name)})"
            for name in ExplanationScores._fields
            if (values := scores_of(of_group, name))
        ]
        kind = "units" if whole else "behaviours"
        yield f"layer {layer}, {kind}, {source}: {', '.join(means) or 'nothing to score'}"


def _floor(explanations: Sequence[Explanation], name: str) -> str:
    values = [value for one in explanations if (value := getattr(one.floor, name, None)) is not None]
    return f"; floor {sum(values) / len(values):.3f}" if values else ""


def scores_of(explanations: Sequence[Explanation], name: str, layer: int | None = None) -> list[float]:
    """The values of one of the scores, of one layer or of all, where it is known."""
    values = (getattr(one.scores, name) for one in explanations if layer in (None, one.layer))
    return [value for value in values if value is not None]
