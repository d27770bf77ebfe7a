"""Output neurons: the logits of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atlas_builder.errors import ModelError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.units.base import ActivationHook, StopForwardPass, logits_with_hooks, run_with_hooks

_PLACE = "unembed.hook_in"


class LogitUnits:
    """A unit is a token of the vocabulary: its activation is the token's logit less the mean over the vocabulary.

    Logits are what the unembedding computes, before any scale or soft cap. Softmax does not see
    their mean; without it, the input weights are the token's column of the unembedding less the
    mean column, so that input ⊙ input weights adds up to the activation, but for the bias. The
    units are those of one layer after the model's last, in the order of `tokens`. They write
    nothing. Raises `ModelError` for a model that predicts no next token.
    """

    kind = "logits"
    activation = "linear"

    def __init__(self, bridge: Any, tokens: Sequence[int], *, is_causal: bool = True) -> None:
        head = _unembedding(bridge) if is_causal else None
        if head is None or _PLACE not in bridge.hook_dict:
            raise ModelError(
                f"units.kind: a model of this architecture ({bridge.cfg.architecture}) has no unembedding that "
                "predicts the next token: choose another kind of units."
            )
        self._bridge = bridge
        self.layers = [int(bridge.cfg.n_layers)]
        self.tokens = list(tokens)
        weight, bias = head
        chosen = torch.tensor(self.tokens, device=weight.device)
        self._weights = weight[chosen].float() - weight.mean(dim=0, dtype=torch.float32)  # (units, d_model)
        self._bias = None if bias is None else bias[chosen].float() - bias.mean(dtype=torch.float32)

    def count(self, layer: int) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def has_negative(self, layer: int) -> bool:
        """No examples are of contexts where a token is least expected."""
        return False

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on (batch, context) tokens up to its unembedding, of which only the units' part is computed."""
        run_with_hooks(self._bridge, tokens, [self._hook(visit, rows.at)], rows, self.layers[0] - 1)

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on (batch, context) tokens, visiting the layer: (batch, context, vocabulary)."""
        return logits_with_hooks(self._bridge, tokens, [self._hook(visit)])

    def _hook(self, visit: ActivationHook, at: Tensor | None = None) -> tuple[str, Any]:
        """The place before the unembedding, and what visits the layer there and stops the run."""

        def show(tensor: Tensor, hook: Any) -> None:
            inputs = at_places(tensor, at).float()
            activations = inputs @ self._weights.T
            visit(self.layers[0], inputs, activations if self._bias is None else activations + self._bias)
            raise StopForwardPass

        return _PLACE, show

    def read_weights(self, layer: int) -> Tensor:
        """Columns of the unembedding less the mean column: (1, units, d_model)."""
        return as_float32(self._weights)[None]

    def write_weights(self, layer: int) -> None:
        """None: logits are added to nothing."""
        return


def _unembedding(bridge: Any) -> tuple[Tensor, Tensor | None] | None:
    """Weights (vocabulary, d_model) and bias (vocabulary,) of a model's unembedding, as the model has them."""
    find = getattr(bridge.original_model, "get_output_embeddings", None)
    head: Any = find() if find is not None else None
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if weight is None or weight.ndim != 2 or weight.shape[0] != int(bridge.cfg.d_vocab):
        return None
    return weight.detach(), None if bias is None else bias.detach()
