"""What another model said of units, a line of JSON each, in a file beside the atlas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from atlas_builder.errors import ConfigurationError


class Scores(NamedTuple):
    """How well an explanation foretells a unit, from −1 to 1; None where the unit is silent on what is scored."""

    top_and_random: float | None
    random_only: float | None
    whole_range: float | None


@dataclass(frozen=True)
class Explained:
    """What a model, asked with a seed, said of a unit, and how well that foretells it."""

    id: str
    layer: int
    model: str
    seed: int
    explanation: str
    range_explanation: str
    scores: Scores

    @property
    def line(self) -> str:
        """Its line."""
        return json.dumps({**asdict(self), "scores": self.scores._asdict()}) + "\n"


def beside(site: Path) -> Path:
    """The file of a built atlas."""
    site = site.resolve()
    return site.with_name(f"{site.name}.explained.jsonl")


def read(path: Path) -> list[Explained]:
    """The lines of a file, without a last one that was not finished; none where there is no file.

    Raises `ConfigurationError` where it holds anything else.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found = []
    for line in lines[:-1]:
        try:
            said = json.loads(line)
            found.append(Explained(**{**said, "scores": Scores(**said["scores"])}))
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(f"{path} does not hold explanations: name another file.") from None
    if lines[-1] and not found and not lines[-1].startswith("{"):
        raise ConfigurationError(f"{path} does not hold explanations: name another file.")
    return found


def scores_of(found: Sequence[Explained], name: str, layer: int | None = None) -> list[float]:
    """One of the scores of those units, of one layer's or of all, that have it."""
    values = (getattr(one.scores, name) for one in found if layer in (None, one.layer))
    return [value for value in values if value is not None]
