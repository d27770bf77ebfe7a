"""The search index: its files against each other, and against the tables and the texts that it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas_builder.records.rows import read_rows
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.search.index import BLOCK, index_files, read_index_file
from atlas_builder.site.search.normalise import pieces, same, search_key
from atlas_builder.site.search.postings import DIGITS, read_back
from atlas_builder.site.search.snippets import MIDDLE
from atlas_builder.site.summary import Summary

Postings = dict[str, dict[int, int]]
"""Of each word, its shares in thousandths by behaviour."""
Places = dict[str, set[tuple[int, int]]]
"""Of each word, the behaviours whose text has it, and its offset there."""


def index_problems(site: PublishedSite, summaries: Sequence[Summary]) -> list[str]:
    """What is wrong with the search index; `summaries` are of all units, else only its files are counted."""
    search = site.folder / "search"
    try:
        (content,) = read_index_file(search / "index.js")
        names = list(index_files(content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"search/index.js: cannot be read ({error})"]
    problems = [f"search/{name} is missing" for name in names if not (search / name).is_file()]
    if problems:
        return problems
    found: list[str] = []
    try:
        found += _counts(site, content)
        if len(summaries) == len(site.units):
            found += _units(search, summaries)
            found += _labels(search, summaries)
        found += _words(site, content)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        found.append(f"search: cannot be read ({type(error).__name__}: {error})")
    return found


def _counts(site: PublishedSite, content: Mapping[str, Any]) -> Iterator[str]:
    """The behaviours of each unit, by layer."""
    counts = dict.fromkeys(site.units, 0)
    for (identity, _), _ in site.labels.items():
        _, layer, unit = identity.rsplit("/", 2)
        counts[int(layer[1:]), int(unit[1:])] += 1
    expected = [
        [layer["layer"], layer["units"], [counts[layer["layer"], unit] for unit in range(layer["units"])]]
        for layer in site.facts["layers"]
    ]
    if [[layer, units, read_back(text)] for layer, units, text in content["layers"]] != expected:
        yield "search/index.js: its units or their behaviours are not those of the atlas"
    if content.get("tokens") != site.pages.names.tokens:
        yield "search/index.js: its tokens are not those of the atlas"
    if content["behaviours"] != len(site.labels) or content["block"] != BLOCK:
        yield f"search/index.js: it counts {content['behaviours']:,} behaviours, the tables {len(site.labels):,}"


def _labels(search: Path, summaries: Sequence[Summary]) -> Iterator[str]:
    by_layer: dict[int, list[list[str]]] = {}
    for unit in summaries:
        by_layer.setdefault(unit.layer, []).append(unit.labels)
    for layer, labels in by_layer.items():
        if read_index_file(search / f"l{layer}.js") != [layer, labels]:
            yield f"search/l{layer}.js: its labels are not those of the records"


def _units(search: Path, summaries: Sequence[Summary]) -> Iterator[str]:
    """The two measures for filters, which are rounded more than in records."""
    (columns,) = read_index_file(search / "units.js")
    for name, measure, digits in (("effective", "effective_behaviours", 0.051), ("density", "density", 0.07)):
        values, places = columns[name]
        shown = [values[place] for place in read_back(places)]
        if len(shown) != len(summaries):
            yield f"search/units.js: it has {name} of {len(shown):,} of {len(summaries):,} units"
            continue
        for unit, value in zip(summaries, shown, strict=True):
            exact = unit.measures[measure] or 0.0
            # Of two digits, half a unit of the second; of twenty steps a decade, half a step.
            slack = (
                digits * (10 ** math.floor(math.log10(exact)) if name == "effective" else exact) if exact > 0 else 0.0
            )
            if abs((value or 0.0) - exact) > slack:
                yield f"search/units.js: {name} of {unit.name} is not that of its record"


def _words(site: PublishedSite, content: Mapping[str, Any]) -> Iterator[str]:
    """Postings: in order, of behaviours that there are, and those that texts and tables give."""
    search, behaviours = site.folder / "search", len(site.labels)
    shares: Postings = {}
    places: Places = {}
    cut: set[str] = set()
    counts: list[tuple[str, int]] = []
    before = ""
    for number, first in enumerate(content["shards"]):
        given, rows = read_index_file(search / f"s{number}.js")
        if given != number or not rows or rows[0][0] != first:
            yield f"search/s{number}.js: it is not the shard that search/index.js names"
        for word, *parts in rows:
            if before and word <= before:
                yield f"search/s{number}.js: {word!r} is not in order"
            before = word
            if problem := _read_postings(word, parts, behaviours, shares, places, cut):
                yield f"search/s{number}.js: {problem}"
            # A share of 0: the word is in the label only.
            if responding := parts[4] if word in cut else sum(share > 0 for share in shares[word].values()):
                counts.append((word, responding))
    if bool(content["spaced"]) != any(" " in word for word in shares):
        yield "search/index.js: whether words have spaces is not what the shards say"
    words, text = read_index_file(search / "words.js")
    if list(zip(words, read_back(text), strict=False)) != counts:
        yield "search/words.js: its words or their counts are not those of the shards"
    yield from _tokens(site, shares, cut)
    yield from _texts(site, content, places, cut)


def _read_postings(
    word: str, parts: Sequence[Any], behaviours: int, shares: Postings, places: Places, cut: set[str]
) -> str | None:
    """Take in a row of a shard; returns what is wrong with it."""
    who, thousandths, where = map(read_back, parts[:3])
    offsets = list(map(DIGITS.index, parts[3]))
    shares[word], places[word] = {}, set()
    if len(parts) > 4:
        cut.add(word)
    if len(who) != len(thousandths) or len(where) != len(offsets):
        return f"{word!r} has other numbers of behaviours than of shares or offsets"
    responding, showing = _running(who), _running(where)
    shares[word] = dict(zip(responding, thousandths, strict=True))
    places[word] = set(zip(showing, offsets, strict=True))
    if len(shares[word]) != len(who) or any(number >= behaviours for number in (*responding[-1:], *showing[-1:])):
        return f"{word!r} has a behaviour that the atlas has not"
    if any(share > 1000 for share in thousandths):
        return f"{word!r} has a share above 1"
    return None


def _running(steps: Sequence[int]) -> list[int]:
    total, numbers = 0, []
    for step in steps:
        total += step
        numbers.append(total)
    return numbers


def _tokens(site: PublishedSite, shares: Postings, cut: set[str]) -> Iterator[str]:
    """Every token of a behaviour is a posting, whose share is its own or that of the word around it."""
    table = read_rows(site.folder / "tables" / "behaviours.parquet", ["tokens", "weights"])
    for number, (tokens, weights) in enumerate(
        zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    ):
        for token, weight in zip(tokens, weights, strict=True):
            word = search_key(token)
            found = shares.get(word, {}).get(number)
            if word not in cut and (found is None or found < max(1, round(1000 * weight)) - 1):
                yield f"search: {word!r} lacks a behaviour, or its share of one is too small"


def _texts(site: PublishedSite, content: Mapping[str, Any], places: Places, cut: set[str]) -> Iterator[str]:
    """The words of every text are postings at their offsets, and no others are."""
    expected: Places = {}
    for block in range(math.ceil(content["behaviours"] / BLOCK)):
        _, texts = read_index_file(site.folder / "search" / f"x{block}.js")
        for number, (_, before, token, after, *_words) in enumerate(texts, start=block * BLOCK):
            text = before + token + after
            spans = pieces(text)
            target = len(before) + len(token) - len(token.lstrip())
            middle = next((place for place, (_, end) in enumerate(spans) if end > target), len(spans))
            for place, (low, high) in enumerate(spans):
                expected.setdefault(same(text[low:high]), set()).add((number, place - middle + MIDDLE))
    for word in expected.keys() | {word for word, own in places.items() if own}:
        if word not in cut and expected.get(word, set()) != places.get(word, set()):
            yield f"search: the texts that show {word!r} are not those that the shards name"
