"""How well a model predicts the text of its atlas, so that atlases of several models can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from atlas_builder.corpus.contexts import Contexts
from atlas_builder.models.memory import BATCH_TOKENS
from atlas_builder.progress import Progress

if TYPE_CHECKING:
    from atlas_builder.models.language_model import LanguageModel

CONTEXTS = 512
"""Contexts used, spread evenly over the corpus."""
_LOGITS_AT_ONCE = 2**25


class Loss(NamedTuple):
    """Mean cross-entropy in nats a token, and the number of tokens."""

    nats: float
    tokens: int


def measure_loss(model: LanguageModel, contexts: Contexts, device: str, progress: Progress) -> Loss | None:
    """The loss of a model on `CONTEXTS` contexts of its atlas; None where no token has one before it.

    None, too, for a model that reads in both directions, which has no such loss. Every token counts
    that has another before it, the beginning-of-sequence token included.
    """
    if not model.is_causal:
        return None
    chosen = np.unique(np.linspace(0, len(contexts) - 1, CONTEXTS).astype(np.int64))
    at_once = min(BATCH_TOKENS, max(1, _LOGITS_AT_ONCE // int(model.bridge.cfg.d_vocab)))
    total, tokens = 0.0, 0
    with progress.task("loss", total=len(chosen), unit="contexts") as advance:
        for batch in contexts.batches(at_once):
            if len(numbers := batch[np.isin(batch, chosen)]):
                text = torch.from_numpy(contexts.stack(numbers)).to(device)
                with torch.inference_mode():
                    logits = model.bridge(text)[:, :-1].float().flatten(0, 1)
                    total += float(functional.cross_entropy(logits, text[:, 1:].flatten(), reduction="sum"))
                tokens += len(logits)
                advance(len(numbers))
    return Loss(total / tokens, tokens) if tokens else None
