"""A short text run before and after TransformerLens takes a model apart, which must not change what it computes.

TransformerLens computes attention of some architectures anew; where it departs from the model, every
number of an atlas would be of another model. Comparing costs two passes over a few tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas_builder.errors import ModelError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.precision import epsilon
from atlas_builder.models.wording import named

_TOKENS = 12
_STRIDE = 7919  # a prime, so that the tokens are of the whole vocabulary


class Probe:
    """What a model of transformers computes from some tokens, kept for a comparison."""

    def __init__(self) -> None:
        self._logits: Tensor | None = None

    def record(self, model: Any) -> None:
        """Run the model as transformers loaded it; one that cannot be run on tokens alone is not compared."""
        try:
            with torch.inference_mode():
                logits = model(input_ids=_tokens(model.config.get_text_config().vocab_size, model)).logits
        except Exception:  # models raise many kinds; trying units out says what cannot be run
            return
        self._logits = as_float32(logits)

    def check(self, bridge: Any, folder: Path) -> None:
        """Compare with the bridge of the same model; raises `ModelError` where it computes something else.

        The largest logits may differ by the square root of the precision's machine epsilon: rounding
        adds up to much less, another computation to much more.
        """
        if self._logits is None or not self._logits.isfinite().all():
            return
        weight = next(iter(bridge.original_model.parameters()))
        with torch.inference_mode():
            logits = as_float32(bridge(_tokens(int(bridge.cfg.d_vocab), bridge.original_model)))
        if logits.shape != self._logits.shape:
            return  # as where a vocabulary is padded
        apart = float((logits - self._logits).abs().max() / self._logits.abs().max().clamp(min=1e-9))
        if not apart <= epsilon(weight.dtype) ** 0.5:
            raise ModelError(
                f"model {named(folder)}: TransformerLens computes something else than the model itself (its logits are "
                f"{apart:.0%} off), so an atlas would be wrong: choose another model."
            )


def _tokens(vocabulary: int, model: Any) -> Tensor:
    """Some tokens of the vocabulary, (1, tokens), where the model is."""
    device = next(iter(model.parameters())).device
    return (torch.arange(1, _TOKENS + 1, device=device) * _STRIDE % vocabulary)[None]
