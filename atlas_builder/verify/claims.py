"""What a record claims of a unit, held against a second reading, claim by claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster import clustering
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.stability import stability_measures
from atlas_builder.collect.bands import band_edges
from atlas_builder.collect.sampling import contexts_chances, stream
from atlas_builder.config import Configuration
from atlas_builder.describe.token_scores import FIRES, HELD_OUT_EVERY
from atlas_builder.rerun.passes import Text, UnitTrace
from atlas_builder.rounding import grain_of

Record = dict[str, Any]

_ROUNDED = 5e-4  # four significant digits, relatively
_SAME, _SWAPPED = 1e-5, 4  # activations as near as that may come in another order; so many pairs are tried
_MEASURED = 1e-3  # distances are cosines of float32 vectors
_PROBABLE = {"float32": 1e-4, "bfloat16": 5e-2}  # probabilities, through all later layers
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""How far two runs of a model may part, as a share of a unit's largest activation."""


@dataclass
class VerificationReport:
    """What was compared, how far it was off at most, and what does not hold."""

    compared: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    """By kind: activations as shares of the unit's largest, statistics relatively, measures as they are."""
    problems: list[str] = field(default_factory=list)

    def hold(self, kind: str, what: str, claimed: float | None, found: float, allowed: float, scale: float = 1) -> None:
        """Compare a number; what is `allowed`, beyond rounding, and what is reported are shares of `scale`."""
        self.compared[kind] = self.compared.get(kind, 0) + 1
        if claimed is None or np.isnan(found):
            if not (claimed is None and np.isnan(found)):
                self.problems.append(f"{what} is published as {claimed}, and read as {found:.4g}")
            return
        off = abs(claimed - found)
        self.largest[kind] = max(self.largest.get(kind, 0.0), off / scale)
        if not off <= allowed * scale + _ROUNDED * abs(claimed):
            self.problems.append(f"{what} is published as {claimed:.4g}, and read as {found:.4g}")

    @property
    def summary(self) -> str:
        """How much was compared and how far it was off at most."""
        parts = [f"{count:,} {kind} {self.largest.get(kind, 0.0):.1e}" for kind, count in sorted(self.compared.items())]
        end = f"{len(self.problems)} claims do not hold" if self.problems else "all holds"
        return f"largest difference, rounding included, of {', of '.join(parts)}: {end}"

    def wrong(self, problem: str) -> None:
        """Note a claim that does not hold."""
        self.problems.append(problem)


@dataclass(frozen=True)
class ClaimedSide:
    """A unit above zero or below: what it did in each context, with the sign turned below."""

    sign: int
    keys: NDArray[np.float64]
    """Highest activation of each context: (contexts,)."""
    at: NDArray[np.int32]
    """Where the first token is that reaches it."""
    chosen: NDArray[np.int64]
    """The contexts that stand for the unit."""
    unsure: bool
    """Whether a context is so near the border that another run may choose otherwise."""


def sides(
    course: UnitTrace, place: int, layer: int, unit: int, signed: bool, config: Configuration
) -> Iterator[ClaimedSide]:
    """Choose a unit's examples anew; `place` is its column in the course."""
    for side, (high, at, sign) in enumerate(((course.high, course.high_at, 1), (course.low, course.low_at, -1))):
        if side <= int(signed):
            keys = sign * high[:, place].astype(np.float64)
            yield ClaimedSide(sign, keys, at[:, place], *_choose(keys, layer, unit, side, config))


def _choose(
    keys: NDArray[np.float64], layer: int, unit: int, side: int, config: Configuration
) -> tuple[NDArray[np.int64], bool]:
    rule, top = config.examples, float(keys.max(initial=0))
    near = TOLERANCE[config.model.dtype] * top
    active = np.flatnonzero(keys > 0)
    if rule.policy == "top":
        chosen = active[np.lexsort([active, -keys[active]])][: rule.per_unit]
        border = keys[chosen[-1]] if len(chosen) == rule.per_unit else 0.0
        return chosen, bool((np.abs(keys - border) <= near).sum() > 1)
    chosen = active[keys[active] >= rule.threshold * top]
    column = np.full(len(chosen), unit, np.uint64)
    chances = contexts_chances(stream(rule.seed, layer), column, column * 0 + np.uint64(side), chosen.astype(np.uint64))
    unsure = bool((np.abs(keys - rule.threshold * top) <= near).any())
    return np.sort(chosen[np.argsort(chances)][: rule.per_unit]), unsure


