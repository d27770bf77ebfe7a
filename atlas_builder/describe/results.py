"""The results of the describe stage, read by the stages after it; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from atlas_builder.describe.logits import Effects
from atlas_builder.describe.novelty import Novelty
from atlas_builder.describe.token_graphs import SavedGraphs, graphs_file, read_graphs
from atlas_builder.files import read_array, read_json, write_json
from atlas_builder.rounding import significant

_LOSS = "loss.json"
_MODULES = "modules.json"
STRONGEST = 8
"""Edges kept for a direction, in and out each."""


def _apart(values: Any) -> Any:
    """A copy of plain values: a few strings that are kept of a decoded file would keep all the memory around them."""
    return orjson.loads(orjson.dumps(values))


@dataclass(frozen=True)
class Described:
    """One layer of the folder of the describe stage."""

    layer: int
    folder: Path

    @cached_property
    def behaviours(self) -> list[dict[str, Any]]:
        """`label`, `words` ([word, share]…), `tokens` and `next` ([token id, weight]…) of each behaviour.

        Their ids are places in `Collected.texts_read`.
        """
        behaviours: list[dict[str, Any]] = read_json(self.folder / f"L{self.layer}.behaviours.json")
        return behaviours

    def labels(self) -> list[str]:
        """The label of each behaviour."""
        labels: list[str] = _apart([behaviour["label"] for behaviour in self.behaviours])
        return labels

    def key_words(self, share: float) -> list[list[str]]:
        """The words of at least such a share of each behaviour's examples."""
        words: list[list[str]] = _apart(
            [[word for word, own in behaviour["words"] if own >= share] for behaviour in self.behaviours]
        )
        return words

    @cached_property
    def importance(self) -> Importance:
        """The token importance of some examples."""
        return Importance(importance_file(self.folder, self.layer))

    @cached_property
    def bands(self) -> Novelty:
        """How the tokens of each unit's bands compare with those of its top band.

        Of output neurons, those where another token comes.
        """
        return _novelty(self.folder / f"L{self.layer}.bands.npz")

    @cached_property
    def own_bands(self) -> Novelty | None:
        """The same where the token of an output neuron comes next; None for other kinds of units."""
        path = self.folder / f"L{self.layer}.own_bands.npz"
        return _novelty(path) if path.exists() else None

    @cached_property
    def prediction(self) -> np.ndarray | None:
        """Counts of how well tokens predict where each unit fires, `token_scores.COUNTS`; None if not measured."""
        path = self.folder / f"L{self.layer}.prediction.npy"
        return read_array(path) if path.exists() else None

    @cached_property
    def graphs(self) -> SavedGraphs | None:
        """The token graphs of the layer's behaviours; None where they were not asked for."""
        return read_graphs(graphs_file(self.folder, self.layer))

    @cached_property
    def associations(self) -> list[dict[str, Any]] | None:
        """Of each unit what `associations.associations_of` found; None if not measured."""
        path = associations_file(self.folder, self.layer)
        units: list[dict[str, Any]] | None = read_json(path) if path.exists() else None
        return units

    @cached_property
    def steering(self) -> dict[str, np.ndarray] | None:
        """The effect of clamping each unit, `steering.Changes` by name; None if not measured."""
        path = self.folder / f"L{self.layer}.steering.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return dict(arrays)

    @cached_property
    def effects(self) -> Effects:
        """The direct logit effects of each unit."""
        with np.load(self.folder / f"L{self.layer}.logits.npz") as arrays:
            return Effects(**{name: arrays[name] for name in Effects._fields})


def _novelty(path: Path) -> Novelty:
    with np.load(path) as arrays:
        return Novelty(**{name: arrays[name] for name in Novelty._fields})


def write_loss(folder: Path, loss: tuple[float, int, float | None] | None) -> None:
    """Save the model's loss, where it has one, as atlases publish it: `Loss` by the names of its fields."""
    record = None
    if loss is not None:
        nats, tokens, error = loss
        record = {"nats": significant(nats), "tokens": tokens, "error": None if error is None else significant(error)}
    write_json(folder / _LOSS, record)


def read_loss(folder: Path) -> dict[str, Any] | None:
    """What `write_loss` saved; None where the loss was not measured."""
    record: dict[str, Any] | None = read_json(folder / _LOSS) if (folder / _LOSS).exists() else None
    return record


def associations_file(folder: Path, layer: int) -> Path:
    """The file of a layer's associations in the folder of the describe stage."""
    return folder / f"L{layer}.associations.json"


def importance_file(folder: Path, layer: int) -> Path:
    """The file of a layer's token importance in the folder of the describe stage."""
    return folder / f"L{layer}.importance.npz"


def save_importance(path: Path, examples: NDArray[np.int64], importance: NDArray[np.float32]) -> None:
    """Write the token importance of some of a layer's examples, (examples,), for `Importance` to read."""
    order = np.argsort(examples)
    np.savez(path, example=examples[order], importance=importance[order])


