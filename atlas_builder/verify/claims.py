"""The claims of a unit's record, compared one by one with a second run of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.bands import band_edges
from atlas_builder.collect.sampling import contexts_chances, stream
from atlas_builder.config import Configuration
from atlas_builder.describe.token_scores import FIRES, HELD_OUT_EVERY
from atlas_builder.rerun.passes import Text, UnitTrace
from atlas_builder.rounding import grain_of
from atlas_builder.verify.background import Unrelated
from atlas_builder.verify.clusters import Recomputation, SideInputs, claimed_behaviours
from atlas_builder.verify.report import VerificationReport

Record = dict[str, Any]

_SAME, _SWAPPED = 1e-5, 4  # activations that close may be in another order; the number of pairs to try
_PROBABLE = {"float32": 1e-4, "bfloat16": 5e-2}  # probabilities, through all later layers
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""The largest difference allowed between two runs of a model, as a share of a unit's largest activation."""


@dataclass(frozen=True)
class ClaimedSide:
    """The positive or negative activations of a unit, the latter negated, in each context."""

    sign: int
    keys: NDArray[np.float64]
    """Highest activation of each context: (contexts,)."""
    at: NDArray[np.int32]
    """The position of the first token that reaches it: (contexts,)."""
    chosen: NDArray[np.int64]
    """The contexts of the unit's examples."""
    random: bool
    """Whether these are all contexts that qualify, or a random sample of them."""
    threshold: float
    """The activation from which a context qualifies; 0 where every active one does."""
    unsure: bool
    """Whether a context is so near the border that another run may choose differently."""


def sides(
    trace: UnitTrace, place: int, layer: int, unit: int, has_negative: bool, config: Configuration
) -> Iterator[ClaimedSide]:
    """Choose a unit's examples again; `place` is its column in the trace."""
    for side, (high, at, sign) in enumerate(((trace.high, trace.high_at, 1), (trace.low, trace.low_at, -1))):
        if side <= int(has_negative):
            keys = sign * high[:, place].astype(np.float64)
            yield ClaimedSide(sign, keys, at[:, place], *_choose(keys, layer, unit, side, config))


def _choose(
    keys: NDArray[np.float64], layer: int, unit: int, side: int, config: Configuration
) -> tuple[NDArray[np.int64], bool, float, bool]:
    """The last four fields of a `ClaimedSide`."""
    rule, top = config.examples, float(keys.max(initial=0))
    near = TOLERANCE[config.model.dtype] * top
    active = np.flatnonzero(keys > 0)
    if rule.policy == "top":
        chosen = active[np.lexsort([active, -keys[active]])][: rule.per_unit]
        border = keys[chosen[-1]] if len(chosen) == rule.per_unit else 0.0
        return chosen, len(chosen) == len(active), 0.0, bool((np.abs(keys - border) <= near).sum() > 1)
    border = rule.threshold * top
    if rule.policy == "robust":
        order = active[np.lexsort([active, -keys[active]])]
        robust = sum(keys[order[:10]].tolist()) / 10
        border, weakest, least = rule.share * robust, rule.weakest * robust, min(rule.least, rule.per_unit)
        if (keys[active] >= border).sum() < least:
            chosen = order[keys[order] >= weakest][:least]
            full = len(chosen) == least
            last = keys[chosen[-1]] if full else weakest
            doubtful = (np.abs(keys - last) <= near).sum() > full or (keys >= border - near).sum() >= least
            return np.sort(chosen), len(chosen) <= (keys[active] >= border).sum(), border, bool(doubtful)
    chosen = active[keys[active] >= border]
    column = np.full(len(chosen), unit, np.uint64)
    chances = contexts_chances(stream(rule.seed, layer), column, column * 0 + np.uint64(side), chosen.astype(np.uint64))
    unsure = bool((np.abs(keys - border) <= near).any())
    return np.sort(chosen[np.argsort(chances)][: rule.per_unit]), True, border, unsure


def _orders(order: NDArray[np.intp], keys: NDArray[np.float64]) -> Iterator[NDArray[np.intp]]:
    """The order of examples, highest first, and variants with neighbours swapped that differ by rounding only.

    The samples for stability are drawn by place in this order.
    """
    gaps = -np.diff(keys[order])
    nearest = np.argsort(gaps, kind="stable")[:_SWAPPED]
    close = np.sort(nearest[gaps[nearest] <= _SAME * keys.max(initial=0)])
    for swaps in product((False, True), repeat=len(close)):
        swapped = order.copy()
        for place in close[list(swaps)]:
            swapped[[place, place + 1]] = swapped[[place + 1, place]]
        yield swapped


