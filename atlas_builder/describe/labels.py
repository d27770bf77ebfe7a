"""A short label for each behaviour, from the words of its examples (class-based TF-IDF, Grootendorst 2022).

A class is a behaviour, a term a word. With f(t, c) the share of behaviour c's examples
that contain word t and n(t) the number of the N behaviours of the layer that contain it at
all, a word's score is f(t, c) · ln(1 + N / n(t)): high for words common in this behaviour
and rare in the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import regex

from atlas_builder.corpus.token_text import join_bytes

_Item = TypeVar("_Item", bound=Hashable)
_WORD = regex.compile(r"[\w\p{M}]+|[^\w\p{M}\s]+|\n\s*|\s+")
_SHARE_OF_A_KEY = 0.2
_SHARE_OF_A_PART = 0.4
_SHARE_OF_A_CUE = 0.4
_SHARE_OF_A_THEME = 0.3
_WORDS = 3
_WORDS_KEPT = 8
_LONGEST = 24


class Piece(NamedTuple):
    """The key token within its word: its text, and whether the word goes on before and after it."""

    text: str
    before: bool = False
    after: bool = False


class Scene(NamedTuple):
    """The words of one example: that of the key token, its `piece`, the word before, and all words around."""

    key: str
    piece: Piece
    before: str
    around: frozenset[str]


def scene(tokens: Sequence[str], key: int) -> Scene:
    """Split an example's window into words; `key` is the key token's place in it.

    The key word is the whole word that contains the key token, so that a label
    reads `kind` where the token is `nd`.
    """
    lead, token = join_bytes("".join(tokens[:key])), tokens[key]
    start = len(lead)
    # A token belongs to the word of its first visible character: " kind" to "kind".
    target = start + (len(token) - len(token.lstrip()) if token.strip() else 0)
    text = lead + token + join_bytes("".join(tokens[key + 1 :]))
    end = start + len(token.rstrip()) if token.strip() else target + 1
    key_word, piece, before = "", Piece(""), ""
    around: set[str] = set()
    for match in _WORD.finditer(text):
        word = match.group()
        visible = _visible(word)
        if match.start() <= target < match.end():
            key_word = visible
            core = text[target : min(end, match.end())]
            piece = Piece(core, match.start() < target, end < match.end()) if word.strip() else Piece(visible)
        elif not key_word and word.strip():
            before = visible
        if word.strip() and any(character.isalnum() for character in word):
            around.add(visible)
    return Scene(key_word, piece._replace(text=piece.text[:_LONGEST]), before, frozenset(around))


def _visible(word: str) -> str:
    """A word as a label shows it, never empty: ␣ for space, ↵ for line ends."""
    if not word.strip():
        return "↵" if "\n" in word else "␣"
    return word[:_LONGEST]


class Wording(NamedTuple):
    """A behaviour in words: its label, and its commonest key words with their shares of its examples."""

    label: str
    words: list[tuple[str, float]]


def describe_words(behaviours: Sequence[Sequence[Scene]]) -> list[Wording]:
    """A label for each behaviour of a layer, given its examples, and its commonest key words.

    The label lists the key words, `and, for`; where they differ but share the part that is
    the key token, that part first, `“ed” in wanted, started`; where both differ but the word
    before is the same, `after import`; where only surrounding words are shared, `near x, y`.
    """
    keys = [_shares(scene.key for scene in scenes if scene.key) for scenes in behaviours]
    pieces = [_shares(scene.piece for scene in scenes if scene.piece.text) for scenes in behaviours]
    befores = [_shares(scene.before for scene in scenes if scene.before) for scenes in behaviours]
    arounds = [_document_shares(scenes) for scenes in behaviours]
    key_rarity, around_rarity = _rarity(keys), _rarity(arounds)
    return [
        Wording(_label(key, piece, before, around, key_rarity, around_rarity), _commonest(key))
        for key, piece, before, around in zip(keys, pieces, befores, arounds, strict=True)
    ]


def _commonest(shares: dict[str, float]) -> list[tuple[str, float]]:
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return ranked[:_WORDS_KEPT]


def _label(
    key: dict[str, float],
    piece: dict[Piece, float],
    before: dict[str, float],
    around: dict[str, float],
    key_rarity: dict[str, float],
    around_rarity: dict[str, float],
) -> str:
    part, share = max(piece.items(), key=lambda item: (item[1], item[0]), default=(Piece(""), 0.0))
    common = max(key.values(), default=0)
    if (part.before or part.after) and share >= _SHARE_OF_A_PART and common < share / 2:
        return f"“{part.text}” in {', '.join(_best(key, key_rarity)[:2])}"
    if common >= _SHARE_OF_A_KEY:
        return ", ".join(_best(key, key_rarity))
    cue = max(before.items(), key=lambda item: (item[1], item[0]), default=("", 0.0))
    if cue[0] and cue[1] >= _SHARE_OF_A_CUE:
        return f"after {cue[0]}"
    near = _best({word: share for word, share in around.items() if share >= _SHARE_OF_A_THEME}, around_rarity)
    return f"near {', '.join(near)}" if near else ", ".join(_best(key, key_rarity))


def _best(shares: dict[str, float], rarity: dict[str, float]) -> list[str]:
    """The words of the highest score, down to a quarter of the best; of spellings that differ in case only, one."""
    ranked = sorted(
        ((share * rarity[word], word) for word, share in shares.items()), key=lambda pair: (-pair[0], pair[1])
    )
    chosen: dict[str, str] = {}
    for score, word in ranked:
        if len(chosen) == _WORDS or score < ranked[0][0] / 4:
            break
        chosen.setdefault(word.casefold(), word)
    return list(chosen.values())


def _shares(items: Iterable[_Item]) -> dict[_Item, float]:
    counts = Counter(items)
    total = sum(counts.values())
    return {item: count / total for item, count in counts.items()}


def _document_shares(scenes: Sequence[Scene]) -> dict[str, float]:
    counts = Counter(word for scene in scenes for word in scene.around)
    return {word: count / len(scenes) for word, count in counts.items()}


def _rarity(classes: Sequence[dict[str, float]]) -> dict[str, float]:
    seen = Counter(word for shares in classes for word in shares)
    return {word: math.log1p(len(classes) / count) for word, count in seen.items()}
