"""Explanations of units and behaviours in words, a line of JSON each: what other models said, read and checked.

`atlas-builder explain` writes such a file, and an atlas publishes what fits it as `explanations.jsonl`. A line names
what it explains by `id` and `behaviour` (null: the whole unit), and by `does` the edition that it was said of.
Lines of version 0.5, of whole units with one score fewer, are read too.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from atlas_builder.errors import ConfigurationError
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import Record

PUBLISHED = "explanations.jsonl"
"""The file at the root of a site."""
SHOWN = 3
"""Explanations shown of a behaviour or a unit, at most; the file has all."""
LONGEST_TEXT = 2000
"""Characters of an explanation that are kept."""

_SHA256 = re.compile("[0-9a-f]{64}")
_LONGEST_NAME = 200  # characters of a model's name
SOURCES = ("explain", "delphi", "neuronpedia", "label", "tokens")
"""Who explains: a model that `explain` asked, files of other programs, and what needs no model."""
_COMPUTED = ("label", "tokens")
_BEGINS = '{"id": "'
_RANGES = {"simulation": -1.0, "random_only": -1.0, "whole_range": -1.0, "detection": 0.0, "fuzzing": 0.0}
"""Scores and the least that each can be; the most is 1."""

ByBehaviour = Mapping[tuple[str, int | None], "Sequence[Explanation]"]
"""Explanations by the unit's id and the number of the behaviour, or None."""
ExplanationKey = tuple[str, int | None, str, str]
"""What there is one line of: id, behaviour, source and model."""


class ExplanationScores(NamedTuple):
    """What an explanation is worth; None where there is nothing to score, or no readable answer.

    The first three are correlations of simulated with true activations, from −1 to 1; the other two are balanced
    accuracies, 0.5 by chance. `random_only` and `whole_range` are of whole units.
    """

    simulation: float | None = None
    random_only: float | None = None
    whole_range: float | None = None
    detection: float | None = None
    fuzzing: float | None = None


class FloorScores(NamedTuple):
    """The scores of the same explanation on the examples of another unit: what chance gives."""

    simulation: float | None = None
    detection: float | None = None
    fuzzing: float | None = None


@dataclass(frozen=True)
class Explanation:
    """What a model said of a behaviour or of a whole unit, and how well it fits."""

    id: str
    """Of the unit, with its atlas: `demo/L2/N17`."""
    layer: int
    unit: int
    behaviour: int | None
    """From 1; None for the whole unit."""
    does: str
    """The `digest_of` what was explained."""
    model: str
    """The model that said it; empty where none did, or where it is not known."""
    source: str = "explain"
    """`explain`; `delphi` or `neuronpedia`, whose descriptions are of whole units; `label` or `tokens`: the computed
    label or the top tokens, scored like an explanation."""
    judge: str | None = None
    """The model that the scores are by; None where there are none."""
    seed: int = 0
    explanation: str = ""
    range_explanation: str = ""
    """Made from excerpts of the whole range of activations; of whole units."""
    scores: ExplanationScores = field(default_factory=ExplanationScores)
    floor: FloorScores = field(default_factory=FloorScores)
    current: bool = True
    """Whether it was said of this edition of the unit, as the atlas publishes it."""

    @property
    def key(self) -> ExplanationKey:
        """What there is one line of."""
        return self.id, self.behaviour, self.source, self.model

    @property
    def is_computed(self) -> bool:
        """Whether no model said it: the label or the top tokens."""
        return self.source in _COMPUTED

    @property
    def line(self) -> str:
        """Its line in a file that `explain` writes; whether it is `current`, an atlas knows that publishes it."""
        fields = {name: value for name, value in self.plain.items() if name != "current"}
        return json.dumps(fields, ensure_ascii=False) + "\n"

    @property
    def plain(self) -> dict[str, Any]:
        """Its fields as JSON has them."""
        return {**asdict(self), "scores": self.scores._asdict(), "floor": self.floor._asdict()}


class ExplanationFile(NamedTuple):
    """The explanations of a file, in its order, and what to say of lines that are not among them."""

    explanations: tuple[Explanation, ...]
    notes: tuple[str, ...]


def digest_of(record: Record, behaviour: int | None = None) -> str:
    """What is explained, as SHA-256: a unit's statistics, and of a behaviour what tells it from others.

    It changes with the model and the text. `KeyError` for a behaviour that the record has not.
    """
    stats = record["stats"]
    if behaviour is None:
        return _sha256(stats)
    found = next((one for one in record["behaviours"] if one["id"] == behaviour), None)
    if found is None:
        raise KeyError(behaviour)
    central = record["examples"][found["central"]]
    own = {name: found[name] for name in ("sign", "size", "coverage")}
    place = {name: central[name] for name in ("document", "position")}
    return _sha256({"stats": stats, "behaviour": {**own, "central": place}})


