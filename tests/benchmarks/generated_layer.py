"""One layer of a generated atlas: planted behaviours, with examples in real text and plausible activations.

Written in the very formats of the collect and the cluster stage, without a model. What
can be exact is: sizes, coverage and the effective number follow from the labels, moments
and band edges from the histogram. Distances, stability and the activations around a key
token are drawn so as to look like the demo's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import ndtr

from atlas_builder.cluster.clustering import MAIN_SHARE
from atlas_builder.cluster.diversity import diversity_measures
from atlas_builder.cluster.run import BEHAVIOUR, MEASURES_DTYPE
from atlas_builder.cluster.stability import effective_interval
from atlas_builder.collect.bands import DRAWN, band_edges
from atlas_builder.collect.histogram import SIDE, bin_edges
from atlas_builder.collect.results import Moments, band_type, example_type, selection_type
from atlas_builder.config import ExampleSettings
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.novelty import reads_like
from atlas_builder.describe.token_shares import window_tokens
from atlas_builder.files import write_json

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

_SILENT = 0.002  # share of units that never fire
_SHAPELESS = 0.005  # share of units whose examples have nothing in common
_NOISE = 0.02  # share of examples in no behaviour
_SPARE = 1.4  # times as many examples are drawn as are kept, since a context may hold two
_MOST_WORDS = 6  # tokens that a behaviour is a list of
_MEANS = (1.6, 0.7, 1.0, 1.3)  # behaviours of layers, in turn, as shares of the mean of all


class Text:
    """The corpus, with the places of every token and of every word."""

    def __init__(self, contexts: Contexts, texts: list[str]) -> None:
        self.contexts = contexts
        self.tokens = np.asarray(contexts.tokens)
        self.context = np.repeat(np.arange(len(contexts), dtype=np.int32), np.diff(contexts.starts))
        self.by_token = Places.of(self.tokens)
        self.by_word = Places.of(reads_like(texts)[self.tokens])

    def position(self, place: Numbers) -> NDArray[np.int32]:
        """Where in their contexts places of the corpus are."""
        return (place - self.contexts.starts[self.context[place]]).astype(np.int32)


@dataclass(frozen=True)
class Places:
    """The places of the corpus at which each of some numbers stands, the frequent numbers first."""

    order: Numbers
    """Places, by number."""
    first: Numbers
    """The first of each number's places in `order`, by falling frequency."""
    count: Numbers
    """Falling."""

    @classmethod
    def of(cls, numbers: NDArray[np.integer]) -> Places:
        order = np.argsort(numbers, kind="stable")
        _, first, count = np.unique(numbers[order], return_index=True, return_counts=True)
        frequent = np.argsort(-count, kind="stable")
        return cls(order, first[frequent], count[frequent])

    def draw(self, chance: Generator, least: Numbers) -> Numbers:
        """For each of `least` a number that stands at so many places at least, frequent ones rather."""
        eligible = np.searchsorted(-self.count, -least, side="right")
        return (np.maximum(eligible, 1) * chance.random(len(least)) ** 1.5).astype(np.int64)


class Found(NamedTuple):
    """Examples by unit and falling strength: (examples,) each, and what they make up: (behaviours,)."""

    unit: Numbers
    value: Floats
    place: Numbers
    label: NDArray[np.int32]
    behaviours: np.ndarray


