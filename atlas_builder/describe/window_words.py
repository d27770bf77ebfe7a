"""The words of many windows of a text at once, as numbers: what `scenes.scene` says of each.

In text of ASCII the words of a window are those of the text, cut at the window's ends, so that the text is split once
and a window is a matter of places. Windows with any other text, in which a word may rest on what is around it, are
split one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.windows import Windows
from atlas_builder.describe.scenes import ASCII_WORD, Scene, named_word, scene, shown_word
from atlas_builder.describe.terms import Numbers, first_of_each

PIECES = 4
"""A piece is numbered `PIECES` · text + 2 · whether the word goes on before it + whether it does after."""
SPECIAL = "\n"
"""What the words of a window have in place of a chat template's own tokens."""
_SEPARATORS = frozenset("\x1c\x1d\x1e\x1f")  # space to `str.strip`, but to no pattern for ASCII


class WindowWords(NamedTuple):
    """The words of windows, numbered by place in `texts`; −1 where there is none."""

    texts: list[str]
    """Each word once, in the order of strings."""
    key: Numbers
    """The word of the key token: (windows,)."""
    piece: Numbers
    """The key token within it, numbered with `PIECES`: (windows,)."""
    before: Numbers
    """The word before: (windows,)."""
    around: Numbers
    """All words with a letter or a digit, those of a window in a row, each once."""
    starts: Numbers
    """Where those of each window begin in `around`, and the end: (windows + 1,)."""

    @classmethod
    def of_scenes(cls, scenes: Sequence[Scene]) -> WindowWords:
        """Of windows that were split one by one."""
        return _Words().of(np.zeros(0, np.int64), _no_columns(0), np.arange(len(scenes)), scenes)

    @classmethod
    def of_windows(
        cls,
        tokens: NDArray[np.int32],
        texts: Sequence[str],
        windows: Windows,
        special: NDArray[np.bool_] | None = None,
    ) -> WindowWords:
        """Of windows of a text, of which only the tokens in them are read; `texts` are those of the vocabulary.

        In place of tokens that are `special`, where it is given, a line ends.
        """
        if special is not None:
            texts = [*texts, SPECIAL]
        words, text = _Words(), _Text(tokens, texts, windows, special)
        plain = np.flatnonzero(text.is_plain)
        columns = text.columns(words, plain)
        others = np.flatnonzero(~text.is_plain)
        spans = zip(
            windows.first[others].tolist(), windows.last[others].tolist(), windows.key[others].tolist(), strict=True
        )
        scenes = [
            scene([texts[token] for token in _shown(tokens, slice(first, last), special).tolist()], key - first)
            for first, last, key in spans
        ]
        return words.of(plain, columns, others, scenes)


class _Columns(NamedTuple):
    """`WindowWords` of some windows, before words are in order; each word `around` with the place of its window."""

    key: Numbers
    piece: Numbers
    before: Numbers
    around: Numbers
    window: Numbers


def _no_columns(windows: int) -> _Columns:
    none = np.full(windows, -1)
    return _Columns(none, none, none, none[:0], none[:0])


