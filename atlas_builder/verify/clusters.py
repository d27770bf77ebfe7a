"""What a record claims of the behaviours of one side of a unit, compared with all that another run may find.

Two runs differ by rounding, and a clustering may hang on the last digit of one distance. So distances are
changed a little, in several ways, and a claim is wrong only if no change explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import ClusterSettings
from atlas_builder.verify.background import Unrelated, embedded, pairwise_cosines
from atlas_builder.verify.clusterings import clusters_of, drawn_halves
from atlas_builder.verify.diversity import diversity_numbers
from atlas_builder.verify.linkage import Cluster, Matrix
from atlas_builder.verify.measures import (
    distance_measures,
    effective_ends,
    main_numbers,
    mean_stability,
    stabilities,
    weighted_similarity,
)
from atlas_builder.verify.precision import tolerance as allowed_by_rounding
from atlas_builder.verify.report import VerificationReport

Record = dict[str, Any]
Order = NDArray[np.intp]

_RANDOM_NUDGES = 4
_EXPLANATIONS = 100  # tried at most, beyond those without a nudge and the nearest
_ROUNDS = 2
_COUNTED = 1e-6  # what follows from whole numbers alone
_OF_DISTANCES = ("mean_distance", "max_distance", "intra_distance", "inter_distance", "mono_score")


@dataclass(frozen=True)
class ClaimedBehaviours:
    """What the record of a unit says of the behaviours of one side; examples are numbered by `places`."""

    name: str
    measures: Record
    behaviours: list[Record]
    """Those of this side, in order."""
    before: int
    """The number of behaviours of the other side that are listed before them."""
    labels: dict[int, tuple[str, int | None]]
    """For each example that is published, how to call it, and the id of its behaviour."""
    central: list[int | None]
    """The central example of each behaviour, None where the example is not the unit's."""


def claimed_behaviours(name: str, record: Record, sign: int, places: Mapping[int, int]) -> ClaimedBehaviours:
    """Read the claims of one side; `places` has the place of each published example among the side's examples."""
    positive = [behaviour for behaviour in record["behaviours"] if behaviour["sign"] > 0]
    side = record if sign > 0 else record["negative"]
    of_side = [behaviour for behaviour in record["behaviours"] if behaviour["sign"] == sign]
    labels = {}
    for index, place in places.items():
        example = record["examples"][index]
        labels[place] = f"document {example['document']}, token {example['position']}", example["behaviour"]
    central = [places.get(behaviour["central"]) for behaviour in of_side]
    return ClaimedBehaviours(name, side["polysemanticity"], of_side, 0 if sign > 0 else len(positive), labels, central)


@dataclass(frozen=True)
class SideInputs:
    """What the second run read at the examples of one side."""

    inputs: NDArray[np.float32]
    """At the key tokens: (examples, width)."""
    read: NDArray[np.float32]
    """(parts, width)."""
    strengths: NDArray[np.float64]
    """The size of each activation: (examples,)."""
    unrelated: Unrelated
    random: bool
    """Whether the examples are a random sample of those that qualify."""


class _Found(NamedTuple):
    """One way to see the behaviours of a side: clusters by number of example, in the order `order`."""

    order: Order
    clusters: list[Cluster]
    samples: list[list[int]]
    again: list[list[Cluster]]
    """For each sample, its clusters."""


