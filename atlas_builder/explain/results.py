"""Explanations of units, a line of JSON each, in a file beside the atlas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress


class ExplanationScores(NamedTuple):
    """Correlations of simulated with true activations, from −1 to 1; None where the true ones do not vary."""

    top_and_random: float | None
    random_only: float | None
    whole_range: float | None


@dataclass(frozen=True)
class Explained:
    """The explanations of a unit by a model, with a seed, and their scores."""

    id: str
    layer: int
    unit: int
    does: str
    """The activations that are explained, as `digest` of the unit's record."""
    model: str
    seed: int
    explanation: str
    range_explanation: str
    scores: ExplanationScores

    @property
    def line(self) -> str:
        """Its line in the file."""
        return json.dumps({**asdict(self), "scores": self.scores._asdict()}) + "\n"


_BEGINS = '{"id": "'


def digest(site: Path, layer: int, unit: int) -> str:
    """SHA-256 of the statistics in a unit's record, which changes with the model and the text."""
    stats = read_json(site / UnitAddress(layer, unit).record)["stats"]
    return hashlib.sha256(orjson.dumps(stats, option=orjson.OPT_SORT_KEYS)).hexdigest()


def beside(site: Path) -> Path:
    """The file of explanations of a built atlas."""
    site = site.resolve()
    return site.with_name(f"{site.name}.explained.jsonl")


def read_explanations(path: Path) -> list[Explained]:
    """The lines of a file, without an unfinished last one; none if there is no file.

    Raises `ConfigurationError` if it holds anything else.
    """
    if not path.exists():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    explanations = []
    try:
        for line in lines:
            record = json.loads(line)
            explanations.append(Explained(**{**record, "scores": ExplanationScores(**record["scores"])}))
        if not (unfinished.startswith(_BEGINS) or _BEGINS.startswith(unfinished)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path} is not a file of explanations: name another file.") from None
    return explanations


def of_atlas(site: Path, explanations: Sequence[Explained]) -> list[Explained]:
    """The explanations that fit the units of an atlas as it is now."""
    atlas = read_facts(site)
    counts = {layer["layer"]: layer["units"] for layer in atlas["layers"]}
    of_units = (one for one in explanations if one.id == UnitAddress(one.layer, one.unit).within(atlas["atlas"]["id"]))
    return [
        one for one in of_units if one.unit < counts.get(one.layer, 0) and one.does == digest(site, one.layer, one.unit)
    ]


def mean_scores(explanations: Sequence[Explained]) -> Iterator[str]:
    """Of each layer, the mean of each score, a line each."""
    for layer in sorted({one.layer for one in explanations}):
        scores = {name: scores_of(explanations, name, layer) for name in ExplanationScores._fields}
        means = [
            f"{name} {sum(values) / len(values):.3f} ({len(values)} units)" for name, values in scores.items() if values
        ]
        yield f"layer {layer}: {', '.join(means) or 'nothing to score'}"


def scores_of(explanations: Sequence[Explained], name: str, layer: int | None = None) -> list[float]:
    """The values of one of the scores, of one layer or of all, where it is known."""
    values = (getattr(one.scores, name) for one in explanations if layer in (None, one.layer))
    return [value for value in values if value is not None]