def _sha256(content: Any) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def read_lines(path: str) -> ExplanationFile:
    """The explanations of a file that `atlas-builder explain` writes; `ConfigurationError` where it is none."""
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        raise ConfigurationError(
            f"site.explanations: {path} is not found: give the path of a file that atlas-builder explain wrote."
        ) from None
    if not stat.S_ISREG(state.st_mode):  # a pipe or a device may have no end
        raise ConfigurationError(
            f"site.explanations: {path} cannot be read (it is no file): give a file that atlas-builder explain wrote."
        )
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: str, modified: int, size: int) -> ExplanationFile:
    """As `read_lines`, once for each state of a file."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"site.explanations: {path} cannot be read ({reason}): give a file that atlas-builder explain wrote."
        ) from None
    found, notes = parse_lines(text, f"site.explanations: {path}")
    with_text = tuple(one for one in found if one.explanation)
    if without := len(found) - len(with_text):
        said = "has no text and is left out" if without == 1 else "have no text and are left out"
        notes = (*notes, f"site.explanations: {path}: of its lines, {without:,} {said}")
    return ExplanationFile(with_text, notes)


def parse_lines(text: str, name: str) -> ExplanationFile:
    """The explanations of a file's text; `ConfigurationError` names the first line that is none."""
    *lines, last = text.split("\n")
    found: dict[ExplanationKey, Explanation] = {}
    again = long = 0
    for number, line in enumerate([*lines, last] if last else lines, start=1):
        try:
            one = explanation_of(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number > len(lines) and (line.startswith(_BEGINS) or _BEGINS.startswith(line)):
                break  # a run that was stopped leaves a part of a line
            said = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise ConfigurationError(
                f"{name}, line {number} is no explanation ({said[:120]}): remove it, or give another file."
            ) from None
        if len(one.explanation) > LONGEST_TEXT:
            long += 1
            one = replace(one, explanation=one.explanation[: LONGEST_TEXT - 1] + "…")
        again += found.pop(one.key, None) is not None
        found[one.key] = one
    counts = {
        (
            "is of what a later line explains too, which counts",
            "are of what later lines explain too, which count",
        ): again,
        (
            f"has more than {LONGEST_TEXT:,} characters and is cut",
            f"have more than {LONGEST_TEXT:,} characters and are cut",
        ): long,
    }
    notes = (f"{name}: of its lines, {count:,} {words[count != 1]}" for words, count in counts.items() if count)
    return ExplanationFile(tuple(found.values()), tuple(notes))


def explanation_of(line: Any) -> Explanation:
    """The explanation that a line of JSON holds; `ValueError`, `KeyError`, `TypeError` where it is none."""
    if not isinstance(line, dict):
        raise ValueError("it is no object")
    layer, unit = _count(line, "layer"), _count(line, "unit")
    parsed = UnitAddress.parse(line["id"])
    if parsed is None or parsed[0] is None or parsed[1] != (layer, unit):
        raise ValueError("its id is not that of its layer and unit")
    source = line.get("source", "explain")
    if source not in SOURCES:
        raise ValueError("its source is unknown")
    scores = line["scores"]
    if isinstance(scores, dict) and "top_and_random" in scores:  # version 0.5
        scores = {**scores, "simulation": scores["top_and_random"]}
    does = line["does"]
    if not isinstance(does, str) or not _SHA256.fullmatch(does):
        raise ValueError("does is no SHA-256")
    model = kept_name(line["model"])
    judge = line.get("judge", model)
    return Explanation(
        id=line["id"],
        layer=layer,
        unit=unit,
        behaviour=None if line.get("behaviour") is None else _count(line, "behaviour", 1),
        does=does,
        model=model,
        source=source,
        judge=None if judge is None else kept_name(judge),
        seed=_count(line, "seed"),
        explanation=_joined(line["explanation"]),
        range_explanation=_joined(line.get("range_explanation", ""), LONGEST_TEXT),
        scores=ExplanationScores(**_scores(scores, ExplanationScores._fields)),
        floor=FloorScores(**_scores({} if line.get("floor") is None else line["floor"], FloorScores._fields)),
        current=bool(line.get("current", True)),
    )


def _count(line: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = line[name]
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{name} is no whole number from {least}")
    return value


def _joined(text: Any, most: int | None = None) -> str:
    """A text on one line, at most so long; half a surrogate pair, which no file can hold, is `?`."""
    if not isinstance(text, str):
        raise TypeError("a text is missing")
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:most].rstrip()


def kept_name(name: Any) -> str:
    """A model's name as lines have it: on one line, at most 200 characters; `TypeError` where it is no text."""
    return _joined(name, _LONGEST_NAME)


def _scores(given: Any, names: Iterable[str]) -> dict[str, float | None]:
    """Scores by name, null for those that are not there."""
    if not isinstance(given, dict):
        raise TypeError("scores are no object")
    scores: dict[str, float | None] = {}
    for name in names:
        value = given.get(name)
        # A whole number may be too large to be finite.
        if value is not None and type(value) is not int and not (type(value) is float and math.isfinite(value)):
            raise ValueError(f"{name} is no number")
        if value is not None and not _RANGES[name] <= value <= 1:
            raise ValueError(f"{name} is beyond its range")
        scores[name] = None if value is None else float(value)
    return scores


def published_lines(explanations: Iterable[Explanation]) -> bytes:
    """The bytes of `explanations.jsonl`: by unit and behaviour, a whole unit first, each in the order given."""
    ordered = sorted(explanations, key=lambda one: (one.layer, one.unit, one.behaviour or 0))
    return b"".join(orjson.dumps(one.plain) + b"\n" for one in ordered)


def by_behaviour(explanations: Iterable[Explanation]) -> ByBehaviour:
    """Explanations by what they explain, each in the order given."""
    found: dict[tuple[str, int | None], list[Explanation]] = {}
    for one in explanations:
        found.setdefault((one.id, one.behaviour), []).append(one)
    return {key: tuple(ones) for key, ones in found.items()}


def read_published(path: Path | None) -> ByBehaviour:
    """The explanations of a site's file, none without one; `OSError`, `ConfigurationError` where it is damaged."""
    if path is None:
        return {}
    state = path.stat()
    return _read_published(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read_published(path: Path, modified: int, size: int) -> ByBehaviour:
    return by_behaviour(parse_lines(path.read_text(encoding="utf-8"), str(path)).explanations)
