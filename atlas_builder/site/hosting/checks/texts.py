"""Labels and examples in the search index, compared with records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from atlas_builder.corpus.characters import split_at
from atlas_builder.records.schema import Record
from atlas_builder.site import in_words
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.search.index import BLOCK, read_index_file

_GAPS = re.compile(r"\s+")
# At an end of a record's text a character may be cut that search shows whole, where the window is very short.
_FIRST_BYTES = re.compile(r"\A(?:<0x[0-9A-F]{2}>)+")
_LAST_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+\Z")
_EDGE = 12  # characters at an end of a text that may be a part of a character or of a gap


def text_problems(site: PublishedSite, record: Record) -> Iterator[str]:
    """Where the texts that search shows of a unit's behaviours differ from its record."""
    for behaviour in record["behaviours"]:
        number = site.numbers[record["id"], behaviour["id"]]
        what = f"search/x{number // BLOCK}.js: the text of {record['id']}, behaviour {behaviour['id']}, is not"
        texts = _block(site.folder, number // BLOCK, site.run)
        label, before, token, after, *words = texts[number % BLOCK]
        if label != behaviour["label"]:
            yield f"{what} its label"
            continue
        if words != in_words.searched(site.explanations, record["id"], behaviour["id"]):
            yield f"{what} with its explanations"
        example = record["examples"][behaviour["central"]]
        lead, key, rest = split_at(example["tokens"], example["key"])
        if token != key and "<0x" not in key:
            yield f"{what} that of its central example"
        elif not (_agree(_FIRST_BYTES.sub("", lead)[::-1], before[::-1]) and _agree(_LAST_BYTES.sub("", rest), after)):
            yield f"{what} that around its central example"


@lru_cache(maxsize=8)
def _block(folder: Path, number: int, run: str) -> list[Any]:
    given, texts = read_index_file(folder / "search" / f"x{number}.js")
    if given != number:
        raise ValueError(f"it is number {given}")
    return list(texts)


def _agree(one: str, other: str) -> bool:
    """Whether two texts begin equally, gaps aside, as far as both go; where the first ends, characters may be cut."""
    one, other = (_GAPS.sub("", text) for text in (one, other))
    if len(other) <= len(one):
        return one.startswith(other)
    shared = max(0, len(one) - _EDGE)
    return one[:shared] == other[:shared]
