"""Which behaviours respond to a word, and which show it: gathered layer by layer, in a compact encoding.

A behaviour is a number, counted through the atlas in the order of layer, unit and id, as
in `Links.address`. Numbers are variable-length quantities as in source maps, without a
sign: base 64, five bits a character, the lowest first, the sixth bit set where more follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.progress import gc_paused
from atlas_builder.records.stages import Stages
from atlas_builder.site.in_words import SaidFile
from atlas_builder.site.search.normalise import pieces, same, search_key
from atlas_builder.site.search.snippets import MIDDLE, Snippet, snippet

MAX_POSTINGS = 32_768
"""Postings kept of one word and kind: those of the largest shares, or nearest to the key token."""

_BITS, _BITS_OF_THIRD = 26, 10  # of a behaviour's number; of a share in thousandths or an offset
_LABEL_FORMS = re.compile(
    r"(?:(?:after|near) (.+?)|“(.+)” in (.*?)|(.*?))(?: \((?:after|near) (.+)\))?", re.DOTALL
)  # what is not in a group is not from the corpus
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_DIGITS = np.frombuffer(DIGITS.encode(), dtype=np.uint8)
_VALUES = np.zeros(128, dtype=np.int64)
_VALUES[_DIGITS] = np.arange(64)

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class LayerWords:
    """What search needs of one layer; behaviours count from the layer's first, words by their place in `words`."""

    labels: list[list[str]]
    """The labels of each unit's behaviours."""
    texts: list[tuple[Any, ...]]
    """Of each behaviour its label, and its central example: the text before the key token, the token, and after; and
    its explanations, where there are any."""
    words: list[str]
    responses: Numbers
    """Word, behaviour, share in thousandths: (responses, 3). A share of 0: it is in the label or in words only."""
    shown: Numbers
    """Word, behaviour, offset from the key token's word plus `MIDDLE`: (words of all texts, 3)."""


def gather(stages: Stages, layer: int, window: tuple[int, int], explained: SaidFile | None = None) -> LayerWords:
    """Read what search needs of one layer; texts stay within `window` tokens before and after the key token."""
    _, clustered, described = stages.layer(layer)
    words: dict[str, int] = {}
    labels: list[list[str]] = [[] for _ in clustered.measures]
    with gc_paused():
        said: list[list[list[list[str]]]] = []
        for unit, behaviour in zip(clustered.behaviours["unit"].tolist(), described.behaviours, strict=True):
            labels[unit].append(behaviour["label"])
            said.append(explained.searched(layer, unit, len(labels[unit])) if explained else [])
        snippets = _snippets(stages, layer, clustered.behaviours["central"], window)
        return LayerWords(
            labels=labels,
            texts=[
                (each["label"], *part[:3], *more)
                for each, part, more in zip(described.behaviours, snippets, said, strict=True)
            ],
            responses=_responses(described.behaviours, stages.collected.texts_read, words, said),
            shown=_shown(snippets, words),
            words=list(words),
        )


def _snippets(stages: Stages, layer: int, central: NDArray[np.int64], window: tuple[int, int]) -> list[Snippet]:
    """The text around the key token of each behaviour's central example."""
    collected, texts = stages.collected, stages.collected.token_texts
    contexts, (before, after) = collected.contexts, window
    examples = next(each for each in collected.layers if each.layer == layer).examples[central]
    context, position = examples["context"], examples["position"]
    whole = contexts.windows(context, position, before, after).whole(contexts.begins)
    tokens = np.asarray(contexts.tokens)
    columns = (whole.first, whole.last, whole.key - whole.first, whole.first == whole.start, whole.last == whole.end)
    return [
        snippet([texts[token] for token in tokens[first:last].tolist()], key, from_start=starts, to_end=ends)
        for first, last, key, starts, ends in zip(*(column.tolist() for column in columns), strict=True)
    ]


class _Places(dict[str, int]):
    """Places in a list of words, by the word as it stands, so that each spelling is normalised once."""

    def __init__(self, words: dict[str, int], normal: Callable[[str], str]) -> None:
        super().__init__()
        self.words, self.normal = words, normal

    def __missing__(self, word: str) -> int:
        place = self[word] = self.words.setdefault(self.normal(word), len(self.words))
        return place


