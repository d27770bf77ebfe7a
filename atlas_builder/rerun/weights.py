"""The weights of units, read from the modules of the model itself, and their effect on the logits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.config import Configuration
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.rerun.directions import PublishedDirections

_FAR = 1e6  # an input of a norm so large that what the norm adds to a variance does not count


class Weights:
    """Input and output weights of the units of a configuration, as `reading` reads them."""

    def __init__(self, config: Configuration, loaded: LanguageModel, reading: Any) -> None:
        self._kind, self._loaded = config.units.kind, loaded
        # The second reading's own copy of the model; CRATE has the one copy only.
        self._plain = getattr(reading, "plain", None)
        self._saes = getattr(reading, "saes", {})
        self._directions: PublishedDirections | None = getattr(reading, "directions", None)
        self._tokens: list[int] = getattr(reading, "tokens", [])

    def has_negative(self, layer: int) -> bool:
        """Whether units have activations of either sign: gated ones do."""
        return self._kind == "basis" or (self._kind == "mlp" and self._matrix(layer, "gate") is not None)

    def count(self, layer: int) -> int:
        """The number of units of a layer; 0 where there is no such layer."""
        if self._kind in ("sae", "transcoder"):
            return len(self._saes[layer].decoder) if layer in self._saes else 0
        if self._kind == "logits":
            return len(self._tokens) if layer == int(self._loaded.bridge.cfg.n_layers) else 0
        if self._directions is not None and layer not in self._directions.layers:
            return 0
        return len(self._write(layer)) if 0 <= layer < int(self._loaded.bridge.cfg.n_layers) else 0

    def read(self, layer: int, units: Sequence[int]) -> NDArray[np.float32]:
        """Input weights, of a gated unit those of the gate first: (parts, units, width)."""
        if self._kind in ("sae", "transcoder"):
            parts = [torch.from_numpy(self._saes[layer].encoder)]
        elif self._kind == "crate":
            parts = [self._write(layer)]
        elif self._kind == "logits":
            assert self._plain is not None
            matrix = self._plain.get_output_embeddings().weight.double()
            parts = [matrix[self._tokens] - matrix.mean(0)]
        elif self._directions is not None:
            parts = [torch.from_numpy(self._directions.of(layer, "encode").T)]
        else:
            return self.of_neurons(layer, units)
        return np.stack([_array(part[list(units)]) for part in parts])

    def of_neurons(self, layer: int, units: Sequence[int] | slice) -> NDArray[np.float32]:
        """Input weights of neurons, whatever the units are: (parts, units, width)."""
        chosen = units if isinstance(units, slice) else list(units)
        parts = [part.T for part in (self._matrix(layer, "gate"), self._matrix(layer, "in")) if part is not None]
        return np.stack([_array(part[chosen]) for part in parts])

    @property
    def writes(self) -> bool:
        """Whether the units have output weights."""
        return self._kind != "logits"

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """What each token enters the model as: (vocabulary, width)."""
        model = self._loaded.bridge if self._plain is None else self._plain
        return _array(model.get_input_embeddings().weight)[: int(self._loaded.bridge.cfg.d_vocab)]

    def write(self, layer: int, units: Sequence[int]) -> NDArray[np.float32]:
        """Output weights, of units that have some: (units, d_model)."""
        return _array(self._write(layer)[list(units)])

    @property
    def has_logits(self) -> bool:
        """Whether units write what reaches the logits through a final norm alone, so that `logits` is right."""
        return self.writes and self._loaded.has_direct_logits

    def logits(self, directions: NDArray[np.float32]) -> NDArray[np.float64]:
        """What directions of the residual stream, (directions, d_model), add to the logits, less the mean over tokens.

        The final norm's division is left out: half the difference of what the norm makes of a direction and of its
        opposite, times the size that it divides by.
        """
        norm, unembedding = self._end()
        exact = torch.from_numpy(directions.astype(np.float64))
        if norm is not None:
            width = exact.shape[1]
            level = torch.full((1, width), _FAR, dtype=torch.float64)
            centres = bool((_odd(norm, level).abs() < 0.5 * _odd(norm, level * _sawtooth(width)).abs().max()).all())
            size = (exact - exact.mean(1, keepdim=True) if centres else exact).square().mean(1, keepdim=True).sqrt()
            known = size.clamp(min=1e-30)
            exact = _odd(norm, exact / known * _FAR) * size
        logits = exact.numpy() @ unembedding
        effects: NDArray[np.float64] = logits - logits.mean(axis=1, keepdims=True)
        return effects

    def _end(self) -> tuple[Any, NDArray[np.float64]]:
        """The final norm in double precision, None if there is none, and the unembedding: (d_model, vocabulary)."""
        if self._plain is None:
            model = self._loaded.bridge
            norm, head = model.ln_final, model.tokens.weight
        else:
            try:
                norm = self._module("ln_final")
            except (AttributeError, KeyError, ValueError):
                norm = None
            head = self._plain.get_output_embeddings().weight
        return norm and copy.deepcopy(norm).cpu().double(), _array(head).astype(np.float64).T

    def _write(self, layer: int) -> Tensor:
        if self._kind in ("sae", "transcoder"):
            return torch.from_numpy(self._saes[layer].decoder)
        if self._kind == "crate":
            return Tensor(self._loaded.bridge.state_dict()[f"blocks.{layer}.ista.dictionary"])
        if self._directions is not None:
            return torch.from_numpy(self._directions.of(layer, "effect"))
        matrix = self._matrix(layer, "out")
        assert matrix is not None
        return matrix

    def _matrix(self, layer: int, name: str) -> Tensor | None:
        """A matrix of a layer's MLP, (in, out); None where it has no such part."""
        module = None
        for place in (name, f"dense_{name}"):  # the latter in a dense layer among mixtures of experts
            with suppress(AttributeError, KeyError, ValueError):
                module = self._module(f"blocks.{layer}.mlp.{place}")
                break
        if not isinstance(getattr(module, "weight", None), Tensor):  # a joint matrix, say: as TransformerLens parts it
            return getattr(self._loaded.bridge.blocks[layer].mlp, f"W_{name}", None)
        assert module is not None
        weight: Tensor = module.weight
        return weight if type(module).__name__ == "Conv1D" else weight.T

    def _module(self, name: str) -> Any:
        assert self._plain is not None
        place = self._loaded.bridge.adapter.translate_transformer_lens_path
        return self._plain.get_submodule(place(name))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def _odd(norm: Any, x: Tensor) -> Tensor:
    """The odd part of a norm, in which its bias does not count: of (rows, width)."""
    with torch.inference_mode():
        odd: Tensor = (norm(x[None])[0].double() - norm(-x[None])[0].double()) / 2
    return odd


def _sawtooth(width: int) -> Tensor:
    return torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(width // 2 + 1)[:width]