def _orders(order: NDArray[np.intp], keys: NDArray[np.float64]) -> Iterator[NDArray[np.intp]]:
    """The order of examples, the highest first, and those in which neighbours a rounding apart have changed places.

    The samples that stability is measured on are drawn by place.
    """
    close = np.flatnonzero(-np.diff(keys[order]) <= _SAME * keys.max(initial=0))[:_SWAPPED]
    for swaps in product((False, True), repeat=len(close)):
        found = order.copy()
        for place in close[list(swaps)]:
            found[[place, place + 1]] = found[[place + 1, place]]
        yield found


class Claims:
    """Holds the record of one unit against what was read."""

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

    def statistics(self, course: UnitTrace, place: int) -> None:
        """Maximum, minimum, mean, deviation, density and histogram."""
        stats, tokens = self.record["stats"], self.text.tokens
        mean = course.total[place] / tokens
        deviation = np.sqrt(max(0.0, course.squares[place] / tokens - mean**2))
        high, low = float(course.high[:, place].max()), float(course.low[:, place].min())
        scale = max(abs(high), abs(low)) or 1.0
        for name, found in (("max", high), ("min", low), ("mean", mean), ("std", deviation)):
            self.report.hold("statistics", f"{self.name}: {name}", stats[name], found, self.tolerance, scale)
        density = course.positive[place] / tokens
        slack = max(self.tolerance, 3 / tokens)
        self.report.hold("statistics", f"{self.name}: density", stats["density"], density, slack)
        if stats["tokens"] != tokens:
            self.report.wrong(f"{self.name}: {stats['tokens']} tokens are said to be read, and {tokens} are there")

    def examples(self, found: Sequence[ClaimedSide], seen: dict[tuple[int, int], NDArray[np.float32]]) -> None:
        """Each published example: that it is one, its text and its activations.

        `seen` holds the activations of a context, by its number and the unit's place.
        """
        of_bands = {index for band in self.record["bands"] for index in band["examples"]}
        for index, example in enumerate(self.record["examples"]):
            what = f"{self.name}: document {example['document']}, token {example['position']}"
            number, position = self._context_of(example)
            if number is None:
                self.report.wrong(f"{what} is not in the corpus")
                continue
            course = seen[number, self.record["unit"]]
            self._window(what, example, number, position, course)
            if index in of_bands:
                continue
            side = next((side for side in found if side.sign * example["values"][example["key"]] > 0), None)
            if side is None or not (number in side.chosen or side.unsure):
                self.report.wrong(f"{what} is no example of it")
            elif side.keys[number] - side.sign * course[position] > self.tolerance * side.keys.max():
                self.report.wrong(f"{what} is not where it is most active in that context")

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

    def _window(self, what: str, example: Record, number: int, position: int, course: NDArray[np.float32]) -> None:
        first = position - example["key"]
        tokens = self.text.contexts[number][2][max(0, first) : first + len(example["tokens"])]
        if first < 0 or [self._texts[token] for token in tokens] != example["tokens"]:
            self.report.wrong(f"{what}: the text around it is another")
            return
        stats = self.record["stats"]
        scale = max(abs(stats["max"]), abs(stats["min"])) or 1.0
        grain = grain_of(-stats["min"] if example["values"][example["key"]] < 0 else stats["max"])
        found = course[first : first + len(tokens)].astype(np.float64)
        off = np.abs(np.array(example["values"]) - found)
        self.report.compared["activations"] = self.report.compared.get("activations", 0) + len(off)
        self.report.largest["activations"] = max(self.report.largest.get("activations", 0.0), float(off.max()) / scale)
        if off.max() > self.tolerance * scale + 0.501 * grain:
            worst = int(off.argmax())
            self.report.wrong(
                f"{what}: the activation {worst - example['key']:+d} tokens on is published as "
                f"{example['values'][worst]:.4g}, and read as {found[worst]:.4g}"
            )

    def measures(self, side: ClaimedSide, inputs: NDArray[np.float32], read_weights: NDArray[np.float32]) -> None:
        """Number of examples, neuron embeddings by their distances, and the clusters.

        `inputs` are those at the key tokens of the side's contexts, (examples, width).
        """
        claimed = self.record["polysemanticity"] if side.sign > 0 else self.record["negative"]["polysemanticity"]
        what = f"{self.name}{' below zero' if side.sign < 0 else ''}"
        if claimed["examples"] != len(side.chosen):
            if not side.unsure:
                self.report.wrong(f"{what}: {claimed['examples']} examples are published, and {len(side.chosen)} found")
            return
        if side.unsure:
            return  # one context more or less, and every measure is another
        keys = side.keys[side.chosen]
        distances = cosine_distances(neuron_embeddings(inputs, read_weights))
        best: dict[str, float] | None = None
        for order in _orders(np.lexsort([side.chosen, -keys]), keys):
            for found in self._possible(distances[np.ix_(order, order)], keys[order].astype(np.float32)):
                if best is None or self._off(claimed, found) < self._off(claimed, best):
                    best = found
            if best is not None and self._off(claimed, best) < _MEASURED:
                break
        for name, value in (best or {}).items():
            self.report.hold("measures", f"{what}: {name}", claimed[name], float(value), _MEASURED)

    def _possible(self, distances: NDArray[np.float32], values: NDArray[np.float32]) -> Iterator[dict[str, float]]:
        """The measures, also for distances a rounding away: clusters may hang on a single one."""
        for nudge in (0, 1e-5, -1e-5):
            nudged = np.maximum(distances + np.float32(nudge), 0)
            np.fill_diagonal(nudged, 0)
            labels = clustering.cluster(nudged, self.config.clusters)
            sure, _ = stability_measures(nudged, labels, values, self.config.clusters)
            yield {**clustering.measure(distances, labels)._asdict(), **sure._asdict()}

    @staticmethod
    def _off(claimed: Record, found: dict[str, float]) -> float:
        pairs = ((claimed[name], value) for name, value in found.items())
        return float(sum(abs(claim - value) for claim, value in pairs if claim is not None and not np.isnan(value)))

    def look_up(self, side: ClaimedSide, seen: Mapping[int, NDArray[np.float32]]) -> None:
        """How well the key tokens of examples foretell where the unit fires.

        `seen` holds the activations of each held-out context, by its number.
        """
        claimed, maximum = self.record["prediction"], float(side.keys.max(initial=0))
        learnt = side.chosen[side.chosen % HELD_OUT_EVERY != HELD_OUT_EVERY - 1].tolist()
        keys = [self.text.contexts[number][2][side.at[number]] for number in learnt]
        fired = said = right = 0
        for number, activations in seen.items():
            fires = (activations >= FIRES * maximum) & (maximum > 0)
            if (np.abs(activations - FIRES * maximum) <= self.tolerance / 10 * maximum).any() and maximum > 0:
                return  # another run may find that it does not fire
            told = np.isin(self.text.contexts[number][2], keys)
            fired, said, right = fired + int(fires.sum()), said + int(told.sum()), right + int((fires & told).sum())
        for name, value, found in (
            ("tokens on which it fires", claimed["fired"], fired),
            ("precision", claimed["lookup"]["precision"], right / said if said else np.nan),
            ("recall", claimed["lookup"]["recall"], right / fired if fired else np.nan),
            ("F1", claimed["lookup"]["f1"], 2 * right / (said + fired) if fired else np.nan),
        ):
            self.report.hold("look-ups", f"{self.name}: {name} of the look-up", value, float(found), 1e-9)

    def steering(self, change: NDArray[np.float32] | None) -> None:
        """What comes next more and less often when the unit is held: `change`, (vocabulary,), where it can be."""
        if change is None:
            self.report.wrong(f"{self.name} is said to be held, which its kind cannot be")
            return
        allowed = _PROBABLE[self.config.model.dtype]
        for side, order in (("more", np.sort(-change)), ("less", np.sort(change))):
            claimed = self.record["steering"][side]
            for place, (text, by) in enumerate(claimed):
                what = f"{self.name}, held: {side} often, {text!r}"
                own = change[[token for token, known in enumerate(self._texts) if known == text]]
                nearest = own[np.abs(own - by).argmin()] if len(own) else np.nan
                self.report.hold("held units", what, by, float(nearest), allowed)
                self.report.hold("held units", f"{what}, its place", abs(by), float(abs(order[place])), allowed)

    def bands(self, course: UnitTrace, place: int) -> None:
        """The edges of the bands, and that each token drawn lies in its band."""
        maximum = course.high[:, place].max(keepdims=True).astype(np.float64)
        edges = band_edges(course.histogram[place : place + 1], maximum, self.config.examples.bands)[0]
        for number, band in enumerate(self.record["bands"]):
            what = f"{self.name}: band {number + 1}"
            for claimed, found in zip(band["range"], edges[number : number + 2], strict=True):
                # A token at the very edge of a bin may fall on either side.
                self.report.hold("band edges", f"{what}, an edge", claimed, float(found), 1 / 15, max(found, 1e-9))
            low, high = band["range"]
            for index in band["examples"]:
                example = self.record["examples"][index]
                value, slack = example["values"][example["key"]], 0.01 * abs(self.record["stats"]["max"])
                if not low - slack <= value <= high + slack:
                    self.report.wrong(f"{what} shows {value:.4g}, which is not between {low:.4g} and {high:.4g}")
