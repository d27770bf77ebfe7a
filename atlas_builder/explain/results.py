"""Explanations of units and of their behaviours, a line of JSON each, in a file beside the atlas.

One line a key: the unit or behaviour, the source of the explanation, and the model that said it. Lines of version 0.5,
of whole units only, are read too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import digest_of

LONGEST = 2000
"""Characters of an explanation that are kept."""
SOURCES = ("explain", "delphi", "neuronpedia", "label", "tokens")
"""Who explains: a model that `explain` asked, files of other programs, and what needs no model."""
Key = tuple[str, int | None, str, str]
"""What there is one line of: id, behaviour, source and model."""


class ExplanationScores(NamedTuple):
    """What an explanation is worth; None where there is nothing to score, or no readable answer.

    The first three are correlations of simulated with true activations, from −1 to 1; the other two are balanced
    accuracies, 0.5 by chance. `random_only` and `whole_range` are of whole units.
    """

    simulation: float | None = None
    random_only: float | None = None
    whole_range: float | None = None
    detection: float | None = None
    fuzzing: float | None = None


class FloorScores(NamedTuple):
    """The scores of the same explanation on the examples of another unit: what chance gives."""

    simulation: float | None = None
    detection: float | None = None
    fuzzing: float | None = None


@dataclass(frozen=True)
class Explained:
    """An explanation of a unit, or of one of its behaviours, and its scores."""

    id: str
    layer: int
    unit: int
    behaviour: int | None
    """From 1; None for the whole unit."""
    does: str
    """What is explained, as `digest_of` its record."""
    model: str
    """The model that said it; empty where none did, or it is not known."""
    source: str = "explain"
    """One of `SOURCES`."""
    judge: str | None = None
    """The model that the scores are by; None where there are none."""
    seed: int = 0
    explanation: str = ""
    range_explanation: str = ""
    """Made from excerpts of the whole range of activations; of whole units."""
    scores: ExplanationScores = field(default_factory=ExplanationScores)
    floor: FloorScores = field(default_factory=FloorScores)

    @property
    def key(self) -> Key:
        """What there is one line of."""
        return self.id, self.behaviour, self.source, self.model

    @property
    def line(self) -> str:
        """Its line in the file."""
        parts = {"scores": self.scores._asdict(), "floor": self.floor._asdict()}
        return json.dumps({**asdict(self), **parts}, ensure_ascii=False) + "\n"


_BEGINS = '{"id": "'


def kept_text(text: str) -> str:
    """An explanation as it is kept: one line, without invisible characters, cut after `LONGEST` characters."""
    # A long answer is cut twice: what is cut away first can neither be kept nor cost time.
    joined = " ".join(text[: 20 * LONGEST].encode(errors="replace").decode().split())
    return plain(joined)[:LONGEST].rstrip()


def digest(site: Path, layer: int, unit: int, behaviour: int | None = None) -> str:
    """`digest_of` a unit of a built atlas, or of one of its behaviours."""
    return digest_of(read_json(site / UnitAddress(layer, unit).record), behaviour)


def beside(site: Path) -> Path:
    """The file of explanations of a built atlas."""
    site = site.resolve()
    return site.with_name(f"{site.name}.explained.jsonl")


def read_explanations(path: Path, say: Callable[[str], object] = lambda text: None) -> list[Explained]:
    """The lines of a file, without an unfinished last one; none if there is no file.

    A later line of the same key replaces an earlier one, which is said once. Raises `ConfigurationError` if the file
    holds anything else.
    """
    if not path.exists():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        explanations = [explained_of(json.loads(line)) for line in lines]
        if not (unfinished.startswith(_BEGINS) or _BEGINS.startswith(unfinished)):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigurationError(f"{path} is not a file of explanations: name another file.") from None
    by_key = {one.key: one for one in explanations}
    if doubles := len(explanations) - len(by_key):
        say(f"{path}: {doubles} lines are replaced by later ones of the same unit or behaviour, source and model")
    return list(by_key.values())


def drop_unfinished(path: Path, explanations: Sequence[Explained]) -> None:
    """Remove an unfinished last line of a file, of which these are the others."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        write_explanations(path, explanations)


def write_explanations(path: Path, explanations: Sequence[Explained]) -> None:
    """Write a file of explanations in one step."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text("".join(one.line for one in explanations), encoding="utf-8", errors="replace")
    draft.replace(path)


def explained_of(record: dict[str, Any]) -> Explained:
    """A line as read; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    scores = dict(record["scores"])
    if "top_and_random" in scores:  # of version 0.5
        scores["simulation"] = scores.pop("top_and_random")
        record = {"behaviour": None, "source": "explain", "judge": record["model"], **record}
    one = Explained(
        **{
            **record,
            **{name: kept_text(_checked(record[name], str)) for name in ("explanation", "range_explanation")},
            "scores": ExplanationScores(**{name: _score(value) for name, value in scores.items()}),
            "floor": FloorScores(**{name: _score(value) for name, value in dict(record.get("floor") or {}).items()}),
        }
    )
    for value, kind in (
        (one.id, str), (one.layer, int), (one.unit, int), (one.does, str), (one.model, str), (one.source, str),
        (one.seed, int), (one.judge or "", str), (1 if one.behaviour is None else one.behaviour, int),
    ):  # fmt: skip
        _checked(value, kind)
    return one


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError
    return value


def _score(value: Any) -> float | None:
    return (
        None if value is None else float(_checked(value, float) if isinstance(value, float) else _checked(value, int))
    )


def of_atlas(site: Path, explanations: Sequence[Explained]) -> list[Explained]:
    """The explanations that fit the units and behaviours of an atlas as it is now."""
    atlas = read_facts(site)
    counts = {layer["layer"]: layer["units"] for layer in atlas["layers"]}
    by_unit: dict[UnitAddress, list[Explained]] = {}
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


def of_whole_units(explanations: Iterable[Explained]) -> list[Explained]:
    """Those of whole units by a model that `explain` asked."""
    return [one for one in explanations if one.behaviour is None and one.source == "explain"]


def mean_scores(explanations: Sequence[Explained]) -> Iterator[str]:
    """The mean of each score and of its floor, by layer, a line for each source of units and of behaviours."""

    def group(one: Explained) -> tuple[int, bool, int, str]:
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


def _floor(explanations: Sequence[Explained], name: str) -> str:
    values = [value for one in explanations if (value := getattr(one.floor, name, None)) is not None]
    return f"; floor {sum(values) / len(values):.3f}" if values else ""


def scores_of(explanations: Sequence[Explained], name: str, layer: int | None = None) -> list[float]:
    """The values of one of the scores, of one layer or of all, where it is known."""
    values = (getattr(one.scores, name) for one in explanations if layer in (None, one.layer))
    return [value for value in values if value is not None]
