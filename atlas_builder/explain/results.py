"""What another model said of units, a line of JSON each, in a file beside the atlas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress


class ExplanationScores(NamedTuple):
    """How well an explanation foretells a unit, from −1 to 1; None where the unit is silent on what is scored."""

    top_and_random: float | None
    random_only: float | None
    whole_range: float | None


@dataclass(frozen=True)
class Explained:
    """What a model, asked with a seed, said of a unit, and how well that foretells it."""

    id: str
    layer: int
    unit: int
    does: str
    """Of which activations it was said, `digest` of the unit's record."""
    model: str
    seed: int
    explanation: str
    range_explanation: str
    scores: ExplanationScores

    @property
    def line(self) -> str:
        """Its line."""
        return json.dumps({**asdict(self), "scores": self.scores._asdict()}) + "\n"


_BEGINS = '{"id": "'


def digest(site: Path, layer: int, unit: int) -> str:
    """SHA-256 of what a unit's record says of its activations: another model or text, and it is another."""
    stats = read_json(site / UnitAddress(layer, unit).record)["stats"]
    return hashlib.sha256(orjson.dumps(stats, option=orjson.OPT_SORT_KEYS)).hexdigest()


def beside(site: Path) -> Path:
    """The file of a built atlas."""
    site = site.resolve()
    return site.with_name(f"{site.name}.explained.jsonl")


def read_explanations(path: Path) -> list[Explained]:
    """The lines of a file, without a last one that was not finished; none where there is no file.

    Raises `ConfigurationError` where it holds anything else.
    """
    if not path.exists():
        return []
    *lines, unfinished = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found = []
    try:
        for line in lines:
            said = json.loads(line)
            found.append(Explained(**{**said, "scores": ExplanationScores(**said["scores"])}))
        if not (unfinished.startswith(_BEGINS) or _BEGINS.startswith(unfinished)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path} does not hold explanations: name another file.") from None
    return found


def of_atlas(site: Path, found: Sequence[Explained]) -> list[Explained]:
    """Those of the units of an atlas as it is now."""
    atlas = read_facts(site)
    counts = {layer["layer"]: layer["units"] for layer in atlas["layers"]}
    own = (one for one in found if one.id == UnitAddress(one.layer, one.unit).within(atlas["atlas"]["id"]))
    return [one for one in own if one.unit < counts.get(one.layer, 0) and one.does == digest(site, one.layer, one.unit)]


def scores_of(found: Sequence[Explained], name: str, layer: int | None = None) -> list[float]:
    """One of the scores of those units, of one layer's or of all, that have it."""
    values = (getattr(one.scores, name) for one in found if layer in (None, one.layer))
    return [value for value in values if value is not None]
