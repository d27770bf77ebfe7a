"""The numbers of a record as dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

from atlas_builder.records.schema import Record

_Part = TypeVar("_Part")


class Token(NamedTuple):
    """A token and its weight: a share of a behaviour, or an effect on a logit or probability."""

    text: str
    weight: float


class OutputToken(NamedTuple):
    """The token whose logit an output neuron is."""

    id: int
    """Its number in the vocabulary."""
    text: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` tokens lie between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of the activation over every token of the corpus."""

    max: float
    min: float | None
    mean: float
    std: float
    density: float
    tokens: int
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Polysemanticity:
    """Measures of a unit's behaviours and of the distances between them; None where undefined."""

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
    main_behaviours: int | None
    main_low: float | None
    main_high: float | None
    main_half: float | None
    standard_behaviours: float | None
    standard_low: float | None
    standard_high: float | None
    sample_coverage: float | None
    richness: float | None
    richness_low: float | None
    richness_high: float | None
    qualifying_contexts: int | None


@dataclass(frozen=True, slots=True)
class Negative:
    """Measures of a unit's negative activations."""

    polysemanticity: Polysemanticity


@dataclass(frozen=True, slots=True)
class Logits:
    """Direct logit effects: the tokens that a unit promotes and suppresses, strongest first."""

    positive: tuple[Token, ...]
    negative: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class PredictionScores:
    """Scores of predicting where a unit fires; None where nothing is predicted or the unit never fires."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Token, context and graph F1: how well tokens predict where a unit fires, on held-out text."""

    fired: int
    lookup: PredictionScores
    context: PredictionScores
    graph: PredictionScores | None = None
    """None where graphs were not asked for."""


@dataclass(frozen=True, slots=True)
class PatternNode:
    """A node of a behaviour's graph: a token that its activation needs, or a place for any one token."""

    tokens: tuple[str, ...]
    """Tokens of which one stands here, the examples' own first, then substitutes; none for any one token."""
    next: int | None
    """The place in the graph's nodes of the one after it in the text; None for a key token."""
    value: float | None
    """The mean activation of the examples that end here, as a share of the unit's extreme; None where none does."""


@dataclass(frozen=True, slots=True)
class PatternGraph:
    """The tokens that a behaviour's activation needs, read backwards from its key tokens (Neuron to Graph)."""

    nodes: tuple[PatternNode, ...]
    """Each behind its `next`; the strongest branches come first."""
    more: int
    """How many branches are left out, the weakest."""

    @classmethod
    def of(cls, record: Record) -> PatternGraph:
        """From a behaviour's record."""
        nodes = (PatternNode(tuple(node["tokens"]), node["next"], node["value"]) for node in record["nodes"])
        return cls(tuple(nodes), record["more"])

    @property
    def branches(self) -> tuple[tuple[PatternNode, ...], ...]:
        """The nodes from each place where examples end to its key token: as they follow each other in the text."""
        found = []
        for node in self.nodes:
            branch = [node]
            while (place := branch[-1].next) is not None:
                branch.append(self.nodes[place])
            if node.value is not None:
                found.append(tuple(branch))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Steering:
    """Next tokens that become more and less probable after a unit's strongest examples, clamped to `value`."""

    value: float
    more: tuple[Token, ...]
    less: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Association:
    """What comes with the middle of a unit's range more often than with its top, or the reverse.

    Either a token or a field of documents with its value. Shares are of tokens drawn from each part of the range.
    """

    token: str | None
    field: str | None
    value: str | None
    effect: float
    """Above zero it goes with the top, below with the middle."""
    top: float
    middle: float
    below: float | None
    p: float


@dataclass(frozen=True, slots=True)
class Associations:
    """The associations of a unit: how many attributes were tested, on how many tokens drawn, and how many are named."""

    tested: int
    draws: int
    named: int
    found: tuple[Association, ...]
    """Those of the largest effects."""


def taken(kind: type[_Part], record: Record) -> _Part:
    """An instance of a dataclass from a record, which may have other fields too; missing ones are None."""
    return kind(**{part.name: record.get(part.name) for part in fields(kind)})  # type: ignore[arg-type]


def tokens_of(pairs: Sequence[Sequence[Any]]) -> tuple[Token, ...]:
    """Tokens and their weights, from the pairs of a record."""
    return tuple(Token(*pair) for pair in pairs)
