"""The numbers of a record, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

from atlas_builder.records.schema import Record

_Part = TypeVar("_Part")


class Token(NamedTuple):
    """A token and its number: a share of a behaviour, or an effect on the logit."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` tokens lie between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Of the activation over every token of the corpus."""

    max: float
    min: float | None
    mean: float
    std: float
    density: float
    tokens: int
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Polysemanticity:
    """How many things a unit does, and how far apart they are; None where there is nothing to measure."""

    behaviours: int
    effective_behaviours: float
    noise_fraction: float
    mean_distance: float | None
    max_distance: float | None
    intra_distance: float | None
    inter_distance: float | None
    examples: int
    effective_low: float | None
    effective_high: float | None
    stability: float | None
    mono_score: float | None


@dataclass(frozen=True, slots=True)
class Negative:
    """What a unit does below zero."""

    polysemanticity: Polysemanticity


@dataclass(frozen=True, slots=True)
class Logits:
    """The tokens that a unit makes likelier, and those that it makes less likely, strongest first."""

    positive: tuple[Token, ...]
    negative: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class PredictionScores:
    """How good a way to foretell where a unit fires is; None where nothing was said or nothing fired."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well tokens foretell where a unit fires, on text that nothing was learnt from."""

    fired: int
    lookup: PredictionScores
    context: PredictionScores


@dataclass(frozen=True, slots=True)
class Steering:
    """What becomes more probable after a unit's strongest examples, and less, when it is held at a value."""

    value: float
    more: tuple[Token, ...]
    less: tuple[Token, ...]


def taken(kind: type[_Part], record: Record) -> _Part:
    """The fields that a class knows; a record may have more, an old one fewer."""
    return kind(**{part.name: record.get(part.name) for part in fields(kind)})  # type: ignore[arg-type]


def tokens_of(pairs: Sequence[Sequence[Any]]) -> tuple[Token, ...]:
    """Tokens and their numbers, as records list them."""
    return tuple(Token(*pair) for pair in pairs)
