"""The search index: shards sorted by word, loaded by script tags, so that it works from a folder.

`search/index.js` names the first word of every shard; a query loads the shards its
words can be in, then the labels of the layers it found something in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

_SHARD_BYTES = 64_000
_MOST_POSTINGS = 400
# What Python and what JavaScript call space differ; both sides take off either's.
_ENDS = re.compile(r"^[\s\ufeff]+|[\s\ufeff]+$")


class Posting(NamedTuple):
    """A behaviour found under a word; `weight` in thousandths of the behaviour."""

    layer: int
    unit: int
    behaviour: int
    weight: int


def search_key(word: str) -> str:
    """What a word is looked up by: trimmed and in lower case, never empty.

    `themes/atlas/assets/search.js` does the same to what a reader types.
    """
    core = _ENDS.sub("", word).lower()
    if core:
        return core
    return "↵" if "\n" in word else "␣"


def postings(entries: Iterable[tuple[str, Posting]]) -> dict[str, list[Posting]]:
    """Gather entries by key, weightiest first; a behaviour stands once under a key, at its largest weight."""
    gathered: dict[str, dict[tuple[int, int, int], int]] = {}
    for word, posting in entries:
        behaviours = gathered.setdefault(search_key(word), {})
        where = posting[:3]
        behaviours[where] = max(behaviours.get(where, 0), posting.weight)
    return {
        key: sorted((Posting(*where, weight) for where, weight in gathered[key].items()), key=_by_weight)
        for key in sorted(gathered)
    }


def _by_weight(posting: Posting) -> tuple[int, ...]:
    return (-posting.weight, *posting[:3])


def write(folder: Path, found: dict[str, list[Posting]], labels: dict[int, Sequence[Sequence[str]]]) -> None:
    """Write the index: `labels` holds, for each layer, the labels of each unit's behaviours."""
    folder.mkdir(parents=True, exist_ok=True)
    firsts: list[str] = []
    shard: list[bytes] = []
    size = 0

    def flush() -> None:
        nonlocal shard, size
        # A list of pairs: as an object's key, a token like __proto__ would do more than be found.
        body = b"[" + b",\n".join(shard) + b"]"
        (folder / f"s{len(firsts) - 1}.js").write_bytes(b"atlasShard(%d," % (len(firsts) - 1) + body + b");\n")
        shard, size = [], 0

    for key, entries in found.items():
        flat = [number for posting in entries[:_MOST_POSTINGS] for number in posting]
        line = orjson.dumps([key, [len(entries), *flat]])
        if not shard:
            firsts.append(key)
        shard.append(line)
        size += len(line)
        if size >= _SHARD_BYTES:
            flush()
    if shard:
        flush()
    for layer, units in labels.items():
        (folder / f"l{layer}.js").write_bytes(b"atlasLabels(%d," % layer + orjson.dumps(units) + b");\n")
    index = {"layers": [[layer, len(units)] for layer, units in labels.items()], "shards": firsts}
    (folder / "index.js").write_bytes(b"atlasIndex(" + orjson.dumps(index) + b");\n")