@dataclass(frozen=True)
class Layer:
    """What a layer is made with."""

    number: int
    units: int
    mean_behaviours: float
    tokens: int
    """Tokens that count in the statistics."""
    examples: ExampleSettings
    seed: int

    @cached_property
    def chance(self) -> Generator:
        return np.random.default_rng([self.seed, self.number])

    def write(self, text: Text, collect: Path, cluster: Path) -> None:
        """Write the layer's files of the collect and of the cluster stage."""
        folder = collect / f"L{self.number}"
        folder.mkdir(exist_ok=True)
        histogram, moments = self._activations()
        found = self._found(text, histogram, moments)
        live = self.chance.uniform(0.1, 0.4, self.units)
        self._write_examples(text, found, live, folder)
        edges = band_edges(histogram, moments.maximum, self.examples.bands)
        self._write_bands(text, found, live, edges, folder)
        np.save(folder / "histogram.npy", histogram)
        np.save(folder / "moments.npy", np.stack(moments))
        np.save(folder / "band_edges.npy", edges)
        np.save(folder / "selection.npy", self._selection(found, moments))
        facts = {"tokens": self.tokens, "units": self.units, "width": 0, "signs": 1}
        write_json(folder / "layer.json", facts)
        np.save(cluster / f"L{self.number}.labels.npy", found.label)
        np.save(cluster / f"L{self.number}.behaviours.npy", found.behaviours)
        measures = self._measures(found)
        np.save(cluster / f"L{self.number}.measures.npy", measures)
        np.save(cluster / f"L{self.number}.paper_distances.npy", self._paper_distances(measures))
        points, spread = self._plane(found, measures)
        np.save(cluster / f"L{self.number}.points.npy", points)
        np.save(cluster / f"L{self.number}.spread.npy", spread)

    def _activations(self) -> tuple[NDArray[np.uint32], Moments]:
        """Histograms (units, BINS) of GELU over a background and the few tokens a unit is for, and their moments."""
        chance, units = self.chance, self.units
        silent = chance.random(units) < _SILENT
        spread = np.where(silent, 0.2, chance.uniform(0.4, 0.9, units))
        background = np.where(silent, -4.5, chance.normal(-1.2, 0.25, units)), spread
        meant = chance.uniform(0.8, 2.6, units), chance.uniform(0.4, 0.9, units)
        share = np.where(silent, 0, np.exp(chance.normal(np.log(0.012), 1.1, units)).clip(1e-4, 0.3))
        cuts, order, firsts, bins = _gelu_bins()

        def mass(mean: Floats, deviation: Floats) -> Floats:
            below: Floats = ndtr((cuts - mean[:, None]) / deviation[:, None])
            return np.diff(below, axis=1, prepend=0, append=1)  # (units, cells)

        cells = (1 - share)[:, None] * mass(*background) + share[:, None] * mass(*meant)
        expected = np.add.reduceat(cells[:, order], firsts, axis=1) * self.tokens  # (units, bins hit)
        reached = np.rint(np.cumsum(expected, axis=1)).astype(np.int64)
        reached[:, -1] = self.tokens
        edges = bin_edges()
        histogram = np.zeros((units, len(edges) - 1), np.uint32)
        histogram[:, bins] = np.diff(reached, axis=1, prepend=0)
        centres = (edges[1:] + edges[:-1]) / 2
        first, last = (histogram > 0).argmax(axis=1), histogram.shape[1] - 1 - (histogram[:, ::-1] > 0).argmax(axis=1)
        mean = histogram @ centres / self.tokens
        deviation = np.sqrt(np.maximum(histogram @ centres**2 / self.tokens - mean**2, 0))
        maximum = (edges[last] + (edges[last + 1] - edges[last]) * chance.random(units)).astype(np.float32)
        minimum = np.maximum(edges[first], _LOWEST_OF_GELU).astype(np.float32)
        density = histogram[:, SIDE + 1 :].sum(axis=1) / self.tokens
        return histogram, Moments(maximum.astype(np.float64), minimum.astype(np.float64), mean, deviation, density)

    def _found(self, text: Text, histogram: NDArray[np.uint32], moments: Moments) -> Found:
        chance, most = self.chance, self.examples.per_unit
        reach, lowest, holds_highest = self._reach(histogram, moments)
        unit, kind_of, member, place = self._places(text, np.minimum(reach, round(_SPARE * most)).astype(np.int64))

        # A context counts once for a unit; of those that are left, a sample.
        _, kept = np.unique(unit * len(text.contexts) + text.context[place], return_index=True)
        kept = kept[np.lexsort([chance.random(len(kept)), unit[kept]])]
        owner = unit[kept]
        kept = kept[np.arange(len(kept)) - np.searchsorted(owner, owner) < most]
        unit, kind_of, member, place = unit[kept], kind_of[kept], member[kept], place[kept]
        strength = chance.uniform(0.4, 1, int(kind_of.max(initial=0)) + 1)[kind_of]
        share = lowest[unit] + (1 - lowest[unit]) * strength * chance.random(len(unit)) ** 1.5
        order = np.lexsort([-share, unit])
        unit, kind_of, member, place, share = unit[order], kind_of[order], member[order], place[order], share[order]
        leads = np.diff(unit, prepend=-1) > 0
        share = np.where(leads & holds_highest[unit], 1, share)
        value = share * moments.maximum[unit]
        label, behaviours = self._behaviours(unit, np.where(member, kind_of, -1), value)
        return Found(unit, value, place, label, behaviours)

    def _reach(self, histogram: NDArray[np.uint32], moments: Moments) -> tuple[Numbers, Floats, NDArray[np.bool_]]:
        """How many contexts can be examples, the share of the maximum that all reach, and whether the highest is one.

        All are (units,). A context is taken to hold one token that reaches a share. Where too few reach that of
        policy `robust`, the highest are the examples, as they always are for `top`.
        """
        examples = self.examples

        def reaching(share: float) -> Numbers:
            near = bin_edges()[:-1] >= share * moments.maximum[:, None]  # (units, BINS)
            return np.where(moments.density > 0, np.maximum((histogram * near).sum(axis=1), 1), 0).astype(np.int64)

        if examples.policy == "threshold":
            reach = reaching(examples.threshold)
            return reach, np.full(self.units, examples.threshold), reach < examples.per_unit
        least = examples.per_unit if examples.policy == "top" else min(examples.least, examples.per_unit)
        reach = reaching(examples.share)
        few = (reach < least) | (examples.policy == "top")
        reach = np.where(few, np.minimum(reaching(examples.weakest), least), reach)
        return reach, np.where(few, examples.weakest, examples.share), few | (reach < examples.per_unit)

    def _selection(self, found: Found, moments: Moments) -> np.ndarray:
        """As the policy of the examples has it: (units, 1)."""
        selection = np.zeros((self.units, 1), selection_type)
        column, kept = selection[:, 0], np.bincount(found.unit, minlength=self.units)
        column["robust"], column["reach"] = np.maximum(moments.maximum, 0), kept
        if self.examples.policy == "top":
            column["reach"] = np.maximum(kept, np.rint(moments.density * self.tokens))
            column["filled"] = column["reach"] > self.examples.per_unit
        elif self.examples.policy == "robust":
            rank = np.arange(len(found.unit)) - np.searchsorted(found.unit, found.unit)
            column["robust"] = np.bincount(found.unit, found.value * (rank < 10), minlength=self.units) / 10
            reaches = found.value >= self.examples.share * column["robust"][found.unit]
            column["reach"] = np.bincount(found.unit, reaches, minlength=self.units)
            column["filled"] = kept > column["reach"]
        return selection

    def _places(self, text: Text, wanted: Numbers) -> tuple[Numbers, Numbers, NDArray[np.bool_], Numbers]:
        """Unit, behaviour, whether it is in one at all, and place in the corpus of each example."""
        chance = self.chance
        mean = max(0.2, self.mean_behaviours * _MEANS[self.number % len(_MEANS)] / float(np.mean(_MEANS)) - 1)
        count = 1 + chance.poisson(chance.gamma(1.5, mean / 1.5, self.units))
        count[chance.random(self.units) < _SHAPELESS] = 0
        count = np.minimum(count, np.where(wanted == 1, 1, wanted // 2))
        noise = np.where(count > 0, chance.binomial(np.maximum(wanted - 2 * count, 0), _NOISE), wanted)
        owner = np.repeat(np.arange(self.units), count)  # (behaviours,)
        weight = chance.gamma(0.8, size=len(owner))
        weight /= np.bincount(owner, weight, minlength=self.units)[owner]
        free = wanted - noise - np.minimum(2 * count, wanted)
        size = np.minimum(2, wanted[owner]) + (weight * free[owner]).astype(np.int64)
        first = np.diff(owner, prepend=-1) > 0
        size[first] += (wanted - noise - np.bincount(owner, size, minlength=self.units).astype(np.int64))[owner[first]]

        behaviour = np.repeat(np.arange(len(owner)), size)  # (examples,)
        turn = np.arange(len(behaviour)) - np.repeat(np.cumsum(size) - size, size)
        place = self._meant(text, size, behaviour, turn)
        stray = np.repeat(np.arange(self.units), noise)
        return (
            np.concatenate([owner[behaviour], stray]),
            np.concatenate([behaviour, np.zeros(len(stray), np.int64)]),
            np.concatenate([np.ones(len(behaviour), np.bool_), np.zeros(len(stray), np.bool_)]),
            np.concatenate([place, chance.integers(len(text.tokens), size=len(stray))]),
        )

    def _meant(self, text: Text, size: Numbers, behaviour: Numbers, turn: Numbers) -> Numbers:
        """Where the corpus has what each behaviour is for: a token, a word as often written, lists, or what follows."""
        chance = self.chance
        kind = chance.choice(4, size=len(size), p=[0.4, 0.25, 0.25, 0.1])
        words = np.where(kind == 2, chance.integers(2, _MOST_WORDS + 1, len(size)), 1)
        each = -(-size // words)
        place = np.empty(len(behaviour), np.int64)
        for by_word, places in ((False, text.by_token), (True, text.by_word)):
            own = (kind == 1) == by_word
            number = np.stack([places.draw(chance, each) for _ in range(_MOST_WORDS)], axis=1)  # (behaviours, words)
            mine = own[behaviour]
            which, whose = turn[mine] % words[behaviour[mine]], behaviour[mine]
            meant, lap = number[whose, which], turn[mine] // words[whose]
            # One in each equal part of all its places: none twice.
            at = ((lap + chance.random(len(lap))) / each[whose] * places.count[meant]).astype(np.int64)
            place[mine] = places.order[places.first[meant] + np.minimum(at, places.count[meant] - 1)]
        found: Numbers = np.minimum(place + (kind == 3)[behaviour], len(text.tokens) - 1)
        return found

    def _behaviours(self, unit: Numbers, behaviour: Numbers, value: Floats) -> tuple[NDArray[np.int32], np.ndarray]:
        """Number behaviours as the cluster stage does; what too few examples are left of is noise."""
        examples = np.bincount(unit, minlength=self.units)
        size = np.bincount(behaviour[behaviour >= 0], minlength=1)
        alone = (behaviour >= 0) & (size[behaviour] < np.minimum(2, examples[unit]))
        member = np.flatnonzero((behaviour >= 0) & ~alone)
        old, first, inverse = np.unique(behaviour[member], return_index=True, return_inverse=True)
        whose = unit[member[first]]
        order = np.lexsort([first, -size[old], whose])
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        number = rank[inverse.reshape(-1)]  # of each member, through the layer

        found = np.zeros(len(order), BEHAVIOUR)
        found["unit"], found["sign"], found["size"] = whose[order], 1, size[old][order]
        found["id"] = np.arange(len(order)) - np.searchsorted(found["unit"], found["unit"])
        total = np.bincount(unit, value, minlength=self.units)
        found["coverage"] = np.bincount(number, value[member], minlength=len(order)) / total[found["unit"]]
        found["stability"] = np.where(found["size"] > 1, self.chance.beta(9, 1, len(order)), np.nan)
        middle = np.cumsum(found["size"]) - found["size"] + found["size"] // 2
        found["central"] = member[np.argsort(number, kind="stable")][middle]
        label = np.full(len(unit), -1, np.int32)
        label[member] = found["id"][number]
        return label, found

    def _write_examples(self, text: Text, found: Found, live: Floats, folder: Path) -> None:
        before, after = self.examples.window
        examples = np.zeros(len(found.unit), example_type(before + after + 1))
        examples["unit"], examples["sign"], examples["value"] = found.unit, 1, found.value
        examples["context"], examples["position"] = text.context[found.place], text.position(found.place)
        examples["window"] = self._windows(text, found.unit, found.place, found.value, live, found)
        np.save(folder / "examples.npy", examples)
        np.save(folder / "starts.npy", np.searchsorted(found.unit, np.arange(self.units + 1)))

    def _windows(
        self, text: Text, unit: Numbers, place: Numbers, value: Floats, live: Floats, found: Found
    ) -> NDArray[np.float32]:
        """Activations around places: mostly small negatives, bursts, and more where a token is that the unit is for."""
        before, after = self.examples.window
        contexts = text.contexts
        tokens = window_tokens(
            text.tokens, contexts.starts, text.context[place], text.position(place), before, after
        )  # (examples, window)
        shape = tokens.shape
        values = _gelu(self.chance.normal(-1.2, 0.6, shape).astype(np.float32))
        loud = (self.chance.random(shape, np.float32) ** 1.5 * 0.9 * value[:, None]).astype(np.float32)
        vocabulary = int(text.tokens.max()) + 1
        known = np.unique((found.unit * vocabulary + text.tokens[found.place])[found.label >= 0])
        asked = unit[:, None] * vocabulary + tokens
        at = np.minimum(np.searchsorted(known, asked), max(0, len(known) - 1))
        meant = known[at] == asked if len(known) else np.zeros(shape, np.bool_)
        burst = self.chance.random(shape, np.float32) < live[unit][:, None]
        values = np.where(meant | burst, loud, values)
        values[:, before] = value
        return np.where(tokens >= 0, values, np.float32(np.nan))

    def _write_bands(self, text: Text, found: Found, live: Floats, edges: Floats, folder: Path) -> None:
        """Tokens drawn from the bands: the higher the band, the more of them the unit is for."""
        chance, keep, quantiles = self.chance, self.examples.per_band * DRAWN, np.array(self.examples.bands)
        chances = (quantiles[1:] - quantiles[:-1]) / (1 - quantiles[:-1])
        fires = ~np.isnan(edges[:, 0])
        count = np.where(
            fires[:, None], chance.binomial(keep, chances, (self.units, len(chances))), 0
        )  # (units, bands)
        drawn = np.zeros(int(count.sum()), band_type)
        unit, band = (np.repeat(part, count.ravel()) for part in np.indices(count.shape).reshape(2, -1))
        drawn["unit"], drawn["band"] = unit, band
        drawn["rank"] = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count.ravel(), count.ravel())
        low, high = edges[unit, band], edges[unit, band + 1]
        drawn["value"] = low + (high - low) * chance.random(len(unit))
        starts = np.searchsorted(found.unit, np.arange(self.units + 1))
        own = np.diff(starts)[unit]
        like = starts[unit] + (chance.random(len(unit)) * own).astype(np.int64)
        meant = (chance.random(len(unit)) < 0.02 - 0.29 * np.log10(1 - quantiles[band])) & (own > 0)
        place = chance.integers(len(text.tokens), size=len(unit))
        place[meant] = found.place[like[meant]]
        drawn["context"], drawn["position"] = text.context[place], text.position(place)
        np.save(folder / "bands.npy", drawn)
        shown = drawn["rank"] < self.examples.per_band
        windows = self._windows(text, unit[shown], place[shown], drawn["value"][shown], live, found)
        np.save(folder / "band_windows.npy", windows)

    def _measures(self, found: Found) -> np.ndarray:
        """`MEASURES` of each unit, (units, 1): counts and their functions exact, distances plausible."""
        chance, behaviours = self.chance, found.behaviours
        owner, size = behaviours["unit"], behaviours["size"].astype(np.float64)
        examples = np.bincount(found.unit, minlength=self.units)
        clustered = np.bincount(owner, size, minlength=self.units)
        share = size / clustered[owner]
        measures = np.zeros((self.units, 1), MEASURES_DTYPE)
        column = measures[:, 0]
        column["behaviours"], column["examples"] = np.bincount(owner, minlength=self.units), examples
        main = size >= MAIN_SHARE * examples[owner]
        column["main_behaviours"] = np.bincount(owner, main, minlength=self.units)
        column["main_low"] = np.maximum(column["main_behaviours"] - 1, 0)
        column["main_high"], column["main_half"] = column["main_behaviours"] + 1, column["main_behaviours"]
        with np.errstate(invalid="ignore", divide="ignore"):
            entropy = np.bincount(owner, -share * np.log(share), minlength=self.units)
            column["effective_behaviours"] = np.where(clustered > 0, np.exp(entropy), 0)
            column["noise_fraction"] = np.where(examples > 0, 1 - clustered / examples, 0)
            alike = np.bincount(owner, size * (size - 1), minlength=self.units)
            apart = clustered**2 - np.bincount(owner, size**2, minlength=self.units)
            pairs = examples * (examples - 1.0)
            intra, inter = chance.normal(0.27, 0.07, self.units).clip(0.02), chance.normal(0.67, 0.05, self.units)
            column["intra_distance"] = np.where(alike > 0, intra, np.nan)
            column["inter_distance"] = np.where(apart > 0, inter, np.nan)
            far = 0.85  # between noise and anything
            mean = (alike * intra + apart * inter + (pairs - alike - apart) * far) / pairs
            column["mean_distance"] = np.where(pairs > 0, mean, np.nan)
            widest = np.maximum(mean, np.where(apart > 0, inter, intra)) + chance.uniform(0.1, 0.4, self.units)
            column["max_distance"] = np.where(pairs > 0, widest, np.nan)
            column["mono_score"] = np.where(pairs > 0, 1 - mean + chance.normal(0, 0.02, self.units), np.nan)
            stability = np.nan_to_num(behaviours["stability"])
            column["stability"] = np.bincount(owner, stability * share, minlength=self.units) / (alike > 0)
        starts = np.searchsorted(owner, np.arange(self.units + 1))
        for unit, (first, end) in enumerate(pairwise(starts)):
            interval = effective_interval(behaviours["size"][first:end])
            column["effective_low"][unit], column["effective_high"][unit] = interval
            labels = np.repeat(np.arange(end - first), behaviours["size"][first:end])
            alone = np.full(int(examples[unit]) - len(labels), -1)
            known = diversity_measures(np.concatenate([labels, alone]).astype(np.int32), [])
            for name, value in known._asdict().items():
                column[name][unit] = value
            column["standard_low"][unit] = max(1.0, 0.7 * known.standard_behaviours)
            column["standard_high"][unit] = 1.3 * known.standard_behaviours
        return measures

    def _paper_distances(self, measures: np.ndarray) -> Floats:
        intra, inter = measures["intra_distance"][:, 0], measures["inter_distance"][:, 0]
        own = np.stack([intra, inter, intra * 0.95, inter * 1.05], axis=1)
        return np.asarray(own + self.chance.normal(0, 0.01, own.shape))

    def _plane(self, found: Found, measures: np.ndarray) -> tuple[NDArray[np.float32], Floats]:
        """Each example near the middle of its behaviour, (examples, 2), and the share that the plane holds."""
        chance, behaviours = self.chance, found.behaviours
        starts = np.searchsorted(behaviours["unit"], np.arange(self.units))
        middle = chance.normal(0, 0.4, (len(behaviours) + 1, 2))
        whose = np.where(found.label >= 0, starts[found.unit] + found.label, len(behaviours))
        points = middle[whose] + chance.normal(0, 0.12, (len(whose), 2))
        known = ~np.isnan(measures["mean_distance"])
        return points.astype(np.float32), np.where(known, chance.uniform(0.2, 0.8, known.shape), np.nan)


def _gelu(x: NDArray[Any]) -> NDArray[Any]:
    """GELU by its usual approximation."""
    found: NDArray[Any] = 0.5 * x * (1 + np.tanh(0.79788456 * (x + 0.044715 * x**3)))
    return found


_LOWEST_OF_GELU = -0.17004


def _gelu_bins() -> tuple[Floats, Numbers, Numbers, Numbers]:
    """What is needed to count GELU(x) for any distribution of x.

    The x between which no bin's edge is met, in rising order (cuts); an order of the
    cells between and beyond them by bin, the first cell of each bin in it, and those bins.
    """
    edges = bin_edges()
    x = np.linspace(-12, 40, 520_001)
    y = _gelu(x)
    lowest = int(y.argmin())
    falling = np.interp(edges[(edges < 0) & (edges > y[lowest])], y[lowest::-1], x[lowest::-1])
    rising = np.interp(edges[edges > y[lowest]], y[lowest:], x[lowest:])
    cuts = np.unique(np.concatenate([falling, rising[rising < x[-1]]]))
    inside = np.concatenate([[cuts[0] - 1], (cuts[1:] + cuts[:-1]) / 2, [cuts[-1]]])
    bins = np.searchsorted(edges, _gelu(inside), side="right") - 1
    order = np.argsort(bins, kind="stable")
    hit, firsts = np.unique(bins[order], return_index=True)
    return cuts, order, firsts, hit
