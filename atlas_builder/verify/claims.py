"""The claims of a unit's record, compared one by one with a second run of the model."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.rerun.passes import Text
from atlas_builder.rerun.source import ids_of_output_tokens
from atlas_builder.verify.background import Unrelated
from atlas_builder.verify.chances import chances_of_contexts
from atlas_builder.verify.clusters import Recomputation, SideInputs, claimed_behaviours
from atlas_builder.verify.examples import keys_of_record
from atlas_builder.verify.histograms import check_histogram
from atlas_builder.verify.linkage import Cluster
from atlas_builder.verify.precision import tolerance
from atlas_builder.verify.ranking import check_ranking
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.selection import ClaimedSide, orders
from atlas_builder.verify.unit import UnitCase

Record = dict[str, Any]

_STEP = 2.0**-52
"""Sums of activations and of their squares over a context are counted in whole steps of this size."""
_LOGITS_LISTED, _STEERED_LISTED = 10, 5


def check_identity(case: UnitCase, facts: Mapping[str, Any], raw: bytes) -> None:
    """Compare what a record says of itself, and its hash with its bytes."""
    atlas = facts["atlas"]
    for name, expected in (
        ("kind", facts["kind"]),
        ("atlas", {"id": atlas["id"], "version": atlas["version"]}),
        ("hash", hashlib.sha256(raw.replace(b'"hash":"%s",' % str(case.record["hash"]).encode(), b"", 1)).hexdigest()),
    ):
        case.report.count("names")
        if case.record[name] != expected:
            case.report.wrong(f"{case.name}: {name} is published as {case.record[name]}, but is {expected}")
    if tokens := ids_of_output_tokens(dict(facts)):
        token = tokens[case.unit]
        if case.record.get("token") != {"id": token, "text": case.text_of(token)}:
            case.report.wrong(f"{case.name}: token is published as {case.record.get('token')}, but is {token}")
    if orjson.dumps(case.record, option=orjson.OPT_SORT_KEYS) != raw:
        case.report.wrong(
            f"{case.name}: its file is not what a record's would be: keys are not sorted, or it has spaces"
        )
    for number, (sign, behaviour) in enumerate(_numbered(case.record), 1):
        if behaviour["id"] != number or behaviour["sign"] != sign:
            case.report.wrong(f"{case.name}: behaviour {number} is listed as {behaviour['id']}")


def _numbered(record: Record) -> list[tuple[int, Record]]:
    """Behaviours with the signs that they have in order, positive ones first."""
    signs = sorted((behaviour["sign"] for behaviour in record["behaviours"]), reverse=True)
    return list(zip(signs, record["behaviours"], strict=True))


def check_statistics(case: UnitCase) -> None:
    """Compare maximum, minimum, mean, standard deviation, density, histogram and number of tokens."""
    stats, report, tokens = case.record["stats"], case.report, len(case.counted)
    ordered = np.sort(case.counted).astype(np.float64)
    mean = float(ordered.mean())
    size = float(np.sqrt((ordered**2).mean()))
    deviation = float(np.sqrt(max(0.0, size**2 - mean**2)))
    for name, value, scale in (
        ("max", float(ordered[-1]), case.tolerance * case.largest),
        ("min", float(ordered[0]), case.tolerance * case.largest),
        ("mean", mean, case.exactness * size + _STEP),
        ("std", deviation, case.exactness * size + _STEP / max(deviation, _STEP**0.5)),
    ):
        report.compare("statistics", f"{case.name}: {name}", stats[name], value, scale)
    slack = case.exactness * (np.abs(ordered) + case.grain)
    low, high = (int((ordered > edge).sum()) for edge in (slack, -slack))
    # Some number of tokens that another run may find active, not any number between.
    active = min(max(round(stats["density"] * tokens), low), high)
    report.compare("statistics", f"{case.name}: density", stats["density"], active / tokens, 0.0)
    if stats["tokens"] != tokens:
        report.wrong(f"{case.name}: tokens is published as {stats['tokens']}, but the text has {tokens}")
    check_histogram(report, case.name, stats["histogram"], ordered, slack)


def has_token(case: UnitCase) -> NDArray[np.bool_]:
    """Which rows of the vocabulary a token has, by its text; none is listed that no token has."""
    return np.array([text != "" for text in case.texts])


def check_logits(case: UnitCase, effects: NDArray[np.float64] | None) -> None:
    """Compare the tokens of the largest and smallest direct logit effects, (vocabulary,); None where there are none."""
    if effects is None:
        case.report.count("logit effects")
        if any(case.record["logits"].values()):
            case.report.wrong(f"{case.name} is published with direct logit effects, which its model has not")
        return
    slack = np.full(len(effects), case.exactness * float(np.abs(effects).max(initial=0)))
    effects = np.where(has_token(case), effects, np.nan)
    for side, way in (("positive", 1), ("negative", -1)):
        claimed = [[text, way * value] for text, value in case.record["logits"][side]]
        what = f"{case.name}: direct logit effects, {side}"
        check_ranking(case.report, "logit effects", what, claimed, way * effects, case.text_of, _LOGITS_LISTED, slack)


def check_steering(case: UnitCase, changes: NDArray[np.float64] | None) -> None:
    """Compare the changes of next-token probabilities; `changes` are None where there should be none.

    They and the sums of the probabilities before and after are (2, vocabulary).
    """
    claimed = case.record.get("steering")
    if claimed is None or changes is None:
        if not (claimed is None and changes is None):
            case.report.wrong(
                f"{case.name} is published with{'out' * (claimed is None)} steering, against the settings or its kind"
            )
        return
    maximum = float(case.counted.max(initial=0))
    case.report.compare(
        "clamped units", f"{case.name}, clamped: value", claimed["value"], maximum, case.tolerance * maximum
    )
    change, size = changes
    slack = tolerance("probability", case.config.model.dtype) * size + 1e-9
    for side, way in (("more", 1), ("less", -1)):
        pairs = [[text, way * by] for text, by in claimed[side]]
        what = f"{case.name}, clamped: {side} probable"
        listed = int(np.count_nonzero(np.sort(-way * change[has_token(case)])[:_STEERED_LISTED]))
        weights = np.where((change == 0) | ~has_token(case), np.nan, way * change)
        check_ranking(case.report, "clamped units", what, pairs, weights, case.text_of, listed, slack)


class Claims:
    """Compares what the record of one unit says of its behaviours with a second run."""

    def __init__(
        self, record: Record, report: VerificationReport, config: Configuration, text: Text, texts: list[str]
    ) -> None:
        self.record, self.report, self.config, self.text = record, report, config, text
        self.tolerance = tolerance("activation", config.model.dtype)
        self._keys = keys_of_record(UnitCase(record, report, config, text, texts, np.zeros(0, np.float32)))

    @property
    def name(self) -> str:
        """The unit's id."""
        return str(self.record["id"])

    def measures(
        self,
        side: ClaimedSide,
        inputs: NDArray[np.float32],
        read_weights: NDArray[np.float32],
        unrelated: Unrelated,
    ) -> list[Cluster] | None:
        """Compare the number of examples, the distances of neuron embeddings, and the clusters.

        `inputs` are those at the key tokens of the side's contexts, (examples, width), `read_weights` (parts, width).
        Returns the clusters that explain the claims best, by place of example, None where the claims are of others.
        """
        claimed = self.record["polysemanticity"] if side.sign > 0 else self.record["negative"]["polysemanticity"]
        what = f"{self.name}{' below zero' if side.sign < 0 else ''}"
        if claimed["examples"] != len(side.chosen):
            self.report.wrong(
                f"{what}: examples is published as {claimed['examples']}, but computed as {len(side.chosen)}"
            )
            return None
        self._qualifying(what, side, claimed["qualifying_contexts"])
        keys = side.keys[side.chosen]
        again = Recomputation(
            SideInputs(inputs, read_weights, keys, unrelated, side.random),
            lambda: orders(np.lexsort([side.chosen, -keys]), keys, self.config.model.dtype),
            self.config.clusters,
            self.config.model.dtype,
        )
        behaviours = claimed_behaviours(what, self.record, side.sign, self._places(side))
        report, clusters = again.compare(behaviours, self.tolerance)
        self.report.add(report)
        return clusters

    def _qualifying(self, what: str, side: ClaimedSide, claimed: int) -> None:
        """Compare the number of contexts that qualify."""
        rule = self.config.examples
        near = self.tolerance * float(side.keys.max(initial=0)) if rule.policy != "top" and side.threshold else 0.0
        active = np.flatnonzero(side.keys > 0)
        numbers = []
        for threshold in (side.threshold, side.threshold + near, side.threshold - near):
            reached = active[side.keys[active] >= threshold]
            number = len(reached)
            if rule.policy != "top" and number >= rule.per_unit:
                layer, unit = int(self.record["layer"]), int(self.record["unit"])
                chances = chances_of_contexts(rule.seed, layer, unit, side.sign < 0, reached)
                held = _held(side.keys[reached], reached, chances, rule.per_unit)
                number = max(_about(side.keys[active], threshold), held)
            numbers.append(number)
        self.report.count("measures")
        if not min(numbers) <= claimed <= max(numbers):
            self.report.wrong(f"{what}: qualifying_contexts is published as {claimed}, but computed as {numbers[0]}")

    def _places(self, side: ClaimedSide) -> dict[int, int]:
        """For each published example of a side, by its index in the record, its place among the side's contexts."""
        of_bands = {index for band in self.record["bands"] for index in band["examples"]}
        place = {int(context): number for number, context in enumerate(side.chosen)}
        places = {}
        for index, (example, key) in enumerate(zip(self.record["examples"], self._keys, strict=True)):
            value = example["values"][example["key"]] if example["key"] < len(example["values"]) else 0.0
            if index not in of_bands and side.sign * value > 0 and key and key.context in place:
                places[index] = place[key.context]
        return places


