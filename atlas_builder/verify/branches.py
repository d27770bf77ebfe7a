"""Examples pruned and augmented again for token graphs, by running the model on cut texts.

Pruned, an example is its shortest text up to the key token at whose end half of its activation is left. What it
needs there are the key token and the tokens of importance above 0.75. The key token and the three most important
others give way, one at a time, to the four tokens nearest in the input embeddings; one with which the unit still
fires is as good as what it stands for.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.rerun.passes import Reader
from atlas_builder.verify.examples import Importance, slack_of_importance
from atlas_builder.verify.shown import Key
from atlas_builder.verify.unit import UnitCase

_FIRES = 0.5  # of the extreme; as much of an example's activation is kept
_NEEDED = 0.75  # the importance of tokens that are needed
_SUBSTITUTED, _SUBSTITUTES = 4, 4  # tokens of an example that give way, and those that each gives way to
_ROUNDING = 1e-6  # of a cosine of embeddings, which are read and not computed
_LIKELY = 64  # tokens whose cosines are computed exactly


class FoundBranch(NamedTuple):
    """What an example needs, from its key token backwards."""

    places: tuple[tuple[int, ...], ...]
    """Of each place its token, then substitutes; nothing for any one token."""
    value: float
    """Its activation as a share of the unit's extreme of its sign."""
    unsure: bool
    """Whether another run may find another branch."""


class NearTokens:
    """The tokens nearest to others by cosine in a model's input embeddings; special tokens are near to none."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[int, tuple[list[int], bool]] = {}

    def of(self, token: int) -> tuple[list[int], bool]:
        """Those nearest to a token, the nearest first, and whether another run may find others or another order."""
        if token not in self._known:
            cosines = self._embeddings @ self._embeddings[token]
            barred = {token, *self._reader.tokenizer.all_special_ids}
            likely = [other for other in np.argsort(-cosines).tolist() if other not in barred][:_LIKELY]
            exact = {other: self._cosine(token, other) for other in likely}
            order = sorted(likely, key=lambda other: (-exact[other], other))[: _SUBSTITUTES + 1]
            unsure = any(exact[one] - exact[other] <= _ROUNDING for one, other in pairwise(order))
            self._known[token] = order[:_SUBSTITUTES], unsure
        return self._known[token]

    def _cosine(self, one: int, other: int) -> float:
        a, b = (self._embeddings[token].astype(np.float64) for token in (one, other))
        return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        """Each of length 1: (vocabulary, width)."""
        embeddings = self._reader.weights.embeddings
        sizes: NDArray[np.float32] = np.linalg.norm(embeddings, axis=1, keepdims=True)
        scaled: NDArray[np.float32] = (embeddings / np.maximum(sizes, np.float32(1e-12))).astype(np.float32)
        return scaled


class BranchFinder:
    """Prunes and augments the examples of a unit; equal texts run once."""

    def __init__(self, case: UnitCase, reader: Reader, near: NearTokens) -> None:
        self._case, self._reader, self._near = case, reader, near
        self._known: dict[tuple[int, ...], float] = {}

    def branch(self, key: Key, importance: Importance) -> FoundBranch:
        """The branch of an example, of which the importance of tokens up to the key token is given."""
        own = self._case.activation(key)
        extreme = float(self._case.counted.max() if own > 0 else self._case.counted.min())
        slack = slack_of_importance(self._case, key)
        kept, unsure = self._kept(key, own, len(importance), slack)
        of_kept = dict(enumerate(importance[::-1][:kept].tolist()))  # by how far before the key token
        needed = [back for back in range(1, kept) if of_kept[back] > _NEEDED]
        unsure |= any(abs(of_kept[back] - _NEEDED) <= slack for back in range(1, kept))
        ranked = sorted(needed, key=lambda back: (-of_kept[back], back))
        last = ranked[_SUBSTITUTED - 2 : _SUBSTITUTED]
        unsure |= len(last) == 2 and 0 < of_kept[last[0]] - of_kept[last[1]] <= slack
        fires = own / extreme >= _FIRES
        unsure |= abs(own / extreme - _FIRES) <= slack
        text, end = self._text(key, kept), kept - 1
        places: list[tuple[int, ...]] = [()] * (max([0, *needed]) + 1)
        for back in [0, *needed]:
            places[back] = (text[end - back],)
        tried: list[tuple[int, int]] = []
        for back in [0, *ranked[: _SUBSTITUTED - 1]]:
            tokens, hangs = self._near.of(text[end - back])
            unsure |= hangs
            tried += [(back, token) for token in tokens]
        changed = [[*text[: end - back], token, *text[end - back + 1 :]] for back, token in tried]
        for (back, token), value in zip(tried, self._activations(changed, end), strict=True):
            share = value / (extreme if fires else own)
            unsure |= abs(share - _FIRES) <= slack
            if share >= _FIRES:
                places[back] += (token,)
        return FoundBranch(tuple(places), own / extreme, unsure)

    def _kept(self, key: Key, own: float, most: int, slack: float) -> tuple[int, bool]:
        """How many tokens up to the key token are kept, and whether another run may keep another number."""
        unsure = False
        for kept in range(1, most):
            share = self._activations([self._text(key, kept)], kept - 1)[0] / own
            unsure |= abs(share - _FIRES) <= slack
            if share >= _FIRES:
                return kept, unsure
        return most, unsure

    def _text(self, key: Key, kept: int) -> list[int]:
        """A context from the first of so many tokens up to the key token; a model that reads both ways has the rest."""
        tokens = self._case.text.contexts[key.context][2]
        return tokens[key.position + 1 - kept : key.position + 1 if self._reader.is_causal else len(tokens)]

    def _activations(self, texts: list[list[int]], place: int) -> list[float]:
        """Those at a place of texts of one length."""
        asked = [(place, *text) for text in texts]
        if new := [one for one in dict.fromkeys(asked) if one not in self._known]:
            values = self._reader.at([list(text) for _, *text in new], place, self._case.layer, self._case.unit)
            self._known |= dict(zip(new, values.tolist(), strict=True))
        return [self._known[one] for one in asked]
