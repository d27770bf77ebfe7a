"""Explanations that others made, as lines of this atlas: files of delphi and Neuronpedia, and lines of our own.

What cannot be taken is left out, counted, and said in a sentence for each reason; texts are kept as text, whatever they
hold. Descriptions are of whole units, whose numbers are taken to be those of the atlas.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.explain.results import kept_text
from atlas_builder.files import read_json
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import (
    LONGEST_TEXT,
    Explanation,
    ExplanationKey,
    digest_of,
    explanation_of,
    kept_name,
)
from atlas_builder.records.schema import Record

_DELPHI = re.compile(r"(?P<hookpoint>.+)_latent(?P<unit>[0-9]{1,18})\.txt")
_NUMBER = re.compile(r"(?:^|[.\-_/])([0-9]{1,6})(?=$|[.\-_/])")
_TAG = re.compile(r"<[a-zA-Z/!][^<>]{0,200}>")
_LAYER, _INDEX = re.compile(r"([0-9]{1,40})(?:-.*)?"), re.compile(r"([0-9]{1,40})")
_FAILED = re.compile(r"(?:\[[\w:]+\] )?(?:Explanation could not be parsed|No explanations? found)\.?")
"""What delphi writes in place of an explanation."""
_BYTES, _LINE, _LIST = 1 << 20, 1 << 24, 1 << 28
"""Of a small file, of a line, and of a list that are read; more is damaged."""


class _Description(NamedTuple):
    """What others said of a unit."""

    layer: int
    unit: int
    text: str
    model: str


_Reader = Callable[[Path, Counter[str]], Iterator[_Description]]


class GivenExplanations(NamedTuple):
    """Lines made from what others said, and a sentence for each thing that there is to say of them."""

    lines: list[Explanation]
    sentences: list[str]


def given_explanations(given: str, site: Path) -> GivenExplanations:
    """The explanations of `delphi:DIR`, `neuronpedia:FILE` or `lines:FILE` as lines of a built atlas, without scores.

    Lines of our own keep theirs. Raises `ConfigurationError` if there is no such file, or nothing in it can be taken.
    """
    source, _, name = given.partition(":")
    path = Path(name)
    if source not in ("delphi", "neuronpedia", "lines") or not name:
        raise ConfigurationError(f"--from: {brief(given)} is not delphi:DIR, neuronpedia:FILE or lines:FILE.")
    try:
        found = path.is_dir() if source == "delphi" else path.is_file()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise ConfigurationError(
            f"--from: {brief(path, 120)} is not found, or no {'folder' if source == 'delphi' else 'file'}."
        )
    counts: Counter[str] = Counter()
    units = _AtlasUnits(site, counts)
    if source == "lines":
        drafts = units.own(_lines_of(path, counts))
    else:
        drafts = units.described(source, (_delphi if source == "delphi" else _neuronpedia)(path, counts))
    lines: dict[ExplanationKey, Explanation] = {}
    for draft in drafts:
        counts["said twice of one unit or behaviour by one model: the last is taken"] += draft.key in lines
        lines[draft.key] = draft
    sentences = [f"{path}: {count:,} {reason}" for reason, count in counts.items() if count]
    if not lines:
        said = f" ({'; '.join(f'{count:,} {reason}' for reason, count in counts.items() if count)})" if +counts else ""
        raise ConfigurationError(f"--from: {path} holds no explanation of this atlas{said}: name another.")
    return GivenExplanations(list(lines.values()), sentences)


class _AtlasUnits:
    """The units of an atlas, and what is counted of texts for them."""

    def __init__(self, site: Path, counts: Counter[str]) -> None:
        facts = read_facts(site)
        self._site, self._counts, self._atlas = site, counts, facts["atlas"]["id"]
        self._units = {layer["layer"]: layer["units"] for layer in facts["layers"]}

    def _record(self, layer: int, unit: int) -> Record | None:
        """The record of a unit; None if it does not exist."""
        if not 0 <= unit < self._units.get(layer, 0):
            self._counts["of units or behaviours that the atlas does not have: left out"] += 1
            return None
        record: Record = read_json(self._site / UnitAddress(layer, unit).record)
        return record

    def described(self, source: str, descriptions: Iterator[_Description]) -> Iterator[Explanation]:
        """A line for each description of a unit that exists."""
        for layer, unit, text, model in descriptions:
            explanation = kept_text(text)
            if not explanation:
                self._counts["empty: left out"] += 1
            elif (record := self._record(layer, unit)) is not None:
                self._count_text(text, explanation)
                yield Explanation(
                    record["id"], layer, unit, None, digest_of(record, None), kept_name(kept_text(model)), source,
                    explanation=explanation,
                )  # fmt: skip

    def _count_text(self, text: str, kept: str) -> None:
        """Count what is to be said of a text and of what is kept of it."""
        self._counts[f"longer than {LONGEST_TEXT:,} characters: cut"] += len(" ".join(text.split())) > LONGEST_TEXT
        self._counts["with what looks like HTML: kept as text"] += _TAG.search(kept) is not None

    def own(self, lines: Iterator[Explanation]) -> Iterator[Explanation]:
        """The lines of units and behaviours that exist, with their texts as `explain` keeps them."""
        for one in lines:
            explanation = kept_text(one.explanation)
            if not explanation:  # nothing to score: a server would be asked to explain in another's name
                self._counts["empty: left out"] += 1
            elif one.id != UnitAddress(one.layer, one.unit).within(self._atlas):
                self._counts["of another atlas: left out"] += 1
            elif (record := self._record(one.layer, one.unit)) is not None:
                try:
                    does = digest_of(record, one.behaviour)
                except KeyError:
                    self._counts["of units or behaviours that the atlas does not have: left out"] += 1
                    continue
                self._counts["of another edition of the atlas: kept, and not scored"] += does != one.does
                self._count_text(one.explanation, explanation)
                yield replace(one, explanation=explanation, range_explanation=kept_text(one.range_explanation))


def _lines_of(path: Path, counts: Counter[str]) -> Iterator[Explanation]:
    for record in _json_lines(path, counts):
        try:
            yield explanation_of(record)
        except (ValueError, KeyError, TypeError):
            counts["no lines of explain: left out"] += 1


def _delphi(folder: Path, counts: Counter[str]) -> Iterator[_Description]:
    """The descriptions in `{hookpoint}_latent{i}.txt`; the layer is the number in the hookpoint."""
    below = folder / "explanations"
    texts = below if below.is_dir() else folder
    model = _delphi_model(folder, texts)
    for path in sorted(texts.iterdir()):
        if not (path.suffix == ".txt" and path.is_file()):
            continue
        match = _DELPHI.fullmatch(path.name)
        numbers = _NUMBER.findall(match["hookpoint"]) if match else []
        if match is None or not numbers:
            counts["files without a layer and a latent in their names: left out"] += 1
            continue
        text = _json_of(path)
        if not isinstance(text, str):
            counts["damaged files, without a JSON string: left out"] += 1
        elif _FAILED.fullmatch(" ".join(text.split())):
            counts["in which delphi says that it has no explanation: left out"] += 1
        else:
            yield _Description(int(numbers[0]), int(match["unit"]), text, model)


def _delphi_model(folder: Path, texts: Path) -> str:
    """The explaining model of the run that wrote texts; empty where its configuration does not tell.

    That is `run_config.json` beside the folder `explanations`, in all versions of delphi with `explainer_model` at its
    top. A run with `explainer: none` only scores what an earlier one has explained: the model in it is the judge.
    """
    run = folder
    if texts == folder and folder.resolve().name == "explanations":
        run = folder.resolve().parent
    config = _json_of(run / "run_config.json")
    if not isinstance(config, dict) or config.get("explainer") == "none":
        return ""
    model = config.get("explainer_model")
    return model if isinstance(model, str) else ""


def _json_of(path: Path) -> Any:
    """What a small file of JSON holds; None where there is none, or it is damaged."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            return json.loads(file.read(_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def _neuronpedia(path: Path, counts: Counter[str]) -> Iterator[_Description]:
    """The descriptions in a batch of explanations; the layer is the number before the set: `5-set`."""
    for record in _json_lines(path, counts):
        try:
            layer, unit = _number(_LAYER, record["layer"]), _number(_INDEX, record["index"])
            text, model = record["description"], record.get("explanationModelName") or ""
            if not (isinstance(text, str | None) and isinstance(model, str)):
                raise ValueError
        except (ValueError, KeyError):
            counts["without a layer, an index and a description: left out"] += 1
            continue
        yield _Description(layer, unit, text or "", model)