@dataclass(frozen=True)
class Importance:
    """The token importance of one layer."""

    path: Path

    @cached_property
    def all(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The examples that were measured, in rising order, and I(k) up to the key token: (examples, tokens)."""
        if not self.path.exists():
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        with np.load(self.path, allow_pickle=False) as arrays:
            return arrays["example"], arrays["importance"]

    def of(self, example: int) -> NDArray[np.float32] | None:
        """I(k) of a layer's example up to its key token, which is the last; None if not measured."""
        examples, values = self.all
        place = int(np.searchsorted(examples, example))
        return values[place] if place < len(examples) and examples[place] == example else None


def edges_file(folder: Path, layer: int) -> Path:
    """The file of the edges from a layer's directions to those of the next, in the folder of the describe stage."""
    return folder / f"edges-L{layer}.npy"


Place = tuple[int, int]
"""Layer and direction."""


class StrongEdge(NamedTuple):
    """An edge of a direction, by its other end."""

    layer: int
    direction: int
    strength: float


class StrongEdges(NamedTuple):
    """The strongest edges of a direction, the strongest first."""

    incoming: list[StrongEdge]
    outgoing: list[StrongEdge]


def write_modules(
    folder: Path, floors: Mapping[Place, float], quality: float, members: Sequence[Sequence[Place]], tokens: int
) -> None:
    """Save for `Interactions` the modules, and by layer and next layer the strength above which edges count."""
    pairs = [{"before": before, "after": after, "floor": floor} for (before, after), floor in floors.items()]
    write_json(folder / _MODULES, {"pairs": pairs, "quality": quality, "members": members, "tokens": tokens})


@dataclass(frozen=True)
class Interactions:
    """How the directions of neighbouring layers interact. A pair of layers is named by the former.

    Modules are numbered from 1, the largest first. An edge counts if it is stronger than its pair's floor.
    """

    folder: Path

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = read_json(self.folder / _MODULES)
        return facts

    @property
    def layers(self) -> list[int]:
        """The layers that have edges to another, in rising order: all but the last."""
        return list(self._floors)

    @cached_property
    def _floors(self) -> dict[int, float]:
        return {pair["before"]: pair["floor"] for pair in self._facts["pairs"]}

    @cached_property
    def after(self) -> dict[int, int]:
        """By layer the next, which it has edges to."""
        return {pair["before"]: pair["after"] for pair in self._facts["pairs"]}

    @property
    def tokens(self) -> int:
        """Tokens on which the edges were measured."""
        return int(self._facts["tokens"])

    @property
    def quality(self) -> float:
        """Modularity of the division into modules."""
        return float(self._facts["quality"])

    @cached_property
    def modules(self) -> list[list[Place]]:
        """The directions of each module, two at least; those without an edge above the floor have no module."""
        return [[(layer, direction) for layer, direction in members] for members in self._facts["members"]]

    @cached_property
    def _module(self) -> dict[Place, int]:
        return {place: number for number, members in enumerate(self.modules, 1) for place in members}

    @property
    def facts(self) -> dict[str, Any]:
        """What `atlas.json` says: tokens, floors and numbers of edges by pair, modules and their quality."""
        pairs = [
            {
                "before": layer,
                "after": self.after[layer],
                "floor": significant(self.floor(layer)),
                "edges": int((self.edges(layer) > self.floor(layer)).sum()),
            }
            for layer in self.layers
        ]
        return {
            "edge_tokens": self.tokens,
            "pairs": pairs,
            "modules": len(self.modules),
            "quality": significant(self.quality),
        }

    def module_of(self, layer: int, direction: int) -> int | None:
        """The number of a direction's module; None where it has no module."""
        return self._module.get((layer, direction))

    @cached_property
    def _edges(self) -> dict[int, NDArray[np.float64]]:
        return {layer: read_array(edges_file(self.folder, layer)) for layer in self.layers}

    def edges(self, layer: int) -> NDArray[np.float64]:
        """Strengths of all edges from a layer to the next: (k_after, k_before)."""
        return self._edges[layer]

    def floor(self, layer: int) -> float:
        """The strongest edge from a layer to the next that is too weak to count."""
        return self._floors[layer]

    def shown(self, layer: int) -> list[tuple[int, int, float]]:
        """The edges above the floor from a layer to the next, the strongest first: before, after, strength."""
        strengths = self.edges(layer)
        after, before = np.nonzero(strengths > self.floor(layer))
        order = np.lexsort([after, before, -strengths[after, before]])
        return [(int(before[at]), int(after[at]), float(strengths[after[at], before[at]])) for at in order]

    def strongest(self, layer: int, direction: int) -> StrongEdges:
        """The strongest edges above the floor that end and begin at a direction."""
        former = next((one for one, other in self.after.items() if other == layer), None)
        incoming = [] if former is None else self._above(former, self.edges(former)[direction], former)
        outgoing = self._above(layer, self.edges(layer)[:, direction], self.after[layer]) if layer in self.after else []
        return StrongEdges(incoming, outgoing)

    def _above(self, pair: int, strengths: NDArray[np.float64], ends: int) -> list[StrongEdge]:
        order = np.argsort(-strengths, kind="stable")[:STRONGEST].tolist()
        return [StrongEdge(ends, at, float(strengths[at])) for at in order if strengths[at] > self.floor(pair)]

    def __reduce__(self) -> tuple[Callable[..., Interactions], tuple[Path]]:
        """Workers get the path, not the arrays that happen to be loaded."""
        return Interactions, (self.folder,)
