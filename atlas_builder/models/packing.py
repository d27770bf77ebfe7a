"""Rows of tokens that hold ends of several texts side by side, and places of rows that alone are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """What each token of some rows sees, where that is not simply all before it in its row."""

    places: Tensor
    """The place in its own text of each cached token and of each token after these: (rows or 1, cached + tokens)."""
    visible: Tensor
    """Which of these each token sees, itself among them: (rows or 1, tokens, cached + tokens), bool."""

    @classmethod
    def plain(cls, tokens: int, device: torch.device) -> Packing:
        """Of texts as they are, all alike: each token sees those before it."""
        places = torch.arange(tokens, device=device)
        return cls(places[None], (places[:, None] >= places)[None])

    @property
    def positions(self) -> Tensor:
        """The places of the tokens that follow the cached ones: (rows, tokens)."""
        return self.places[:, -self.visible.shape[1] :]

    def mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """What is added to attention scores: 0, or the type's least number: (rows, 1, tokens, cached + tokens).

        With a `window`, a token sees itself and those fewer than so many places before it.
        """
        visible = self.visible
        if window is not None:
            visible = visible & (self.positions[:, :, None] - self.places[:, None] < window)
        hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=visible.device)
        return torch.where(visible, torch.zeros_like(hidden), hidden)[:, None]


@dataclass(frozen=True)
class Rows:
    """How rows of tokens are run, where that is not each a text of its own that is wanted whole."""

    cache: Any = None
    """A transformers cache of keys and values, which is extended; the tokens are those that follow the cached ones."""
    packing: Packing | None = None
    """What the tokens of ends of several texts see; a model may not obey it."""
    at: Tensor | None = None
    """The places that are wanted of each row: (rows, k)."""


PLAIN = Rows()


def at_places(tensor: Tensor, at: Tensor | None) -> Tensor:
    """Of (rows, tokens, …) those at the places (rows, k) of each row: (rows, k, …); all without places.

    What holds as many tokens as there are places holds these alone, and is returned as it is.
    """
    if at is None or tensor.shape[1] == at.shape[1]:
        return tensor
    return tensor[torch.arange(len(at), device=at.device)[:, None], at]