def _number(pattern: re.Pattern[str], value: Any) -> int:
    """The number in a value, or its text; `ValueError` where there is none."""
    match = pattern.fullmatch(str(value)) if type(value) in (int, str) else None
    if match is None:
        raise ValueError
    return int(match[1])


def _json_lines(path: Path, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, or of one JSON list, either compressed by gzip; without what is damaged."""
    with path.open("rb") as start:
        opened: Any = gzip.open if start.read(2) == b"\x1f\x8b" else open
    try:
        with opened(path, "rb") as file:
            first = file.readline(_LINE).removeprefix(BOM_UTF8)
            while first.isspace():
                first = file.readline(_LINE)
            if first.lstrip().startswith(b"["):
                yield from _objects(first + file.read(_LIST), counts)
                return
            for line in _lines_within(first, file):
                yield from _objects(line, counts)
    except (OSError, EOFError, zlib.error):
        counts["break in the file: what follows is left out"] += 1


def _lines_within(line: bytes, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file from a first one; of one that is too long, what a few words compressed may be, its begin."""
    while line:
        if not line.isspace():
            yield line
        while len(line) >= _LINE and not line.endswith(b"\n"):
            line = file.readline(_LINE)
        line = file.readline(_LINE)


def _objects(content: bytes, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """The object in a line, or those in a list."""
    try:
        found = json.loads(content.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        counts["damaged lines or lists: left out"] += 1
        return
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, dict):
            yield one
        else:
            counts["damaged lines or lists: left out"] += 1