def _responses(
    described: Sequence[dict[str, Any]],
    token_texts: Sequence[str],
    words: dict[str, int],
    said: Sequence[list[list[list[str]]]],
) -> Numbers:
    """Tokens and key words of each behaviour, and other words of its label and of what was said of it.

    As in `LayerWords.responses`.
    """
    places, of_labels = _Places(words, search_key), _Places(words, same)
    spelt = [[word for word, _ in behaviour["words"]] for behaviour in described]
    tokens = [[token_texts[token] for token, _ in behaviour["tokens"]] for behaviour in described]
    labels = [
        _words_of_label(behaviour["label"]) + [word for one in chain.from_iterable(more) for word in _words_of(one[0])]
        for behaviour, more in zip(described, said, strict=True)
    ]
    shares = [share for name in ("words", "tokens") for behaviour in described for _, share in behaviour[name]]
    word = [normal[word] for normal, lists in ((places, spelt), (places, tokens), (of_labels, labels))
            for word in chain.from_iterable(lists)]  # fmt: skip
    number = np.concatenate([np.repeat(np.arange(len(described)), list(map(len, x))) for x in (spelt, tokens, labels)])
    thousandths = np.zeros(len(word), dtype=np.int64)
    thousandths[: len(shares)] = np.maximum(1, np.rint(1000 * np.array(shares)))
    # A behaviour stands once under a word, at its largest share.
    rows = _sorted(np.stack([np.array(word, dtype=np.int64), number, thousandths], axis=1))
    last = (np.diff(rows[0], append=-1) != 0) | (np.diff(rows[1], append=-1) != 0)
    responses: Numbers = np.stack(rows, axis=1)[last]
    return responses


def _words_of_label(label: str) -> list[str]:
    form = _LABEL_FORMS.fullmatch(label)
    return _words_of(" ".join(filter(None, form.groups() if form else [label])))


def _words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in pieces(text) if text[start].isalnum() or text[start] == "_"]


def _shown(snippets: Sequence[Snippet], words: dict[str, int]) -> Numbers:
    """The words of each behaviour's text, as in `LayerWords.shown`."""
    places = _Places(words, same)
    flat: list[int] = []
    for part in snippets:
        flat.extend(map(places.__getitem__, part.words))
    counts = np.array([len(part.words) for part in snippets], dtype=np.int64)
    number = np.repeat(np.arange(len(snippets)), counts)
    first = np.array([part.first for part in snippets], dtype=np.int64) - np.cumsum(counts) + counts
    return np.stack([np.array(flat, dtype=np.int64), number, first[number] + np.arange(len(number))], axis=1)


class Entry(NamedTuple):
    """A word: its postings as text, and how many there are."""

    word: str
    who: str
    """Behaviours that respond to it, rising, as steps."""
    shares: str
    """Its share of each, in thousandths."""
    where: str
    """Behaviours whose text has it, rising, as steps; 0 where a text has it again."""
    offsets: str
    """Its offset at each of these, one digit each."""
    responding: int
    """Behaviours of which it is a part."""
    showing: int
    """Behaviours whose text has it."""
    strong: int
    """Behaviours of which it is half or more."""
    cut: bool
    """Whether postings are left out."""


