"""How well a model predicts the text of its atlas, so that atlases of several models can be compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from atlas_builder.describe.token_scores import held_out_contexts

CONTEXTS = 512
"""Most contexts on which the loss is measured."""
_LEFT_OUT = -100  # the target that cross-entropy passes over
LEAST_CONTEXTS = 16
"""Fewest, where the corpus has as many: from fewer, a standard error says little."""


class Loss(NamedTuple):
    """Mean cross-entropy in nats a token."""

    nats: float
    tokens: int
    """On how many tokens."""
    error: float | None
    """Standard error of `nats` over contexts; None with fewer than two."""


def loss_contexts(contexts: int) -> NDArray[np.int64]:
    """The contexts on which the loss is measured, by the number of all contexts alone: ascending.

    Those that are held out from the token predictors, which run anyway, or 512 of them where there are more; where
    there are fewer than 16, 16 of all contexts, or all. What is left out is left out evenly over the corpus.
    """
    held_out = held_out_contexts(contexts)
    if len(held_out) >= LEAST_CONTEXTS:
        return held_out[_evenly(len(held_out), CONTEXTS)]
    return _evenly(contexts, LEAST_CONTEXTS)


def _evenly(number: int, most: int) -> NDArray[np.int64]:
    """At most so many of a number of places, spread evenly, the first and the last among them."""
    return np.unique(np.linspace(0, number - 1, most).astype(np.int64)) if number else np.zeros(0, np.int64)


def context_losses(logits: Tensor, text: Tensor, counted: Tensor | None = None) -> NDArray[np.float64]:
    """The summed cross-entropy of each context's tokens that have another before them: (contexts,).

    `logits` (contexts, context, vocabulary) of the tokens of `text`, (contexts, context), the beginning-of-sequence
    token included where there is one. Of the tokens behind the first, those alone that are `counted`, (contexts,
    context − 1), where it is given.
    """
    if counted is not None:
        text = text.clone()
        text[:, 1:][~counted.to(text.device)] = _LEFT_OUT
    sums = [  # context by context, so that what is computed on the way stays in reused memory
        functional.cross_entropy(row[:-1].float(), tokens[1:], reduction="sum")
        for row, tokens in zip(logits, text, strict=True)
    ]
    return torch.stack(sums).double().cpu().numpy()


def loss_of(sums: NDArray[np.float64], tokens: NDArray[np.int64]) -> Loss | None:
    """The loss from the summed cross-entropy and the number of tokens of each context; None without a token.

    Σ s_c / Σ n_c, and its standard error as the ratio of two sums over m contexts taken for a random sample of the
    text (Cochran 1977, chapter 6, without the correction for a finite one): √(m / (m − 1) Σ (s_c − L n_c)²) / Σ n_c.
    """
    sums, tokens = sums[tokens > 0], tokens[tokens > 0]
    if not len(tokens):
        return None
    total = int(tokens.sum())
    nats = float(sums.sum()) / total
    count = len(tokens)
    squares = float(np.square(sums - nats * tokens).sum())
    return Loss(nats, total, (count / (count - 1) * squares) ** 0.5 / total if count > 1 else None)