class _Words:
    """Numbers words as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbered(self, words: Iterable[str]) -> Numbers:
        """Their numbers, −1 where there is none: of what is empty."""
        numbers = self._numbers
        return np.array([numbers.setdefault(word, len(numbers)) if word else -1 for word in words], np.int64)

    def of(self, plain: Numbers, columns: _Columns, others: Numbers, scenes: Sequence[Scene]) -> WindowWords:
        """All windows, given the places of those of ASCII text and their columns, and of the others and these."""
        count = len(plain) + len(others)
        key, piece, before = np.full((3, count), -1)
        key[plain], piece[plain], before[plain] = columns.key, columns.piece, columns.before
        key[others] = self.numbered(one.key for one in scenes)
        goes_on = np.array([2 * one.piece.before + one.piece.after for one in scenes], np.int64)
        text = self.numbered(one.piece.text for one in scenes)
        piece[others] = np.where(text < 0, -1, PIECES * text + goes_on)
        before[others] = self.numbered(one.before for one in scenes)
        around = np.concatenate([columns.around, self.numbered(word for one in scenes for word in one.around)])
        owner = np.concatenate(
            [plain[columns.window], np.repeat(others, np.array([len(one.around) for one in scenes], np.int64))]
        )
        texts = sorted(self._numbers)
        rank = np.empty(len(texts) + 1, np.int64)
        rank[[self._numbers[text] for text in texts]], rank[-1] = np.arange(len(texts)), -1
        codes = np.sort(owner * (len(texts) + 1) + rank[around])
        owner, around = np.divmod(codes[first_of_each(codes)], len(texts) + 1)
        ranked = np.where(piece < 0, -1, PIECES * rank[piece // PIECES] + piece % PIECES)
        starts = np.searchsorted(owner, np.arange(count + 1))
        return WindowWords(texts, rank[key], ranked, rank[before], around, starts)


class _Text:
    """The text of all tokens that are in a window, and its words, by place of the character."""

    def __init__(
        self, tokens: NDArray[np.int32], texts: Sequence[str], windows: Windows, special: NDArray[np.bool_] | None
    ) -> None:
        read, self._first, self._last, self._key = _read_once(tokens, windows, special)
        ids, token = np.unique(read, return_inverse=True)
        own = [texts[one] for one in ids.tolist()]
        is_plain = [bool(one) and one.isascii() and "<0x" not in one and _SEPARATORS.isdisjoint(one) for one in own]
        own = [one if plain else "" for one, plain in zip(own, is_plain, strict=True)]
        odd = np.cumsum(np.append(0, ~np.array(is_plain, np.bool_)[token]))
        self.is_plain: NDArray[np.bool_] = odd[self._last] == odd[self._first]
        """Whether each window is of ASCII text alone: (windows,)."""
        # Within each token, where what is not space begins and ends; of space alone, its first character.
        lead = np.array([len(one) - len(one.lstrip()) if one.strip() else 0 for one in own], np.int64)
        core_end = np.array([len(one.rstrip()) or 1 for one in own], np.int64)
        place = np.cumsum(np.append(0, np.array([len(one) for one in own], np.int64)[token]))
        self._place, self._lead, self._core_end, self._token = place, lead, core_end, token
        self._text = "".join([own[one] for one in token.tolist()])
        self._words: list[str] = ASCII_WORD.findall(self._text)
        sizes = np.array([len(word) for word in self._words], np.int64)
        self._ends = np.cumsum(sizes)
        self._begins = self._ends - sizes
        self._word = np.repeat(np.arange(len(sizes)), sizes)  # of each character

    def columns(self, words: _Words, chosen: Numbers) -> _Columns:
        """The words of some windows, all of them plain."""
        if not len(chosen):
            return _no_columns(0)
        low, high = self._place[self._first[chosen]], self._place[self._last[chosen]]
        key = self._key[chosen]
        target = self._place[key] + self._lead[self._token[key]]
        core_end = self._place[key] + self._core_end[self._token[key]]
        word = self._word[target]
        begin, end = np.maximum(self._begins[word], low), np.minimum(self._ends[word], high)
        is_space = np.array([one.isspace() for one in self._words], np.bool_)
        key_word = self._numbered(words, begin, end)
        core = self._numbered(words, target, np.minimum(core_end, end))
        piece = PIECES * core + 2 * (begin < target) + (core_end < end)
        piece = np.where(is_space[word], PIECES * key_word, piece)
        earlier = word - 1 - is_space[word - 1]  # two neighbouring words are never both space
        has_earlier = (earlier >= 0) & (earlier >= self._word[low])
        before = np.full(len(chosen), -1)
        at = np.where(has_earlier, earlier, 0)
        before[has_earlier] = self._numbered(words, np.maximum(self._begins[at], low), self._ends[at])[has_earlier]
        return _Columns(key_word, piece, before, *self._around(words, low, high))

    def _around(self, words: _Words, low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
        """The words with a letter or a digit of each window, from character to character, and whose they are."""
        first, last = self._word[low], self._word[high - 1]
        named = words.numbered(named_word(word) for word in self._words)
        places = np.flatnonzero(named >= 0)
        begin, end = np.searchsorted(places, first + 1), np.searchsorted(places, last)
        counts = np.maximum(end - begin, 0)  # those that are whole
        inner = np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        window = np.arange(len(low))
        edges = [
            self._numbered(words, low, np.minimum(self._ends[first], high), named=True),
            self._numbered(words, np.maximum(self._begins[last], low), high, named=True),
        ]
        around = np.concatenate([named[places[inner]], *edges])
        owner = np.concatenate([np.repeat(window, counts), window, window])
        return around[around >= 0], owner[around >= 0]

    def _numbered(self, words: _Words, begin: Numbers, end: Numbers, *, named: bool = False) -> Numbers:
        """The words from character to character, as labels show them; of words around those that are `named`."""
        spans, place = np.unique(begin << 32 | end, return_inverse=True)
        lows, highs = (spans >> 32).tolist(), (spans & 0xFFFFFFFF).tolist()
        shown = named_word if named else shown_word
        of_spans = words.numbered(shown(self._text[low:high]) for low, high in zip(lows, highs, strict=True))
        return np.asarray(of_spans[place])


def _shown(tokens: NDArray[np.int32], places: slice | Numbers, special: NDArray[np.bool_] | None) -> NDArray[np.int32]:
    """Tokens at some places; −1, the last of the texts, in place of special ones."""
    return np.asarray(tokens[places] if special is None else np.where(special[places], -1, tokens[places]))


def _read_once(
    tokens: NDArray[np.int32], windows: Windows, special: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int32], Numbers, Numbers, Numbers]:
    """The tokens in any window, once, and where windows begin and end and have their key tokens among them."""
    order = np.argsort(windows.first, kind="stable")
    first, last = windows.first[order], np.maximum.accumulate(windows.last[order])
    is_new = np.ones(len(first), np.bool_)
    is_new[1:] = first[1:] > last[:-1]
    begins = first[is_new]
    ends = last[np.append(np.flatnonzero(is_new)[1:], len(last)) - 1] if len(last) else last
    sizes = ends - begins
    shift = begins - (np.cumsum(sizes) - sizes)
    read = _shown(tokens, np.repeat(shift, sizes) + np.arange(sizes.sum()), special)
    of_window = np.empty(len(first), np.int64)
    of_window[order] = shift[np.cumsum(is_new) - 1]
    return read, windows.first - of_window, windows.last - of_window, windows.key - of_window
