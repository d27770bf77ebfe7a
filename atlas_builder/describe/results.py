"""The results of the describe stage, read by the stages after it; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.describe.logits import Effects
from atlas_builder.describe.novelty import Novelty
from atlas_builder.files import read_array, read_json, write_json
from atlas_builder.rounding import significant

_LOSS = "loss.json"


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

    @cached_property
    def importance(self) -> Importance:
        """The token importance of some examples."""
        return Importance(importance_file(self.folder, self.layer))

    @cached_property
    def bands(self) -> Novelty:
        """How the tokens of each unit's bands compare with those of its top band."""
        with np.load(self.folder / f"L{self.layer}.bands.npz") as arrays:
            return Novelty(**{name: arrays[name] for name in Novelty._fields})

    @cached_property
    def prediction(self) -> np.ndarray | None:
        """Counts of how well tokens predict where each unit fires, `token_scores.COUNTS`; None if not measured."""
        path = self.folder / f"L{self.layer}.prediction.npy"
        return read_array(path) if path.exists() else None

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


def write_loss(folder: Path, loss: tuple[float, int] | None) -> None:
    """Save the model's loss, where it has one, as atlases publish it: nats a token, and the number of tokens."""
    record = None if loss is None else {"nats": significant(loss[0]), "tokens": loss[1]}
    write_json(folder / _LOSS, record)


def read_loss(folder: Path) -> dict[str, Any] | None:
    """What `write_loss` saved; None where the loss was not measured."""
    record: dict[str, Any] | None = read_json(folder / _LOSS) if (folder / _LOSS).exists() else None
    return record


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