class Postings:
    """The postings of all layers."""

    def __init__(self, parts: Sequence[LayerWords]) -> None:
        self.words = sorted(set().union(*(part.words for part in parts)))
        place = {word: number for number, word in enumerate(self.words)}
        responses: list[Numbers] = []
        shown: list[Numbers] = []
        first = 0
        for part in parts:
            there = np.array([place[word] for word in part.words], dtype=np.int64)
            for rows, gathered in ((part.responses, responses), (part.shown, shown)):
                gathered.append(np.stack([there[rows[:, 0]], rows[:, 1] + first, rows[:, 2]], axis=1))
            first += len(part.texts)
        self.responses, self.shown = np.concatenate(responses), np.concatenate(shown)

    def entries(self) -> Iterator[Entry]:
        """Every word with its postings, in the order of the words."""
        count = len(self.words)
        word, share = self.responses[:, 0], self.responses[:, 2]
        responding, strong = (np.bincount(word[share >= limit], minlength=count) for limit in (1, 500))
        word, behaviour, share = _kept(_sorted(self.responses), lambda shares: -shares)
        columns = [_Written(word, count, _steps(word, behaviour)), _Written(word, count, share)]
        shown = _sorted(self.shown)
        again = (np.diff(shown[0], prepend=-1) == 0) & (np.diff(shown[1], prepend=-1) == 0)
        showing = np.bincount(shown[0][~again], minlength=count)
        word, behaviour, offset = _kept(shown, lambda offsets: np.abs(offsets - MIDDLE))
        columns += [_Written(word, count, _steps(word, behaviour)), _Written(word, count, offset, of_one=True)]
        postings = np.maximum(*(np.bincount(rows[:, 0], minlength=count) for rows in (self.responses, self.shown)))
        cut = postings > MAX_POSTINGS
        totals = zip(responding.tolist(), showing.tolist(), strong.tolist(), cut.tolist(), strict=True)
        for number, (text, counts) in enumerate(zip(self.words, totals, strict=True)):
            who, shares, where, offsets = (column[number] for column in columns)
            yield Entry(text, who, shares, where, offsets, *counts)


def _sorted(rows: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The columns of (postings, 3), by word, behaviour and third."""
    # As one number each, which sorts ten times as fast as three.
    packed = (rows[:, 0] << _BITS | rows[:, 1]) << _BITS_OF_THIRD | rows[:, 2]
    packed.sort()
    pairs = packed >> _BITS_OF_THIRD
    return pairs >> _BITS, pairs & (1 << _BITS) - 1, packed & (1 << _BITS_OF_THIRD) - 1


def _kept(
    columns: tuple[Numbers, Numbers, Numbers], rank: Callable[[Numbers], Numbers]
) -> tuple[Numbers, Numbers, Numbers]:
    """Of each word the `MAX_POSTINGS` postings whose third has the lowest rank."""
    word, _, third = columns
    keep = np.ones(len(word), dtype=np.bool_)
    for frequent in np.flatnonzero(np.bincount(word) > MAX_POSTINGS):
        run = slice(*np.searchsorted(word, [frequent, frequent + 1]))
        keep[run] = False
        keep[run.start + np.argsort(rank(third[run]), kind="stable")[:MAX_POSTINGS]] = True
    return columns if keep.all() else (word[keep], columns[1][keep], third[keep])


def _steps(word: Numbers, values: Numbers) -> Numbers:
    """Rising values of each word as the steps between them, the first from zero: (postings,)."""
    steps = np.diff(values, prepend=0)
    first = np.diff(word, prepend=-1) != 0
    steps[first] = values[first]
    return steps


class _Written:
    """The numbers of each word as text, `of_one` digit each or as many as they need."""

    def __init__(self, word: Numbers, count: int, numbers: Numbers, *, of_one: bool = False) -> None:
        bounds = np.searchsorted(word, np.arange(count + 1))
        if of_one:
            self._text = _DIGITS[numbers].tobytes().decode("ascii")
        else:
            self._text, ends = written(numbers)
            bounds = np.concatenate([[0], ends])[bounds]
        self._bounds = bounds.tolist()

    def __getitem__(self, word: int) -> str:
        return self._text[self._bounds[word] : self._bounds[word + 1]]


def written(numbers: Numbers) -> tuple[str, Numbers]:
    """Non-negative numbers as digits, and where those of each number end: (numbers,)."""
    places = np.ones(len(numbers), dtype=np.int64)  # digits of each
    while (more := numbers >> 5 * places > 0).any():
        places += more
    ends = np.cumsum(places)
    out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(int(places.max(initial=0))):
        there = places > place
        digit = numbers[there] >> 5 * place & 31 | (places[there] > place + 1) << 5
        out[(ends - places)[there] + place] = _DIGITS[digit]
    return out.tobytes().decode("ascii"), ends


def read_back(text: str) -> list[int]:
    """The numbers that `written` wrote."""
    numbers, value, shift = list[int](), 0, 0
    for character in text.encode("ascii"):
        digit = int(_VALUES[character])
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            numbers.append(value)
            value = shift = 0
    return numbers