class Claims:
    """Compares the record of one unit with a second run."""

    def __init__(
        self, record: Record, report: VerificationReport, config: Configuration, text: Text, texts: list[str]
    ) -> None:
        self.record, self.report, self.config, self.text = record, report, config, text
        self._texts = texts
        self.tolerance = TOLERANCE[config.model.dtype]
        self._place = {(document, offset): number for number, (document, offset, _) in enumerate(text.contexts)}
        self._room = max((len(tokens) for _, _, tokens in text.contexts), default=1)

    @property
    def name(self) -> str:
        """The unit's id."""
        return str(self.record["id"])

    def statistics(self, trace: UnitTrace, place: int) -> None:
        """Compare maximum, minimum, mean, standard deviation, density and number of tokens."""
        stats, tokens = self.record["stats"], self.text.tokens
        mean = trace.total[place] / tokens
        deviation = np.sqrt(max(0.0, trace.squares[place] / tokens - mean**2))
        high, low = float(trace.high[:, place].max()), float(trace.low[:, place].min())
        scale = max(abs(high), abs(low)) or 1.0
        for name, value in (("max", high), ("min", low), ("mean", mean), ("std", deviation)):
            self.report.compare("statistics", f"{self.name}: {name}", stats[name], value, self.tolerance, scale)
        density = trace.positive[place] / tokens
        tolerance = max(self.tolerance, 3 / tokens)
        self.report.compare("statistics", f"{self.name}: density", stats["density"], density, tolerance)
        if stats["tokens"] != tokens:
            self.report.wrong(f"{self.name}: tokens is published as {stats['tokens']}, but the text has {tokens}")

    def examples(self, unit_sides: Sequence[ClaimedSide], seen: dict[tuple[int, int], NDArray[np.float32]]) -> None:
        """Check that each published example is one of the unit's, and compare its text and activations.

        `seen` holds the activations of a context, by its number and the unit's place.
        """
        of_bands = {index for band in self.record["bands"] for index in band["examples"]}
        for index, example in enumerate(self.record["examples"]):
            what = f"{self.name}: document {example['document']}, token {example['position']}"
            number, position = self._context_of(example)
            if number is None:
                self.report.wrong(f"{what} is not in the corpus")
                continue
            activations = seen[number, self.record["unit"]]
            self._window(what, example, number, position, activations)
            if index in of_bands:
                continue
            side = next((side for side in unit_sides if side.sign * example["values"][example["key"]] > 0), None)
            if side is None or not (number in side.chosen or side.unsure):
                self.report.wrong(f"{what} is not among the unit's examples")
            elif side.keys[number] - side.sign * activations[position] > self.tolerance * side.keys.max():
                self.report.wrong(f"{what} is not the token of highest activation in its context")

    def contexts(self) -> set[int]:
        """The contexts of the published examples."""
        numbers = (self._context_of(example)[0] for example in self.record["examples"])
        return {number for number in numbers if number is not None}

    def _context_of(self, example: Record) -> tuple[int | None, int]:
        offset = example["position"] // self._room * self._room
        number = self._place.get((example["document"], offset))
        position = example["position"] - offset
        if number is None or position >= len(self.text.contexts[number][2]):
            return None, 0
        return number, position

    def _window(self, what: str, example: Record, number: int, position: int, activations: NDArray[np.float32]) -> None:
        first = position - example["key"]
        tokens = self.text.contexts[number][2][max(0, first) : first + len(example["tokens"])]
        if first < 0 or [self._texts[token] for token in tokens] != example["tokens"]:
            self.report.wrong(f"{what}: the text around it differs from the corpus")
            return
        stats = self.record["stats"]
        scale = max(abs(stats["max"]), abs(stats["min"])) or 1.0
        grain = grain_of(-stats["min"] if example["values"][example["key"]] < 0 else stats["max"])
        expected = activations[first : first + len(tokens)].astype(np.float64)
        differences = np.abs(np.array(example["values"]) - expected)
        self.report.count("activations", len(differences))
        largest = max(self.report.largest.get("activations", 0.0), float(differences.max()) / scale)
        self.report.largest["activations"] = largest
        if differences.max() > self.tolerance * scale + 0.501 * grain:
            worst = int(differences.argmax())
            self.report.wrong(
                f"{what}: the activation {worst - example['key']:+d} tokens on is published as "
                f"{example['values'][worst]:.4g}, but computed as {expected[worst]:.4g}"
            )

    def measures(
        self,
        side: ClaimedSide,
        inputs: NDArray[np.float32],
        read_weights: NDArray[np.float32],
        unrelated: Unrelated,
    ) -> None:
        """Compare the number of examples, the distances of neuron embeddings, and the clusters.

        `inputs` are those at the key tokens of the side's contexts, (examples, width), `read_weights` (parts, width).
        """
        claimed = self.record["polysemanticity"] if side.sign > 0 else self.record["negative"]["polysemanticity"]
        what = f"{self.name}{' below zero' if side.sign < 0 else ''}"
        if claimed["examples"] != len(side.chosen):
            if not side.unsure:
                self.report.wrong(
                    f"{what}: examples is published as {claimed['examples']}, but computed as {len(side.chosen)}"
                )
            return
        if side.unsure:
            return  # one context more or less changes every measure
        self._qualifying(what, side, claimed.get("qualifying_contexts"))
        keys = side.keys[side.chosen]
        again = Recomputation(
            SideInputs(inputs, read_weights, keys, unrelated, side.random),
            lambda: _orders(np.lexsort([side.chosen, -keys]), keys),
            self.config.clusters,
            self.config.model.dtype,
        )
        behaviours = claimed_behaviours(what, self.record, side.sign, self._places(side))
        self.report.add(again.compare(behaviours, self.tolerance))

    def _qualifying(self, what: str, side: ClaimedSide, claimed: int | None) -> None:
        """Compare the number of contexts that qualify; atlases of earlier versions do not have it.

        From `per_unit` on the builder estimates it from bins a fourth of a power of two wide.
        """
        if claimed is None:
            return
        rule, active = self.config.examples, side.keys[side.keys > 0]
        number = int((active >= side.threshold).sum())
        low = high = number
        if rule.policy != "top" and number >= rule.per_unit:
            low, high = (int((active >= side.threshold * by).sum()) for by in (2**0.25, 2**-0.25))
        self.report.count("measures")
        if not min(low, rule.per_unit) <= claimed <= high or (low == high != claimed):
            self.report.wrong(f"{what}: qualifying_contexts is published as {claimed}, but computed as {number}")

    def _places(self, side: ClaimedSide) -> dict[int, int]:
        """For each published example of a side, by its index in the record, its place among the side's contexts."""
        of_bands = {index for band in self.record["bands"] for index in band["examples"]}
        place = {int(context): number for number, context in enumerate(side.chosen)}
        places = {}
        for index, example in enumerate(self.record["examples"]):
            number, _ = self._context_of(example)
            if index not in of_bands and side.sign * example["values"][example["key"]] > 0 and number in place:
                places[index] = place[number]
        return places

    def look_up(self, side: ClaimedSide, seen: Mapping[int, NDArray[np.float32]]) -> None:
        """Compare how well the key tokens of examples predict where the unit fires.

        `seen` holds the activations of each held-out context, by its number.
        """
        claimed, maximum = self.record["prediction"], float(side.keys.max(initial=0))
        learnt = side.chosen[side.chosen % HELD_OUT_EVERY != HELD_OUT_EVERY - 1].tolist()
        keys = [self.text.contexts[number][2][side.at[number]] for number in learnt]
        positives = predicted = true_positives = 0
        for number, activations in seen.items():
            fires = (activations >= FIRES * maximum) & (maximum > 0)
            if (np.abs(activations - FIRES * maximum) <= self.tolerance / 10 * maximum).any() and maximum > 0:
                return  # in another run it may not fire
            looked_up = np.isin(self.text.contexts[number][2], keys)
            positives += int(fires.sum())
            predicted += int(looked_up.sum())
            true_positives += int((fires & looked_up).sum())
        for name, value, recomputed in (
            ("tokens on which it fires", claimed["fired"], positives),
            ("precision", claimed["lookup"]["precision"], true_positives / predicted if predicted else np.nan),
            ("recall", claimed["lookup"]["recall"], true_positives / positives if positives else np.nan),
            ("F1", claimed["lookup"]["f1"], 2 * true_positives / (predicted + positives) if positives else np.nan),
        ):
            self.report.compare("look-ups", f"{self.name}: {name} of the look-up", value, float(recomputed), 1e-9)

    def steering(self, change: NDArray[np.float32] | None) -> None:
        """Compare the changes of next-token probabilities, `change`: (vocabulary,), None if units cannot be clamped."""
        if change is None:
            self.report.wrong(f"{self.name} is published with steering, but units of its kind cannot be clamped")
            return
        allowed = _PROBABLE[self.config.model.dtype]
        for side, order in (("more", np.sort(-change)), ("less", np.sort(change))):
            claimed = self.record["steering"][side]
            for place, (text, by) in enumerate(claimed):
                what = f"{self.name}, clamped: {side} probable {text!r}"
                changes = change[[token for token, known in enumerate(self._texts) if known == text]]
                nearest = changes[np.abs(changes - by).argmin()] if len(changes) else np.nan
                self.report.compare("clamped units", what, by, float(nearest), allowed)
                self.report.compare("clamped units", f"{what}, its rank", abs(by), float(abs(order[place])), allowed)

    def bands(self, trace: UnitTrace, place: int) -> None:
        """Compare the edges of the bands, and check that each token drawn lies in its band."""
        maximum = trace.high[:, place].max(keepdims=True).astype(np.float64)
        edges = band_edges(trace.histogram[place : place + 1], maximum, self.config.examples.bands)[0]
        for number, band in enumerate(self.record["bands"]):
            what = f"{self.name}: band {number + 1}"
            for claimed, edge in zip(band["range"], edges[number : number + 2], strict=True):
                # A token at the very edge of a bin may fall on either side.
                self.report.compare("band edges", f"{what}, an edge", claimed, float(edge), 1 / 15, max(edge, 1e-9))
            low, high = band["range"]
            for index in band["examples"]:
                example = self.record["examples"][index]
                value, slack = example["values"][example["key"]], 0.01 * abs(self.record["stats"]["max"])
                if not low - slack <= value <= high + slack:
                    self.report.wrong(f"{what} shows {value:.4g}, which is not between {low:.4g} and {high:.4g}")
