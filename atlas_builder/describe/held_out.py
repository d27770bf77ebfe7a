"""One run of the model over held-out contexts, for its loss and for the scores of the token predictors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.results import Collected
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.loss import context_losses, loss_contexts, loss_of
from atlas_builder.describe.results import write_loss
from atlas_builder.describe.token_predictors import LayerPredictors
from atlas_builder.describe.token_scores import Numbers, TextOrder, held_out_contexts, is_held_out
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import batch_tokens
from atlas_builder.progress import Progress
from atlas_builder.units.base import ActivationHook, Units

_LOGITS_AT_ONCE = 2**25


def measure_held_out(
    model: LanguageModel,
    units: Units,
    collected: Collected,
    folder: Path,
    device: str,
    progress: Progress,
    *,
    predicts: bool,
) -> None:
    """Write the model's loss and, where it `predicts`, the `COUNTS` of every unit's token predictors.

    The predictors need the activations on every held-out context, the loss the logits on `loss_contexts`; both come
    from one forward run. A model that reads in both directions has no loss.
    """
    read = collected.contexts
    text = _HeldOutText(units, read, device)
    if predicts:
        text.predictors = {layer.layer: LayerPredictors(layer, folder, read, device) for layer in collected.layers}
    scored = loss_contexts(len(read)) if model.is_causal else np.zeros(0, np.int64)
    others = np.setdiff1d(held_out_contexts(len(read)), scored) if predicts else np.zeros(0, np.int64)
    at_once = batch_tokens(max(units.count(layer) for layer in units.layers))
    with_logits = min(at_once, max(1, _LOGITS_AT_ONCE // int(model.bridge.cfg.d_vocab)))
    sums, tokens = np.zeros(len(read)), np.zeros(len(read), np.int64)
    with progress.task("held-out text", total=len(scored) + len(others), unit="contexts") as advance:
        for batch in read.batches(with_logits, scored):
            sums[batch], tokens[batch] = text.losses(batch)
            advance(len(batch))
        for batch in read.batches(at_once, others):
            text.count(batch)
            advance(len(batch))
    write_loss(folder, loss_of(sums[scored], tokens[scored]))
    for layer in text.predictors.values():
        layer.write()


class _HeldOutText:
    """Runs the model over contexts, each of which is counted if it is held out."""

    def __init__(self, units: Units, read: Contexts, device: str) -> None:
        self._units, self._read, self._device = units, read, device
        self._head = int(read.bos is not None)
        self.predictors: dict[int, LayerPredictors] = {}

    def count(self, batch: Numbers) -> None:
        """Run held-out contexts of one length for the predictors."""
        text = self._read.stack(batch)
        self._units.run(self._on_device(text), self._visit(text, np.arange(len(batch)), self._read.special_in(batch)))

    def losses(self, batch: Numbers) -> tuple[NDArray[np.float64], int | Numbers]:
        """The same of any contexts, to the logits: each one's summed cross-entropy, and over how many tokens."""
        text = self._read.stack(batch)
        on_device = self._on_device(text)
        held_out = np.flatnonzero(is_held_out(batch))
        special = self._read.special_in(batch)
        logits = self._units.run_to_logits(on_device, self._visit(text, held_out, special))
        if special is None:
            return context_losses(logits, on_device), text.shape[1] - 1
        counted = ~special[:, 1 - self._head :]  # of the tokens that have another before them
        return context_losses(logits, on_device, torch.from_numpy(counted)), counted.sum(axis=1)

    def _on_device(self, text: Numbers) -> Tensor:
        return torch.from_numpy(text).to(self._device)

    def _visit(self, text: Numbers, held_out: Numbers, special: NDArray[np.bool_] | None) -> ActivationHook:
        """What counts a layer's activations on those contexts of a batch that are held out."""
        order = TextOrder(text[held_out, self._head :], None if special is None else ~special[held_out])
        rows = slice(None) if len(held_out) == len(text) else torch.from_numpy(held_out)

        def visit(layer: int, _: Tensor, activations: Tensor) -> None:
            if self.predictors and len(held_out):
                self.predictors[layer].count(order, activations[rows, self._head :])

        return visit
