"""How well tokens predict where a unit fires, on held-out contexts, counted again token by token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from atlas_builder.verify.examples import Importance, slack_of_importance
from atlas_builder.verify.graphs import FoundGraph, longest_match, slack_of_shares, ways_by_key
from atlas_builder.verify.shown import Key, activations, token_at
from atlas_builder.verify.unit import UnitCase, keys_of

_FIRES = 0.5  # of the maximum
_HELD_OUT = 10  # one context of so many, the last
_NEEDED = 0.75  # the importance of tokens that belong to a pattern
Pattern = tuple[int, tuple[tuple[int, int], ...]]
"""A key token, and other tokens with their distance before it."""


class _HeldOut(NamedTuple):
    """A held-out context: its tokens, the activations there, and whether each token counts."""

    tokens: Sequence[int]
    values: np.ndarray
    counted: np.ndarray


def check_prediction(
    case: UnitCase, importance: Mapping[Key, Importance] | None, graphs: Sequence[FoundGraph] | None
) -> None:
    """Compare all scores.

    `importance` is None where that of no unit of the layer was measured, `graphs` are None where they were not asked
    for or another run may make others.
    """
    claimed: dict[str, Any] | None = case.record["prediction"]
    if (claimed is None) == case.config.describe.prediction:
        case.report.wrong(f"{case.name}: prediction is {'not ' * (claimed is None)}published, against the settings")
    if claimed is None:
        return
    if ("graph" in claimed) != case.config.describe.graphs:
        case.report.wrong(
            f"{case.name}: graph F1 is {'not ' * ('graph' not in claimed)}published, against the settings"
        )
    maximum = float(case.counted.max(initial=0))
    near = case.exactness * case.largest
    held_out = [
        _HeldOut(
            case.text.contexts[number][2],
            activations(case.text, case.values, number),
            ~np.array(case.text.special_in(number), np.bool_),
        )
        for number in range(_HELD_OUT - 1, len(case.text), _HELD_OUT)
    ]
    border = _FIRES * maximum
    if maximum > 0 and any((np.abs(one.values[one.counted] - border) <= near).any() for one in held_out):
        return  # in another run a token there may fire or not
    fires = [(one.values >= border) & one.counted & (maximum > 0) for one in held_out]
    positives = int(sum(fired.sum() for fired in fires))
    case.report.compare("token predictors", f"{case.name}: tokens on which it fires", claimed["fired"], positives, 0.0)
    learnt = [key for side in case.sides if side.sign > 0 for key in keys_of(side) if _is_learnt(key)]
    look_up: set[Pattern] = {(token_at(case.text, key), ()) for key in learnt}
    _compare(case, "lookup", claimed["lookup"], _counts(look_up, held_out, fires), positives)
    if "graph" in claimed and graphs is not None:
        _check_graph_scores(case, claimed["graph"], graphs, held_out, fires)
    _check_context(case, claimed["context"], importance, held_out, fires)


def _check_context(
    case: UnitCase,
    claimed: Any,
    importance: Mapping[Key, Importance] | None,
    held_out: Sequence[_HeldOut],
    fires: Sequence[np.ndarray],
) -> None:
    positives = int(sum(fired.sum() for fired in fires))
    if importance is None:
        _compare(case, "context", claimed, None, positives)
        return
    patterns = set()
    for key, values in importance.items():
        if _is_learnt(key) and case.activation(key) > 0:
            if (np.abs(values[:-1] - _NEEDED) <= slack_of_importance(case, key)).any():
                return  # in another run a token may belong to the pattern or not
            patterns.add(_pattern(case, key, values))
    _compare(case, "context", claimed, _counts(patterns, held_out, fires), positives)


def _check_graph_scores(
    case: UnitCase,
    claimed: Any,
    graphs: Sequence[FoundGraph],
    held_out: Sequence[_HeldOut],
    fires: Sequence[np.ndarray],
) -> None:
    """Compare how the longest match in graphs of positive activations does, token by token."""
    positive = [graph for graph in graphs if graph.sign > 0]
    slack = slack_of_shares(case, 1)
    if any(graph.unsure for graph in positive) or any(
        abs(graph.nodes[end].value - _FIRES) <= slack for graph in positive for end in graph.ends
    ):
        case.report.skip("graph F1")
        return
    ways = ways_by_key(positive)
    predicted = right = 0
    for (tokens, _, counted), fired in zip(held_out, fires, strict=True):
        for place in range(len(tokens)):
            if counted[place] and longest_match(ways, tokens, place) >= _FIRES:
                predicted += 1
                right += int(fired[place])
    _compare(case, "graph", claimed, (predicted, right), int(sum(fired.sum() for fired in fires)))


def _is_learnt(key: Key) -> bool:
    return key.context % _HELD_OUT != _HELD_OUT - 1


def _pattern(case: UnitCase, key: Key, importance: Importance) -> Pattern:
    tokens = case.text.contexts[key.context][2]
    before = [(len(importance) - 1 - place) for place in np.flatnonzero(np.nan_to_num(importance[:-1]) > _NEEDED)]
    return token_at(case.text, key), tuple((int(back), tokens[key.position - back]) for back in before)


def _counts(patterns: Iterable[Pattern], texts: Sequence[_HeldOut], fires: Sequence[np.ndarray]) -> tuple[int, int]:
    """On how many tokens a pattern matches, and on how many of these the unit fires."""
    by_key: dict[int, list[tuple[tuple[int, int], ...]]] = {}
    for key, others in patterns:
        by_key.setdefault(key, []).append(others)
    predicted = right = 0
    for (tokens, _, counted), fired in zip(texts, fires, strict=True):
        for place, token in enumerate(tokens):
            if counted[place] and any(
                all(place >= back and tokens[place - back] == other for back, other in others)
                for others in by_key.get(token, ())
            ):
                predicted += 1
                right += int(fired[place])
    return predicted, right


def _compare(case: UnitCase, way: str, claimed: Any, counts: tuple[int, int] | None, positives: int) -> None:
    scores = dict.fromkeys(("precision", "recall", "f1"), np.nan)
    if counts is not None:
        predicted, right = counts
        scores["precision"] = right / predicted if predicted else np.nan
        scores["recall"] = right / positives if positives else np.nan
        scores["f1"] = 2 * right / (predicted + positives) if positives else np.nan
    for name, value in scores.items():
        what = f"{case.name}: {name} by the {'look-up' if way == 'lookup' else way}"
        case.report.compare("token predictors", what, claimed[name], value, 1e-9)
