"""The results of the pass on disk, opened for later stages; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus import contexts
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.files import read_array, read_json


def example_type(window: int) -> np.dtype:
    """One example: a context in which a unit is active, with a window around its key token.

    `sign` is 1 for a positive activation and −1 for a negative one, `value` the activation
    at the key token, `position` the key token's place in the context, `row` the row of its
    input in the layer's `inputs`, `window` the activations around it, NaN outside the
    context.
    """
    return np.dtype(
        [
            ("unit", "<i4"),
            ("sign", "<i4"),
            ("value", "<f4"),
            ("context", "<i4"),
            ("position", "<i4"),
            ("row", "<i4"),
            ("window", "<f4", (window,)),
        ]
    )


class Selection(NamedTuple):
    """How the examples of a unit's side were selected."""

    robust: float
    """The maximum of which a share is the threshold, 0 where there is no positive activation.

    For policy `robust` a tenth of the sum of the ten highest key activations, else the highest one.
    """
    reach: int
    """Number of contexts that reach the threshold or, for policy `top`, have a positive activation.

    Exact below `per_unit` and for `top`; else estimated from bins a fourth of a power of two wide.
    """
    filled: bool
    """Whether the examples are the highest contexts instead of a sample of those that reach the threshold.

    For policy `robust`, where too few reach it; for `top`, where there are more than `per_unit`.
    """


selection_type = np.dtype([("robust", "<f8"), ("reach", "<i8"), ("filled", "?")])
"""A `Selection`."""

band_type = np.dtype(
    [("unit", "<i4"), ("band", "<i2"), ("rank", "<i2"), ("value", "<f4"), ("context", "<i4"), ("position", "<i4")]
)
"""One token drawn from a band of a unit's activations; `rank` is its random rank in the band."""

draw_type = np.dtype([("unit", "<i4"), ("value", "<f4"), ("context", "<i4"), ("position", "<i4")])
"""One position of the corpus and a unit's activation there."""


def drawn_between(rows: np.ndarray, low: float, high: float, most: int | None, *, closed: bool) -> np.ndarray:
    """Of one unit's `CollectedLayer.draws`, those from `low` to below `high` or, `closed`, to `high` itself.

    They are of the first `most` that are at least `low`; of own positions, which are all known, it is None.
    """
    above = rows[rows["value"] >= low][:most]
    drawn: np.ndarray = above[above["value"] <= high if closed else above["value"] < high]
    return drawn


class Moments(NamedTuple):
    """Statistics of each unit over all tokens, (units,) each."""

    maximum: NDArray[np.float64]
    minimum: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    """Standard deviation of the population."""
    density: NDArray[np.float64]
    """Share of tokens with an activation above zero."""


