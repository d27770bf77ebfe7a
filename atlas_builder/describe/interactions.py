"""How directions of a layer act on those of the next, measured on a model, and the modules that they make.

The edge from direction j to direction i of the next layer is E_ij, the mean over tokens t of
(Σ_s Ĵ_(ti,sj) f̂_sj)²: what coordinate j, at all tokens s of the context, contributes to coordinate i at t
to first order, squared (`interaction.edges`). The sum over s is the derivative of coordinate i along one
change of the layer's inputs, f̂_sj times direction j at each s, so forward differentiation finds it exactly
for all t and i in one run a direction. Directions share the run of a context up to their layer.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from atlas_builder.config import Configuration
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.results import edges_file, write_modules
from atlas_builder.errors import ActivationError, ModelError
from atlas_builder.files import read_array
from atlas_builder.interaction import modules
from atlas_builder.models.memory import batch_tokens, in_halves, is_out_of_memory
from atlas_builder.progress import Progress
from atlas_builder.rotate.results import RotatedLayer, Rotation
from atlas_builder.units.base import StopForwardPass

if TYPE_CHECKING:
    from atlas_builder.models.language_model import LanguageModel


def measure_edges(
    loaded: LanguageModel,
    rotation: Rotation,
    contexts: Contexts,
    config: Configuration,
    folder: Path,
    progress: Progress,
) -> None:
    """Write the edges between each two neighbouring layers of a rotation, and the modules, for `results.Interactions`.

    A finished pair's file is kept, so that an interrupted run resumes.

    Raises:
        ModelError: If the model's inputs to a layer cannot be differentiated by those of the layer before.
        ActivationError: If a derivative is not a number.
    """
    settings = config.interaction
    layers = [rotation.layer(number) for number in rotation.layers]
    chosen = spread_contexts(contexts, settings.edge_tokens)
    tokens = int(np.diff(contexts.starts)[chosen].sum())
    matrices: list[NDArray[np.float64]] = []
    total = tokens * sum(len(layer.importance) for layer in layers[:-1])
    with progress.task("edges", total=total, unit="derivatives") as advance:
        for before, after in itertools.pairwise(layers):
            path = edges_file(folder, before.layer)
            if path.exists():
                advance(tokens * len(before.importance))
            else:
                strengths = np.zeros((len(after.importance), len(before.importance)))
                pair = Pair(loaded.bridge, before, after, contexts.bos is not None, config.model.device)
                for context in chosen:
                    text = torch.from_numpy(contexts.stack(np.array([context]))).to(config.model.device)
                    strengths += pair.squares(text)
                    advance(len(contexts.text_of(int(context))) * len(before.importance))
                _save(path, strengths / tokens)
            matrices.append(read_array(path))
    floors = [floor_of(matrix, settings.edges_shown) for matrix in matrices]
    found = modules([torch.from_numpy(matrix) for matrix in matrices], floors)
    numbers = [layer.layer for layer in layers]
    members = [[(numbers[place], direction) for place, direction in group] for group in found.members]
    members = [group for group in members if len(group) > 1]  # one direction alone is no module
    pairs = itertools.pairwise(numbers)
    write_modules(folder, dict(zip(pairs, floors, strict=True)), found.quality, members, tokens)


def spread_contexts(contexts: Contexts, tokens: int) -> NDArray[np.int64]:
    """Contexts spread evenly over the text, of about so many tokens together: their numbers, rising."""
    count = max(1, min(len(contexts), round(tokens * len(contexts) / max(1, contexts.token_count))))
    places = (np.arange(count) + 0.5) * len(contexts) / count
    return np.unique(places.astype(np.int64))


def floor_of(strengths: NDArray[np.float64], share: float) -> float:
    """The strongest edge that is not shown, where the strongest `share` of all and what equals them is.

    Edges that are nothing are never shown: without any other, no edge is above the floor returned.
    """
    positive = np.sort(strengths[strengths > 0])[::-1]
    if not len(positive):
        return 1.0
    last = positive[min(len(positive), max(1, round(share * strengths.size))) - 1]
    below = positive[positive < last]
    return float(below[0] if len(below) else last / 2)


class Pair:
    """Two layers of a model, of which the directions of the one act on those of the other."""

    def __init__(
        self, bridge: Any, before: RotatedLayer, after: RotatedLayer, has_bos: bool, device: str = "cpu"
    ) -> None:
        self._bridge, self._device = bridge, device
        self._from, self._to = (f"blocks.{layer.layer}.mlp.hook_in" for layer in (before, after))
        self._layer = after.layer
        self._mean, self._encode, self._decode, self._after = (
            torch.from_numpy(np.array(array)) for array in (before.mean, before.encode, before.decode, after.encode)
        )
        self._first = int(has_bos)  # a beginning-of-sequence token is no text
        cfg = bridge.cfg
        self._tokens = batch_tokens(int(cfg.d_mlp or 4 * cfg.d_model))

    def squares(self, text: Tensor) -> NDArray[np.float64]:
        """Squared contributions in one context, (1, context), summed over its tokens: (k_after, k_before)."""
        contributed = np.zeros((self._after.shape[1], len(self._decode)))
        size = max(1, self._tokens // text.shape[1])
        refusal = (
            f"not even one context of {text.shape[1]} tokens, run with its derivatives, fits into the memory of "
            f"{self._device}: set a smaller corpus.context."
        )
        for start in range(0, len(self._decode), size):

            def run(part: slice, start: int = start) -> None:
                chosen = slice(start + part.start, start + part.stop)
                contributed[:, chosen] = self._squares_of(text, chosen)

            in_halves(run, min(size, len(self._decode) - start), self._device, refusal)
        return contributed

    def _squares_of(self, text: Tensor, chosen: slice) -> NDArray[np.float64]:
        """The columns of some directions before: (k_after, directions)."""
        change = self._change(text, chosen)[:, self._first :].double().cpu()  # (directions, tokens, d)
        if not torch.isfinite(change).all():
            raise ActivationError("gradients are NaN or infinite: load the model in float32.")
        squares: NDArray[np.float64] = (change @ self._after).square().sum(dim=1).T.numpy()
        return squares

    def _change(self, text: Tensor, chosen: slice) -> Tensor:
        """How the inputs of the layer after change, to first order, by what each direction carries: (directions, …)."""
        changes: list[Tensor | None] = []

        def push(inputs: Tensor, hook: Any) -> Tensor:
            whole = inputs.detach()
            coordinates = (whole[0].double().cpu() - self._mean) @ self._encode[:, chosen]  # (context, directions)
            coordinates[: self._first] = 0
            carried = coordinates.T[:, :, None] * self._decode[chosen, None]  # (directions, context, d)
            # What is added to it broadcasts: all before this place runs once for all directions.
            dual: Tensor = forward_ad.make_dual(whole.repeat(len(carried), 1, 1), carried.to(whole))  # type: ignore[no-untyped-call]
            return dual

        def read(inputs: Tensor, hook: Any) -> None:
            changes.append(forward_ad.unpack_dual(inputs).tangent)  # type: ignore[no-untyped-call]
            raise StopForwardPass

        with _differentiated(self._layer), suppress(StopForwardPass):
            hooks = [(self._from, push), (self._to, read)]
            self._bridge.run_with_hooks(text, fwd_hooks=hooks, return_type=None)
        if not changes or changes[0] is None:
            raise ModelError(_refusal(self._layer))
        return changes[0]


@contextmanager
def _differentiated(layer: int) -> Iterator[None]:
    """Forward differentiation; attention kernels but the plain one have none."""
    try:
        with warnings.catch_warnings(), torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            # Torch makes its own rules of differentiation, on first use, by a function that it calls deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except RuntimeError as error:  # what an operation raises that has no derivative
        if is_out_of_memory(error):
            raise
        raise ModelError(_refusal(layer)) from error


def _refusal(layer: int) -> str:
    return (
        f"what enters the MLP of layer {layer} cannot be differentiated by what enters one before it, so that "
        "directions have no edges: use the model's weights in float32, not quantised ones."
    )


def _save(path: Path, array: NDArray[np.float64]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        np.save(file, array)
    draft.replace(path)
