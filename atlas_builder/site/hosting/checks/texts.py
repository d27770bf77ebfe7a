"""Labels and examples in the search index, compared with records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from atlas_builder.corpus.token_text import join_bytes
from atlas_builder.records.schema import Record
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.search.index import BLOCK, read_index_file

_SPACES = re.compile(" {2,}")
_EDGE = 12  # characters at an end of a text that may be a part of a character or of a gap


def text_problems(site: PublishedSite, record: Record) -> Iterator[str]:
    """Where the texts that search shows of a unit's behaviours differ from its record."""
    for behaviour in record["behaviours"]:
        number = site.numbers[record["id"], behaviour["id"]]
        what = f"search/x{number // BLOCK}.js: the text of {record['id']}, behaviour {behaviour['id']}, is not"
        texts = _block(site.folder, number // BLOCK)
        label, before, token, after = texts[number % BLOCK] if number % BLOCK < len(texts) else [None] * 4
        if label != behaviour["label"]:
            yield f"{what} its label"
            continue
        example = record["examples"][behaviour["central"]]
        key, tokens = example["key"], example["tokens"]
        if token != tokens[key]:
            yield f"{what} that of its central example"
        elif not _agree(_joined(tokens[:key])[::-1], before[::-1]) or not _agree(_joined(tokens[key + 1 :]), after):
            yield f"{what} that around its central example"


@lru_cache(maxsize=8)
def _block(folder: Path, number: int) -> list[Any]:
    given, texts = read_index_file(folder / "search" / f"x{number}.js")
    if given != number:
        raise ValueError(f"it is number {given}")
    return list(texts)


def _joined(tokens: list[str]) -> str:
    return _SPACES.sub(" ", join_bytes("".join(tokens)))


def _agree(one: str, other: str) -> bool:
    """Whether two texts begin equally, as far as both go; their last characters do not count."""
    shared = min(len(one), len(other))
    if shared == len(other):  # what search shows ends where a word does
        return one.startswith(other)
    return one[: max(0, shared - _EDGE)] == other[: max(0, shared - _EDGE)]
