"""Layers made for associations: a text of numbered words, and what `collect` would draw of given activations."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.results import Collected, draw_type
from atlas_builder.corpus.contexts import write_contexts
from atlas_builder.corpus.documents import Document

QUANTILES = [0, 0.5, 0.9, 0.99, 0.999, 1]
CONTEXT = 32


def text_of_words(words: int, tokens: int, rare: Mapping[int, float], seed: int = 0) -> NDArray[np.int64]:
    """Random words, (contexts, CONTEXT), of which `rare` ones have a share of their own."""
    chance = np.random.default_rng(seed)
    text = chance.integers(len(rare), words, tokens)
    for word, share in rare.items():
        text[chance.random(tokens) < share] = word
    return text[: tokens // CONTEXT * CONTEXT].reshape(-1, CONTEXT)


def lately(text: NDArray[np.int64], word: int, before: int = 20) -> NDArray[np.bool_]:
    """Whether a word is at each place or one of those before it in its context."""
    found = np.zeros(text.shape, np.bool_)
    for place in range(CONTEXT):
        found[:, place] = (text[:, max(0, place - before) : place + 1] == word).any(axis=1)
    return found


def slow_draws(values: NDArray[np.float32], most: int, lowest: float = 0.0) -> np.ndarray:
    """The first `most` tokens, in random order, of those at least as active as some value, of one unit after the other.

    `values` are (units, contexts, CONTEXT); only those above `lowest` count.
    """
    rows = []
    for unit, of_unit in enumerate(values):
        flat = of_unit.reshape(-1)
        above: list[float] = []
        for place in np.random.default_rng(unit).permutation(len(flat)).tolist():
            if not flat[place] > lowest:
                continue
            at = bisect_left(above, float(flat[place]))
            if len(above) - at < most:
                above.insert(at, float(flat[place]))
                rows.append((unit, flat[place], place // CONTEXT, place % CONTEXT))
    return np.array(rows, draw_type)


def write_layer(
    folder: Path,
    texts: Sequence[str],
    text: NDArray[np.int64],
    values: NDArray[np.float32],
    fields: Sequence[Mapping[str, str]] = (),
) -> Collected:
    """A collect folder of one layer, as far as associations read it; a document a context, with its `fields`."""
    documents = [Document(str(number), str(number), fields[number] if fields else {}) for number in range(len(text))]

    def encode(names: list[str]) -> list[list[int]]:
        return [text[int(name)].tolist() for name in names]

    write_contexts(documents, encode, folder / "contexts", context=CONTEXT, bos=None)
    (folder / "facts.json").write_text(json.dumps({"layers_read": [0], "kind": "mlp"}), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    (folder / "L0").mkdir()
    edges = np.array([[0, *np.quantile(unit[unit > 0], QUANTILES[1:])] for unit in values.reshape(len(values), -1)])
    edges[:, -1] = values.reshape(len(values), -1).max(axis=1)
    np.save(folder / "L0" / "band_edges.npy", edges)
    np.save(folder / "L0" / "starts.npy", np.zeros(len(values) + 1, np.int64))
    np.save(folder / "L0" / "draws.npy", slow_draws(values, most=256))
    return Collected(folder)