class Recomputation:
    """The behaviours of one side of a unit, computed again.

    `orders` gives the order of examples, highest activation first, and others that differ by rounding;
    `dtype` is the model's.
    """

    def __init__(
        self, side: SideInputs, orders: Callable[[], Iterator[Order]], settings: ClusterSettings, dtype: str
    ) -> None:
        self._orders, self._settings, self._strengths = orders, settings, side.strengths
        self._random = side.random
        self._nudge, self._measured = allowed_by_rounding("decision", dtype), allowed_by_rounding("distance", dtype)
        self.distances = np.clip(1 - pairwise_cosines(embedded(side.inputs, side.read)), 0, 2)
        self.clustered, self._dimensions = self.distances, np.inf
        if settings.method in ("linkage", "hdbscan"):
            self.clustered, self._dimensions = 1 - side.unrelated.cosines(side.inputs), side.unrelated.dimensions

    def compare(self, claimed: ClaimedBehaviours, tolerance: float) -> tuple[VerificationReport, list[Cluster]]:
        """Compare all claims with the explanation that leaves the fewest unexplained; also its clusters."""
        best, clusters = VerificationReport(), list[Cluster]()
        for number, found in enumerate(self._explanations(claimed)):
            report = self._compared(claimed, found, tolerance)
            if number == 0 or len(report.problems) < len(best.problems):
                best, clusters = report, found.clusters
            if not report.problems:
                break
        return best, clusters

    def _explanations(self, claimed: ClaimedBehaviours) -> Iterator[_Found]:
        for order in self._orders():
            yield self._found(order, [self._clusters(order, sample, None) for sample in self._samples()])
        possible = [(order, self._possible(order)) for order in self._orders()]
        for order, of_each in possible:
            for whole in of_each[-1]:
                yield self._nearest(claimed, order, of_each[:-1], whole)
        choices = ((order, choice) for order, of_each in possible for choice in product(*of_each))
        yield from (self._found(order, list(choice)) for order, choice in islice(choices, _EXPLANATIONS))

    def _samples(self) -> list[list[int]]:
        """Which examples are clustered together, by their place in an order: random halves, and at last all."""
        count = len(self.distances)
        return [*drawn_halves(count, self._settings.resamples), list(range(count))]

    def _possible(self, order: Order) -> list[list[list[Cluster]]]:
        """For each sample the clusterings that rounding may make of it."""
        nudges = list(self._nudges())
        possible = []
        for sample in self._samples():
            different: list[list[Cluster]] = []
            for nudge in (None, *nudges):
                clusters = self._clusters(order, sample, nudge)
                different += [clusters] if clusters not in different else []
            possible.append(different)
        return possible

    def _nearest(
        self, claimed: ClaimedBehaviours, order: Order, halves: list[list[list[Cluster]]], whole: list[Cluster]
    ) -> _Found:
        """Clusterings of the halves with which stabilities are nearest to the claims, found half by half."""
        stated = [float(behaviour["stability"] or 0) for behaviour in claimed.behaviours]

        def apart(parts: list[list[Cluster]]) -> float:
            found = self._found(order, [*parts, whole])
            computed = stabilities(found.clusters, found.samples, found.again)
            return sum(abs(one - other) for one, other in zip(stated, computed, strict=False) if other == other)

        chosen = [different[0] for different in halves]
        for place in [place for place, different in enumerate(halves) if len(different) > 1] * _ROUNDS:
            options = ([*chosen[:place], one, *chosen[place + 1 :]] for one in halves[place])
            chosen = min(options, key=apart)
        return self._found(order, [*chosen, whole])

    def _nudges(self) -> Iterator[Matrix]:
        """Changes of distances by rounding: all up, all down, and each at random."""
        shape = self.distances.shape
        yield from (np.full(shape, way * self._nudge) for way in (1, -1))
        chance = np.random.default_rng(0)
        for _ in range(_RANDOM_NUDGES):
            upper = np.triu(chance.uniform(-self._nudge, self._nudge, shape), 1)
            yield upper + upper.T

    def _clusters(self, order: Order, sample: list[int], nudge: Matrix | None) -> list[Cluster]:
        """The clusters of the examples at these places of an order, by number of example."""
        examples = order[sample]
        where = np.ix_(examples, examples)
        distances = self.clustered[where]
        if nudge is not None:
            distances = distances + nudge[where]
            np.fill_diagonal(distances, 0)
        clusters = clusters_of(distances, self._dimensions, self._settings)
        return [[int(examples[place]) for place in cluster] for cluster in clusters]

    def _found(self, order: Order, parts: list[list[Cluster]]) -> _Found:
        samples = [[int(order[place]) for place in sample] for sample in self._samples()[:-1]]
        return _Found(order, parts[-1], samples, parts[:-1])

    def _compared(self, claimed: ClaimedBehaviours, found: _Found, tolerance: float) -> VerificationReport:
        report = VerificationReport()
        of_each = stabilities(found.clusters, found.samples, found.again)
        numbers = {
            **distance_measures(self.distances, found.clusters),
            **effective_ends(found.clusters),
            **main_numbers(len(self.distances), found.clusters, found.samples, found.again),
            **self._diversity(found),
            "stability": mean_stability(found.clusters, of_each),
            "mono_score": weighted_similarity(self.distances, self._strengths),
        }
        for name, value in numbers.items():
            allowed = self._measured if name in _OF_DISTANCES else _COUNTED
            report.compare("measures", f"{claimed.name}: {name}", claimed.measures[name], value, allowed)
        if unknown := claimed.measures.keys() - numbers.keys() - {"qualifying_contexts"}:
            report.wrong(f"{claimed.name}: {min(unknown)} is no measure")
        if len(claimed.behaviours) != len(found.clusters):
            report.wrong(
                f"{claimed.name}: lists {len(claimed.behaviours)} behaviours, but {len(found.clusters)} were found"
            )
        mass = float(self._strengths.sum()) or 1.0
        for number, (behaviour, cluster) in enumerate(zip(claimed.behaviours, found.clusters, strict=False)):
            what = f"{claimed.name}, behaviour {behaviour['id']}"
            covered = float(self._strengths[cluster].sum()) / mass
            for name, value, allowed in (
                ("size", len(cluster), 0.0),
                ("coverage", covered, tolerance / 10),
                ("stability", of_each[number], _COUNTED),
            ):
                report.compare("behaviours", f"{what}: {name}", behaviour[name], value, allowed)
            self._central(report, f"{what}: central example", claimed.central[number], cluster, found.order)
        self._labels(report, claimed, found.clusters)
        return report

    def _diversity(self, found: _Found) -> dict[str, float]:
        halves = [(len(sample), new) for sample, new in zip(found.samples, found.again, strict=True)]
        known = self._random and self._settings.min_size == 2
        return diversity_numbers(len(self.distances), found.clusters, halves, known)

    def _central(
        self, report: VerificationReport, what: str, central: int | None, cluster: Cluster, order: Order
    ) -> None:
        """Check that no member is nearer to the others, on average; of two members it is the first."""
        report.count("behaviours")
        if central not in cluster:
            report.wrong(f"{what} is not of the behaviour")
            return
        distances = {member: float(self.clustered[member, cluster].mean()) for member in cluster}
        if distances[central] > min(distances.values()) + 2 * self._nudge:
            report.wrong(
                f"{what} is at a mean distance of {distances[central]:.4g}, another at {min(distances.values()):.4g}"
            )
        elif len(cluster) == 2 and next(member for member in order.tolist() if member in cluster) != central:
            report.wrong(f"{what} is the second of two")

    def _labels(self, report: VerificationReport, claimed: ClaimedBehaviours, clusters: Sequence[Cluster]) -> None:
        """Compare the behaviour of each published example."""
        owner = {member: claimed.before + place + 1 for place, cluster in enumerate(clusters) for member in cluster}
        report.count("labels", len(claimed.labels))
        wrong = [
            f"{where} is published as {_called(label)}, but computed as {_called(owner.get(place))}"
            for place, (where, label) in claimed.labels.items()
            if label != owner.get(place)
        ]
        if wrong:
            others = f", and so are {len(wrong) - 1} other examples otherwise" if len(wrong) > 1 else ""
            report.wrong(f"{claimed.name}: {wrong[0]}{others}")


def _called(label: int | None) -> str:
    return "unclustered" if label is None else f"behaviour {label}"