@dataclass(frozen=True)
class CollectedLayer:
    """One layer's units; arrays are read from disk when first used."""

    layer: int
    folder: Path

    def __reduce__(self) -> tuple[type[CollectedLayer], tuple[int, Path]]:
        """Workers get the folder, not the open arrays."""
        return CollectedLayer, (self.layer, self.folder)

    def reopened(self) -> CollectedLayer:
        """The same layer with nothing read yet: the memory of what is read through it is freed with it."""
        return CollectedLayer(self.layer, self.folder)

    @cached_property
    def examples(self) -> np.ndarray:
        """All examples of all units, `example_type`: by unit, positive first, then by descending magnitude."""
        return read_array(self.folder / "examples.npy", on_disk=True)

    @cached_property
    def selection(self) -> np.ndarray:
        """How the examples of each unit's sides were selected, `selection_type`: (units, signs), positive first."""
        return read_array(self.folder / "selection.npy")

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The examples of unit `u` are `starts[u]:starts[u + 1]`: (units + 1,)."""
        return read_array(self.folder / "starts.npy")

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """The units' inputs at key tokens: (rows, width); `examples["row"]` indexes it."""
        width = read_json(self.folder / "layer.json")["width"]
        path = self.folder / "inputs.f32"
        if not path.stat().st_size:
            return np.zeros((0, width), dtype=np.float32)
        return np.memmap(path, dtype="<f4", mode="r").reshape(-1, width)

    @cached_property
    def read_weights(self) -> NDArray[np.float32]:
        """Input weights: (parts, units, width)."""
        return read_array(self.folder / "read.npy", on_disk=True)

    @cached_property
    def write_weights(self) -> NDArray[np.float32] | None:
        """Output weights: (units, d_model); None for units that write nothing."""
        return self._optional("write.npy")

    @cached_property
    def output_tokens(self) -> NDArray[np.int32] | None:
        """The token of each output neuron: (units,); None for other kinds of units."""
        return self._optional("output_tokens.npy")

    @cached_property
    def draws(self) -> np.ndarray | None:
        """Tokens drawn from a unit's whole range, `draw_type`, by unit, then in random order; None if there are none.

        For any activations from `low` to below `high`: of a unit's rows, the first
        `examples.association_draws` of at least `low`, and of these those below `high`, are a uniform
        sample. They are of positive activations; for output neurons of any, where another token comes.
        """
        return self._optional("draws.npy")

    @cached_property
    def own(self) -> np.ndarray | None:
        """All positions where an output neuron's token comes next, `draw_type`, by unit, then in random order.

        None for other kinds of units. Where a document ends, no token comes next.
        """
        return self._optional("own.npy")

    def _optional(self, name: str) -> np.ndarray | None:
        path = self.folder / name
        return read_array(path, on_disk=True) if path.exists() else None

    @cached_property
    def moments(self) -> Moments:
        """Statistics of each unit."""
        return Moments(*read_array(self.folder / "moments.npy"))

    @cached_property
    def band_edges(self) -> NDArray[np.float64]:
        """Edges of each unit's bands: (units, bands + 1), NaN where it has no positive activation.

        For output neurons they are those of `own.own_edges`: the first band is below every own position.
        """
        return read_array(self.folder / "band_edges.npy")

    @cached_property
    def bands(self) -> np.ndarray:
        """Tokens drawn from the bands, `band_type`: by unit, band and rank.

        For output neurons those where another token comes.
        """
        return read_array(self.folder / "bands.npy", on_disk=True)

    @cached_property
    def band_windows(self) -> NDArray[np.float32]:
        """Activations around the tokens of `bands` that are shown, those of the lowest ranks: (shown, window)."""
        return read_array(self.folder / "band_windows.npy", on_disk=True)

    @cached_property
    def own_bands(self) -> np.ndarray | None:
        """Tokens drawn from the bands of output neurons where their token comes next, as `bands`; the first has none.

        None for other kinds of units.
        """
        return self._optional("own_bands.npy")

    @cached_property
    def own_band_windows(self) -> NDArray[np.float32] | None:
        """Activations around the tokens of `own_bands` that are shown, as `band_windows`."""
        return self._optional("own_band_windows.npy")

    @cached_property
    def background(self) -> NDArray[np.float32]:
        """The units' inputs at random tokens of the corpus, the same for all units: (background tokens, width).

        A uniform sample without replacement, in random order: `BACKGROUND_TOKENS` of all
        tokens, or all where the corpus has no more.
        """
        return read_array(self.folder / "background.npy", on_disk=True)

    @cached_property
    def background_tokens(self) -> NDArray[np.int32]:
        """The ids of the tokens at which `background` was read: (background tokens,)."""
        return read_array(self.folder / "background_tokens.npy")

    @cached_property
    def histogram(self) -> NDArray[np.uint32]:
        """Tokens per bin of `histogram.bin_edges`: (units, BINS)."""
        return read_array(self.folder / "histogram.npy", on_disk=True)

    @cached_property
    def tokens(self) -> int:
        """Number of tokens in the statistics."""
        return int(read_json(self.folder / "layer.json")["tokens"])

    @cached_property
    def signs(self) -> int:
        """2 where units have negative activations too, else 1."""
        return int(read_json(self.folder / "layer.json")["signs"])

    @property
    def units(self) -> int:
        """Number of units of the layer."""
        return len(self.starts) - 1

    def of(self, unit: int) -> np.ndarray:
        """The examples of one unit, positive first, then by descending magnitude."""
        return self.examples[self.starts[unit] : self.starts[unit + 1]]

    def is_random_sample(self, unit: int, sign: int) -> bool:
        """Whether the examples of one unit and sign are a random sample of the contexts that qualify, or all of them.

        Otherwise they are the highest, from which nothing follows for the others.
        """
        return not self.selection["filled"][unit, 0 if sign > 0 else 1]

    def of_side(self, unit: int, sign: int) -> tuple[int, np.ndarray]:
        """The place of the first example of one unit and sign (1 or −1), and these examples."""
        examples = self.of(unit)
        positive = int(np.count_nonzero(examples["sign"] > 0))
        first = int(self.starts[unit])
        return (first, examples[:positive]) if sign > 0 else (first + positive, examples[positive:])


@dataclass(frozen=True)
class Collected:
    """The folder of the collect stage."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The facts of model and corpus."""
        facts: dict[str, Any] = read_json(self.folder / "facts.json")
        return facts

    @cached_property
    def contexts(self) -> Contexts:
        """The corpus, tokenised."""
        return contexts.read_contexts(self.folder / "contexts")

    @cached_property
    def token_texts(self) -> list[str]:
        """The text of each token."""
        texts: list[str] = read_json(self.folder / "tokens.json")
        return texts

    @property
    def reads(self) -> NDArray[np.int32]:
        """What each token of the corpus reads as, in `texts_read`: bytes of a character read as that."""
        return self.contexts.tokens if self.contexts.reads is None else self.contexts.reads

    @cached_property
    def texts_read(self) -> list[str]:
        """The text of each token, then the characters that tokens of the corpus are parts of and that are none."""
        return [*self.token_texts, *self.contexts.characters]

    @cached_property
    def unembedding(self) -> NDArray[np.float32] | None:
        """From the residual stream to logits, as `LanguageModel.unembedding` defines it: (d_model, vocabulary).

        None for a model that has no direct logit effects.
        """
        path = self.folder / "unembedding.npy"
        return read_array(path, on_disk=True) if path.exists() else None

    def layer(self, number: int) -> CollectedLayer:
        """One of the collected layers."""
        return CollectedLayer(number, self.folder / f"L{number}")

    @property
    def layers(self) -> list[CollectedLayer]:
        """The collected layers, in ascending order."""
        return [self.layer(number) for number in self.facts["layers_read"]]