def _held(keys: NDArray[np.float64], contexts: NDArray[np.int64], chances: NDArray[np.uint64], most: int) -> int:
    """How many contexts are, by chance, among the `most` first of all that are at least as active."""
    first: list[int] = []  # the smallest chances so far, negated
    held = 0
    for place in np.lexsort([contexts, -keys]).tolist():
        chance = int(chances[place])
        if len(first) < most:
            heapq.heappush(first, -chance)
        elif chance > -first[0]:
            continue
        else:
            heapq.heappushpop(first, -chance)
        held += 1
    return held


def _about(active: NDArray[np.float64], threshold: float) -> int:
    """What the builder estimates where it does not count all.

    The number of contexts from a threshold on, as if they lay evenly in its bin; four bins to a power of two."""
    steps = [2.0**power * (1 + part / 4) for power in range(-16, 16) for part in range(4)]
    edges = [0.0, *steps, 2.0**16]
    place = int(np.searchsorted(edges, threshold, side="right")) - 1
    if place == len(edges) - 1:
        return 0
    low, high = edges[place], edges[place + 1]
    last = high == edges[-1]
    within = int(((active >= low) & ((active < high) | last)).sum())
    above = 0 if last else int((active >= high).sum())
    return round(above + within * min(1.0, max(0.0, (high - threshold) / (high - low))))
