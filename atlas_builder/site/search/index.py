"""The search index: files that scripts load by tags when a query needs them, so that it works from a folder.

index.js     layers, how many behaviours each unit has, the first word of every shard, names of output neurons
s{n}.js      a shard: words in order, each with the behaviours that respond to it and that show it
x{n}.js      label, example and explanations of `BLOCK` behaviours
l{layer}.js  the labels of a layer's units
units.js     two measures of every unit, for filters
words.js     every word that a behaviour responds to, for patterns
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from atlas_builder.records.stages import Stages
from atlas_builder.rounding import significant
from atlas_builder.site.in_words import SaidFile
from atlas_builder.site.names import token_names
from atlas_builder.site.search.postings import Entry, LayerWords, Postings, gather, written

BLOCK = 32
"""Behaviours of one `x{n}.js`."""
STEPS_A_DECADE = 20
"""Steps to which densities are rounded for filters: to within 6 %."""

_SHARD_BYTES = 32_000
_WORDS_TO_TRY = 6
_HALF = 1 << 32


class Queries(NamedTuple):
    """Searches to suggest: words that many behaviours respond to almost exclusively, and a phrase of two words."""

    words: list[str]
    phrase: str | None


def write_index(
    folder: Path, stages: Stages, window: tuple[int, int], executor: Executor, said: SaidFile | None = None
) -> Queries:
    """Write the index; the texts stay within `window` tokens before and after a key token.

    `said` are the explanations whose words find behaviours too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layers = [layer.layer for layer in stages.collected.layers]
    tasks = [executor.submit(gather, stages, layer, window, said) for layer in layers]
    parts = dict(zip(layers, (task.result() for task in tasks), strict=True))
    postings = Postings(list(parts.values()))
    entries = list(postings.entries())
    shards = list(_shards(entries))
    for number, shard in enumerate(shards):
        _write(folder / f"s{number}.js", "Atlas.shard", number, [_row(entry) for entry in shard])
    texts = [text for part in parts.values() for text in part.texts]
    for number, first in enumerate(range(0, len(texts), BLOCK)):
        _write(folder / f"x{number}.js", "Atlas.texts", number, texts[first : first + BLOCK])
    for layer, part in parts.items():
        _write(folder / f"l{layer}.js", "Atlas.labels", layer, part.labels)
    _write(folder / "units.js", "Atlas.units", _columns(stages))
    matched = [entry for entry in entries if entry.responding]
    names = {} if stages.output_tokens is None else {"tokens": token_names(stages.output_tokens)}
    words, counts = [entry.word for entry in matched], _text(entry.responding for entry in matched)
    _write(folder / "words.js", "Atlas.words", words, counts)
    _write(folder / "index.js", "Atlas.index", {**_index(parts, shards), **names})
    return Queries(_characteristic(matched), _phrase(postings))


def index_files(index: Mapping[str, Any]) -> Iterator[str]:
    """The names of all files of an index, given what its `index.js` holds."""
    yield from ("index.js", "units.js", "words.js")
    yield from (f"s{number}.js" for number in range(len(index["shards"])))
    yield from (f"l{layer}.js" for layer, _, _ in index["layers"])
    yield from (f"x{number}.js" for number in range(math.ceil(index["behaviours"] / index["block"])))


def read_index_file(path: Path) -> list[Any]:
    """The values that a file of the index passes to its function; `ValueError` or `OSError` where it cannot be read."""
    text = path.read_bytes()
    values: list[Any] = orjson.loads(b"[" + text[text.index(b"(") + 1 : text.rindex(b")")] + b"]")
    return values


def _write(path: Path, callback: str, *values: Any) -> None:
    # A file calls a function of the page, since scripts of a folder may read no other file.
    path.write_bytes(callback.encode() + b"(" + b",".join(map(orjson.dumps, values)) + b");\n")


def _index(parts: Mapping[int, LayerWords], shards: Sequence[Sequence[Entry]]) -> dict[str, Any]:
    """What every query needs: the behaviours of each unit, which number them, and the first word of each shard."""
    layers = [[layer, len(part.labels), _text(len(unit) for unit in part.labels)] for layer, part in parts.items()]
    total = sum(len(part.texts) for part in parts.values())
    return {
        "layers": layers,
        "behaviours": total,
        "block": BLOCK,
        "shards": [shard[0].word for shard in shards],
        # Whether a token can be two words: if none is, no query looks for one.
        "spaced": any(" " in entry.word for shard in shards for entry in shard),
    }


def _shards(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Runs of words whose postings fill a file."""
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        row_bytes = len(orjson.dumps(_row(entry)))
        if shard and size + row_bytes > _SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += row_bytes
    if shard:
        yield shard


def _row(entry: Entry) -> list[str | int]:
    """A word in its shard: a list, since `__proto__` as an object's key would set its prototype."""
    left_out = [entry.responding, entry.showing] if entry.cut else []
    return [entry.word, entry.who, entry.shares, entry.where, entry.offsets, *left_out]


def _columns(stages: Stages) -> dict[str, list[Any]]:
    """For each measure its values, the most common first, and the index among them of every unit's.

    Both are of positive activations. Effective numbers are kept to two digits, densities to one
    of twenty steps a decade, so that the file is small: whoever filters by 0.0123 filters
    by 0.0126, which 0.0119 to 0.0133 count as.
    """
    effective = [layer.clustered.measures["effective_behaviours"][:, 0] for layer in stages.layers]
    density = np.concatenate([layer.collected.moments.density for layer in stages.layers])
    steps = np.rint(STEPS_A_DECADE * np.log10(density, out=np.full(len(density), -np.inf), where=density > 0))
    return {
        "effective": _column([significant(float(value), 2) for value in np.concatenate(effective)]),
        "density": _column([significant(float(value), 3) for value in 10 ** (steps / STEPS_A_DECADE)]),
    }


def _column(values: Sequence[float | None]) -> list[Any]:
    distinct, inverse, counts = np.unique(
        np.array([math.nan if value is None else value for value in values]), return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return [[significant(value) for value in distinct[order].tolist()], _text(place[inverse].tolist())]


def _text(numbers: Iterable[int]) -> str:
    return written(np.fromiter(numbers, dtype=np.int64))[0]


def _characteristic(entries: Iterable[Entry]) -> list[str]:
    """Whole words of the corpus that are half or more of many behaviours, and rare in the texts of others."""
    words = [
        entry for entry in entries if len(entry.word) > 3 and entry.word.isalpha() and entry.showing > entry.strong > 0
    ]
    words.sort(key=lambda entry: (-(entry.strong**2) / entry.showing, entry.word))
    return [entry.word for entry in words[:_WORDS_TO_TRY]]


def _phrase(postings: Postings) -> str | None:
    """The two words of letters that most often follow each other."""
    word, behaviour, offset = postings.shown.T
    letters = np.array([len(word) > 1 and word.isalpha() for word in postings.words], dtype=bool)
    following = (np.diff(behaviour) == 0) & (np.diff(offset) == 1) & letters[word[:-1]] & letters[word[1:]]
    pairs, counts = np.unique(word[:-1][following] * _HALF + word[1:][following], return_counts=True)
    if not len(pairs):
        return None
    return " ".join(postings.words[place] for place in divmod(int(pairs[counts.argmax()]), _HALF))
