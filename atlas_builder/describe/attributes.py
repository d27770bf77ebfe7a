"""What holds at a token of the corpus: the tokens that lead up to it, and what its document is.

A token attribute holds where the token is among the last ones up to the place, itself included, within its
context; tokens that read alike, case and surrounding space aside, are one. A document attribute holds
where a field of the document has one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.results import Collected
from atlas_builder.describe.novelty import reads_like
from atlas_builder.describe.token_shares import window_tokens

Attribute = int | tuple[str, str]
"""A token, by its place in `Collected.texts_read`, or a field of documents and its value."""


class AttributeTable(NamedTuple):
    """Which attributes hold at some places of the corpus."""

    named: list[Attribute]
    """Tokens first, by number of their reading, then document attributes in order."""
    holds: NDArray[np.bool_]
    """(places, attributes)."""


@dataclass(frozen=True)
class Attributes:
    """The attributes of places of a corpus."""

    collected: Collected
    before: int
    """Tokens looked at before each place."""

    @cached_property
    def _fields(self) -> Sequence[Mapping[str, str]]:
        """Those of each document; none where no document has any."""
        fields = self.collected.contexts.attributes
        return fields if any(fields) else ()

    @cached_property
    def _reading(self) -> NDArray[np.int64]:
        return reads_like(self.collected.texts_read)

    def at(
        self, context: NDArray[np.int32], position: NDArray[np.int32], compared: NDArray[np.bool_], least: int
    ) -> AttributeTable:
        """Attributes that hold at `least` of the `compared` places or more, and fail at as many: (places,) all."""
        tokens = self._tokens(context, position, compared, least)
        documents = self._documents(context)
        holds = np.concatenate([tokens.holds, documents.holds], axis=1) if documents.named else tokens.holds
        having = holds[compared].sum(axis=0)
        kept = np.flatnonzero((having >= least) & (np.count_nonzero(compared) - having >= least))
        named = [*tokens.named, *documents.named]
        return AttributeTable([named[place] for place in kept.tolist()], holds[:, kept])

    def _tokens(
        self, context: NDArray[np.int32], position: NDArray[np.int32], compared: NDArray[np.bool_], least: int
    ) -> AttributeTable:
        """The readings that come `least` times or more in the windows of the places compared.

        Each is named by the spelling that these windows have most often.
        """
        corpus = self.collected.contexts
        tokens = window_tokens(self.collected.reads, corpus.starts, context, position, self.before, 0)
        seen = np.zeros(len(self._reading) + 1, np.bool_)  # the last is −1, where there is no token
        seen[tokens] = True
        spellings = np.flatnonzero(seen[:-1])
        numbers = np.empty(len(seen), np.int32)
        numbers[spellings], numbers[-1] = np.arange(len(spellings)), len(spellings)
        spelling = numbers[tokens]
        often = np.bincount(spelling[compared].reshape(-1), minlength=len(spellings))[: len(spellings)]
        reading = self._reading[spellings]
        readings, place = np.unique(reading, return_inverse=True)
        kept = np.flatnonzero(np.bincount(place, often, len(readings)) >= least)
        column = np.full(len(readings) + 1, len(kept))  # what is not kept shares a last column, as no token does
        column[kept] = np.arange(len(kept))
        holds = np.zeros((len(tokens), len(kept) + 1), np.bool_)
        holds[np.arange(len(tokens))[:, None], column[np.append(place, len(readings))][spelling]] = True
        by_frequency = np.lexsort((spellings, -often, reading))
        first = by_frequency[np.searchsorted(reading[by_frequency], readings[kept])]
        return AttributeTable(list(spellings[first].tolist()), holds[:, :-1])

    def _documents(self, context: NDArray[np.int32]) -> AttributeTable:
        fields = self._fields
        if not fields:
            return AttributeTable([], np.zeros((len(context), 0), np.bool_))
        documents, place = np.unique(self.collected.contexts.document[context], return_inverse=True)
        of_documents = [set(fields[document].items()) for document in documents.tolist()]
        named = sorted(set().union(*of_documents))
        holds = np.array([[one in its for one in named] for its in of_documents], np.bool_)
        return AttributeTable(list(named), holds.reshape(len(documents), len(named))[place.reshape(-1)])
