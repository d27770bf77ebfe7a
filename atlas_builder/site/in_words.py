"""What models said of units and behaviours, as pages, layer tables and search show it: never without who said it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from atlas_builder.corpus.token_text import HIDDEN, spelt
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import SHOWN, ByBehaviour, Explanation, read_published
from atlas_builder.records.schema import Record

_LONGEST = 280  # bytes of a text on a page, so that it grows by no more than half a kilobyte, whatever the text
_LONGEST_IN_A_TABLE = 140
_LONGEST_MODEL = 60
_SCORES = ("detection", "fuzzing", "simulation")
_FROM = {"delphi": "from delphi", "neuronpedia": "from Neuronpedia"}
_COMPUTED = {"label": "its label", "tokens": "its top tokens"}
_STALE = "of another edition"
_NOT_NAMED = "a model that is not named"


class Said(NamedTuple):
    """An explanation as it is shown."""

    text: str
    model: str
    note: str = ""
    """What to know of it: where it is from, that it is of another edition."""
    scores: str = ""


def of_unit(record: Record, explanations: ByBehaviour) -> dict[int, tuple[list[Said], str]]:
    """By behaviour, 0 for the whole unit: what was said, and the scores of the computed label."""
    shown = {}
    for behaviour in (None, *(one["id"] for one in record["behaviours"])):
        if ones := explanations.get((record["id"], behaviour)):
            said = [_said(one, _LONGEST) for one in _spoken(ones)]
            computed = "; ".join(filter(None, map(_computed, ones)))
            shown[behaviour or 0] = said, f"Scored alike, {computed}" if computed else ""
    return shown


def said_of_unit(record: Record, explanations: ByBehaviour) -> Said | None:
    """What a row of a layer's table shows: the first of the whole unit, else of its first explained behaviour."""
    for behaviour in (None, *(one["id"] for one in record["behaviours"])):
        if spoken := _spoken(explanations.get((record["id"], behaviour), ())):
            return _said(spoken[0], _LONGEST_IN_A_TABLE)._replace(scores="")
    return None


class SaidFile(NamedTuple):
    """The published file of explanations of an atlas of this id, for a worker to open."""

    path: Path
    atlas: str

    def searched(self, layer: int, unit: int, behaviour: int) -> list[list[list[str]]]:
        """What search shows of a behaviour, as `searched`."""
        return searched(read_published(self.path), UnitAddress(layer, unit).within(self.atlas), behaviour)


def searched(explanations: ByBehaviour, unit: str, behaviour: int) -> list[list[list[str]]]:
    """What search shows of a behaviour: nothing, or a list of texts, each with its model and a note.

    What is said of a whole unit is found with its first behaviour.
    """
    said = [_said(one, _LONGEST) for one in _spoken(explanations.get((unit, behaviour), ()))]
    if behaviour == 1:
        for one in _spoken(explanations.get((unit, None), ())):
            whole = _said(one, _LONGEST)
            said.append(whole._replace(note=", ".join(filter(None, ("of the whole unit", whole.note)))))
    return [[[one.text, one.model, one.note] for one in said]] if said else []


def _spoken(explanations: Sequence[Explanation]) -> list[Explanation]:
    """Those that a model said, of this edition first, as many as are shown."""
    said = [one for one in explanations if not one.is_computed]
    return sorted(said, key=lambda one: not one.current)[:SHOWN]


def _said(one: Explanation, longest: int) -> Said:
    judged = f"judged by {_cut(one.judge, _LONGEST_MODEL)}" if one.judge and one.judge != one.model else ""
    note = ", ".join(filter(None, (_FROM.get(one.source, ""), "" if one.current else _STALE)))
    scores = _scores(one)
    return Said(
        _cut(one.explanation, longest),
        _cut(one.model, _LONGEST_MODEL) or _NOT_NAMED,
        note,
        f"{scores}, {judged}" if scores and judged else scores,
    )


def _computed(one: Explanation) -> str:
    """The scores of the computed label or of the top tokens; empty for an explanation."""
    scores = _scores(one, "") if one.is_computed else ""
    stale = "" if one.current else f", {_STALE}"
    return f"{_COMPUTED[one.source]}: {scores}{stale}" if scores else ""


def _scores(one: Explanation, said: str = "at random ") -> str:
    """Scores in words, each beside what chance gives, of which is `said` that it is that."""
    parts = []
    for name in _SCORES:
        value, floor = getattr(one.scores, name), getattr(one.floor, name)
        if value is not None:
            at_random = "" if floor is None else f" ({said}{_hundredths(floor)})"
            parts.append(f"{name} {_hundredths(value)}{at_random}")
    return ", ".join(parts)


def _hundredths(score: float) -> str:
    """All alike, since they are compared with each other."""
    return f"{round(score, 2) + 0.0:.2f}".replace("-", "−")


def _cut(text: str, longest: int) -> str:
    """A text of at most so many bytes on a page, where some characters are escaped or spelt out; cut between them."""
    head = text[:longest]
    escaped, raw = _size(head), head.encode("utf-8")
    if len(text) <= longest and escaped <= longest:
        return text
    end = len("…".encode())
    if escaped == len(raw):  # as most are
        return raw[: longest - end].decode("utf-8", "ignore").rstrip() + "…"
    sizes = accumulate(map(_size, head), initial=end)
    return head[: sum(size <= longest for size in sizes) - 1].rstrip() + "…"


def _size(text: str) -> int:
    """How many bytes a text takes on a page, where `site.html` escapes and spells out."""
    spelt_out = sum(len(f"<u>{spelt(hidden)}</u>") - len(hidden.encode("utf-8")) for hidden in HIDDEN.findall(text))
    return len(text.encode("utf-8")) + 4 * text.count("&") + 3 * (text.count("<") + text.count(">")) + spelt_out
