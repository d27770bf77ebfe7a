"""Which of a unit's examples its record has to show, and how much of the text around each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import SiteSettings
from atlas_builder.rerun.passes import Text

_SAME_TEXT = 6  # tokens up to the key token by which two examples are the same text
_RARE_BEFORE, _RARE_AFTER = 0.4, 0.3  # the shares of the tokens around others that a rare behaviour's example shows
_AROUND_OF_A_BAND = (5, 2)


class Key(NamedTuple):
    """The place of a key token."""

    context: int
    position: int


class KeyFinder:
    """Finds the token at a place in a document, among contexts in the order of documents."""

    def __init__(self, text: Text) -> None:
        self._contexts = text.contexts
        self._starts = [(document, offset) for document, offset, _ in text.contexts]

    def find(self, document: int, position: int) -> Key | None:
        """The key token at a position in a document; None where the text has no such token."""
        number = bisect_right(self._starts, (document, position)) - 1
        if number < 0:
            return None
        its, offset, tokens = self._contexts[number]
        return Key(number, position - offset) if its == document and position - offset < len(tokens) else None


def lead(text: Text, key: Key) -> tuple[int, ...]:
    """The last tokens up to a key token."""
    tokens = text.contexts[key.context][2]
    return tuple(tokens[max(0, key.position + 1 - _SAME_TEXT) : key.position + 1])


def spread(keys: Sequence[Key], most: int, text: Text, first: Key | None = None) -> list[Key]:
    """At most so many examples of different text, given by falling activation, evenly from all; `first` comes first."""
    met = {lead(text, first)} if first else set()
    different: list[Key] = []
    for key in keys:
        if (words := lead(text, key)) not in met:
            met.add(words)
            different.append(key)
    head = int(first is not None)
    room, last = max(0, most - head), len(different) - 1
    if len(different) > room:
        steps = max(1, room - 1)
        different = [different[round(head + step * last / steps) - head] for step in range(room)]
    return [first, *different] if first else different


def per_main(site: SiteSettings, mains: int, rare: int) -> int:
    """The most examples that a main behaviour shows."""
    return min(
        site.examples_per_behaviour, max(site.examples_at_least, (site.examples_per_unit - rare) // max(1, mains))
    )


def around(site: SiteSettings, window: tuple[int, int], kind: str) -> tuple[int, int]:
    """How many tokens are shown before and after the key token of an example: of a `band`, a `rare` one, or another."""
    if kind == "band":
        return min(_AROUND_OF_A_BAND[0], window[0]), min(_AROUND_OF_A_BAND[1], window[1])
    before, after = min(site.tokens_before, window[0]), min(site.tokens_after, window[1])
    return (int(_RARE_BEFORE * before), int(_RARE_AFTER * after)) if kind == "rare" else (before, after)


def are_main(sizes: Sequence[int], examples: int) -> list[bool]:
    """Which behaviours hold a twentieth of the examples of their side."""
    return [20 * size >= examples for size in sizes]


def token_at(text: Text, key: Key) -> int:
    """The id of a key token."""
    return text.contexts[key.context][2][key.position]


def window(text: Text, key: Key, before: int, after: int) -> tuple[int, list[int]]:
    """The place of the first token shown in its context, and the tokens."""
    tokens = text.contexts[key.context][2]
    first = max(0, key.position - before)
    return first, tokens[first : key.position + after + 1]


def whole_window(text: Text, key: Key, before: int, after: int, most: tuple[int, int] | None = None) -> tuple[int, int]:
    """How many tokens before and after a key token make a window of so many, its ends at borders of characters.

    It reaches out to the next border, beyond `most` tokens not; where the border lies there, it draws back.
    """
    begins = text.begins[key.context] if text.begins else [True] * len(text.contexts[key.context][2])
    low, high = (most[0], most[1]) if most else (len(begins), len(begins))
    borders = [place for place, begin in enumerate(begins) if begin or not place] + [len(begins)]
    first, last = max(0, key.position - before), min(len(begins), key.position + after + 1)
    outer = max(place for place in borders if place <= first)
    if outer < max(0, key.position - low):
        outer = min((place for place in borders if first <= place <= key.position), default=key.position)
    end = min(place for place in borders if place >= last)
    if end > min(len(begins), key.position + high + 1):
        end = max((place for place in borders if key.position < place <= last), default=key.position + 1)
    return key.position - outer, end - key.position - 1


def activations(text: Text, values: NDArray[np.float32], context: int) -> NDArray[np.float32]:
    """A unit's activations in a context, of those at every token."""
    return values[int(text.starts[context]) : int(text.starts[context + 1])]
