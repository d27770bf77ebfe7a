"""Token importance of all examples that a configuration selects, in parts that any process can measure.

A part is some batches of `Masking`. Its file is kept in the stage's draft, so that an interrupted run goes on.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.describe.ablation import Masking, wanted_examples
from atlas_builder.describe.results import importance_file, save_importance
from atlas_builder.files import read_array
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import keep_memory
from atlas_builder.models.precision import DTYPES
from atlas_builder.progress import Progress
from atlas_builder.units.base import Units

_BATCHES_A_FILE = 2
_PARTS, _DIVISION = "importance", "division.npz"


def measure_importance(
    loaded: LanguageModel, units: Units, collected: Collected, clustered: Path, config: Configuration, folder: Path,
    progress: Progress,
) -> None:  # fmt: skip
    """Write token importance for the examples that the configuration selects, layer by layer.

    Finished parts are kept in `folder` in small files, so that an interrupted run resumes.
    """
    count = divide_importance(loaded, units, collected, clustered, config, folder)
    division = _Division.of(folder)
    if len(division.examples) and str(division.way) == "unpacked":
        progress.say("importance: this architecture does not take rows of several masked texts, so each runs alone")
    masking = _masking(loaded, units, collected, config, division)
    with progress.task("importance", total=len(division.examples), unit="examples") as advance:
        for part in range(count):
            _measure(masking, division, folder, part, advance)
    assemble_importance(folder)


def divide_importance(
    loaded: LanguageModel, units: Units, collected: Collected, clustered: Path, config: Configuration, folder: Path
) -> int:
    """Divide the examples that the configuration selects into parts, note them in `folder`, and return their number."""
    if not (folder / _PARTS / _DIVISION).exists():
        chosen = list(wanted_examples(collected, clustered, config))
        examples = np.concatenate([wanted for _, _, wanted in chosen])
        place = np.concatenate([places for _, places, _ in chosen])
        masking = _masking(loaded, units, collected, config)
        batches = masking.batches(examples)
        order = np.concatenate([np.zeros(0, np.int64), *batches])
        layers, ends = np.array([layer for layer, _, _ in chosen]), np.cumsum([0, *map(len, batches)])
        way = np.array(masking.way(examples) if len(examples) else "unpacked")
        _Division(examples[order], place[order], ends, layers, np.array(masking.reach + 1), way).save(folder)
    return _Division.of(folder).parts


def measure_part(
    loaded: LanguageModel, units: Units, collected: Collected, config: Configuration, folder: Path, part: int
) -> None:
    """Measure a part of the examples, numbered from 0, unless its file is there."""
    division = _Division.of(folder)
    _measure(_masking(loaded, units, collected, config, division), division, folder, part, lambda examples: None)


def assemble_importance(folder: Path) -> None:
    """Write the results of all layers from the files of all parts, and remove these."""
    division = _Division.of(folder)
    none = np.zeros((0, int(division.tokens)), np.float32)
    importance = np.concatenate([none, *(read_array(_file(folder, part)) for part in range(division.parts))])
    for layer in division.layers.tolist():
        chosen = division.examples["layer"] == layer
        save_importance(importance_file(folder, layer), division.place[chosen], importance[chosen])
    shutil.rmtree(folder / _PARTS)


class _Division(NamedTuple):
    examples: np.ndarray
    """All examples, `Wanted`, batch after batch: (examples,)."""
    place: NDArray[np.int64]
    """Their places in their layers: (examples,)."""
    ends: NDArray[np.int64]
    """Batch i is `examples[ends[i]:ends[i + 1]]`: (batches + 1,)."""
    layers: NDArray[np.int64]
    """The layers that have results, of examples or none."""
    tokens: NDArray[np.int64]
    """How many tokens of each are masked, the key token included: ()."""
    way: NDArray[np.str_]
    """The way of `masked_runs` that the model obeys, which is tried once: ()."""

    @classmethod
    def of(cls, folder: Path) -> _Division:
        with np.load(folder / _PARTS / _DIVISION, allow_pickle=False) as arrays:
            return cls(*(arrays[name] for name in cls._fields))

    def save(self, folder: Path) -> None:
        (folder / _PARTS).mkdir(exist_ok=True)
        draft = _draft(folder)
        with draft.open("wb") as file:
            np.savez(file, **self._asdict())
        draft.replace(folder / _PARTS / _DIVISION)

    @property
    def parts(self) -> int:
        return -(-(len(self.ends) - 1) // _BATCHES_A_FILE)

    def batches(self, part: int) -> list[NDArray[np.int64]]:
        """The batches of a part, as places among `examples`."""
        ends = self.ends[part * _BATCHES_A_FILE : (part + 1) * _BATCHES_A_FILE + 1].tolist()
        return [np.arange(first, last) for first, last in pairwise(ends)]


def _measure(
    masking: Masking, division: _Division, folder: Path, part: int, on_examples: Callable[[int], object]
) -> None:
    """Measure a part, and say after each batch of how many examples; all at once where its file is there."""
    path, batches = _file(folder, part), division.batches(part)
    if path.exists():
        on_examples(sum(map(len, batches)))
        return
    measured = []
    for batch in batches:
        measured.append(masking.importance(division.examples, batch))
        on_examples(len(batch))
    draft = _draft(folder)
    with draft.open("wb") as file:
        np.save(file, np.concatenate(measured))
    draft.replace(path)


def _file(folder: Path, part: int) -> Path:
    return folder / _PARTS / f"{part * _BATCHES_A_FILE}.npy"


def _draft(folder: Path) -> Path:
    """A name that no other process has."""
    return folder / _PARTS / f".{secrets.token_hex(4)}.draft"


def _masking(
    loaded: LanguageModel, units: Units, collected: Collected, config: Configuration, division: _Division | None = None
) -> Masking:
    keep_memory()
    return Masking(
        units,
        collected.contexts,
        loaded.mask,
        config.examples.window[0],
        config.model.device,
        loaded.is_causal,
        loaded.bridge.cfg,
        DTYPES[config.model.dtype],
        None if division is None else str(division.way),
    )
