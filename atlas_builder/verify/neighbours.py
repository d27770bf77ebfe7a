"""Similar behaviours of other units, looked for among the central examples of all records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.records.address import UnitAddress
from atlas_builder.rerun.weights import Weights
from atlas_builder.verify.precision import tolerance
from atlas_builder.verify.report import VerificationReport, agrees
from atlas_builder.verify.shown import Key

_PAIRS = 2**20  # compared at most for a threshold
_ONE_IN = 1000

Floats = NDArray[np.float64]


class Central(NamedTuple):
    """The central example of a behaviour, as its record names it."""

    layer: int
    unit: int
    behaviour: int
    """Its id, from 1."""
    place: Key
    """Of its key token."""


class Centrals:
    """All behaviours of an atlas by their central examples.

    `inputs` are those at their places, (behaviours, width); both are by layer, unit and behaviour.
    """

    def __init__(self, centrals: Sequence[Central], inputs: NDArray[np.float32], config: Configuration) -> None:
        self.centrals, self.config = centrals, config
        lengths = np.sqrt((inputs.astype(np.float64) ** 2).sum(axis=1))
        self.known = lengths > 0
        self.directions = (inputs / np.where(self.known, lengths, 1)[:, None]).astype(np.float32).astype(np.float64)
        self.layer = np.array([central.layer for central in centrals], np.int64)
        self.unit = np.array([central.unit for central in centrals], np.int64)
        self._number = {central[:3]: number for number, central in enumerate(centrals)}
        self._thresholds: dict[tuple[int, int], float] = {}

    def cosines(self, number: int) -> Floats:
        """Of a behaviour with all; NaN with those of its own unit and without a direction: (behaviours,)."""
        cosines: Floats = np.clip((self.directions * self.directions[number]).sum(axis=1), -1, 1)
        own = (self.layer == self.layer[number]) & (self.unit == self.unit[number])
        cosines[own | ~self.known] = np.nan
        return cosines if self.known[number] else np.full(len(cosines), np.nan)

    def threshold(self, one: int, other: int) -> float:
        """The smallest cosine of neighbours of two layers."""
        pair = min(one, other), max(one, other)
        if self.config.link.threshold != "auto":
            return float(self.config.link.threshold)
        if pair not in self._thresholds:
            self._thresholds[pair] = self._reached(*pair)
        return self._thresholds[pair]

    def _reached(self, one: int, other: int) -> float:
        """The cosine that one in a thousand pairs of behaviours of two layers reaches, of different units."""
        first, last = np.flatnonzero(self.layer == one), int(np.flatnonzero(self.layer <= other)[-1]) + 1
        start = int(np.searchsorted(self.layer, other))
        # The partners of a behaviour: those behind its unit, or all of the other layer.
        begins = np.array([max(start, number + self._left_of_unit(number)) for number in first.tolist()])
        pairs = last - begins
        total = int(pairs.sum())
        if not total:
            return np.inf
        drawn = np.arange(total)
        if total > _PAIRS:
            drawn = np.sort(np.random.default_rng([0, one, other]).integers(total, size=_PAIRS))
        ends = np.cumsum(pairs)
        row = np.searchsorted(ends, drawn, side="right")
        that = begins[row] + drawn - (ends - pairs)[row]
        parts = np.array_split(np.arange(len(drawn)), max(1, len(drawn) // 65536))
        cosines = np.concatenate(
            [(self.directions[first[row[part]]] * self.directions[that[part]]).sum(axis=1) for part in parts]
        )
        return float(np.quantile(cosines, 1 - 1 / _ONE_IN, method="higher"))

    def _left_of_unit(self, number: int) -> int:
        """How many behaviours from this one to the end of its unit."""
        central = self.centrals[number]
        end = number
        while end < len(self.centrals) and self.centrals[end][:2] == central[:2]:
            end += 1
        return end - number

    def check(
        self, report: VerificationReport, record: dict[str, Any], weights: Weights, most: int, main: Sequence[bool]
    ) -> None:
        """Compare the neighbours of all behaviours of a record, at most so many of a main behaviour."""
        layer, unit = int(record["layer"]), int(record["unit"])
        for behaviour, its in zip(record["behaviours"], main, strict=True):
            number = self._number.get((layer, unit, int(behaviour["id"])))
            if number is not None:
                what = f"{record['id']}, behaviour {behaviour['id']}"
                limit = min(most, self.config.link.neighbours) if its else 0
                self._check(report, what, behaviour["neighbours"], number, weights, limit)

    def _check(
        self, report: VerificationReport, what: str, claimed: list[Any], number: int, weights: Weights, most: int
    ) -> None:
        slack = tolerance("similarity", self.config.model.dtype)
        cosines, layer = self.cosines(number), int(self.layer[number])
        beyond = np.array([self.threshold(layer, int(other)) for other in self.layer])
        if self._is_approximate:  # some may be missed: what is listed must be right, and in order
            cosines = self._among(cosines, claimed)
        sure, possible = (int(np.count_nonzero(cosines >= beyond + way * slack)) if most else 0 for way in (1, -1))
        report.count("neighbours", max(1, len(claimed)))
        if not min(sure, most) <= len(claimed) <= min(possible, most):
            report.wrong(f"{what}: lists {len(claimed)} neighbours, but {min(sure, most)} were found")
            return
        order = np.lexsort([np.arange(len(cosines)), -np.nan_to_num(cosines, nan=-9.0)])
        order = order[cosines[order] >= beyond[order] - slack].tolist()
        left = list(order)
        for place, neighbour in enumerate(claimed):
            found = self._named(neighbour)
            expected = order[place]
            if (
                found is None
                or found not in left
                or not (found == expected or self._interchangeable(cosines, found, expected, slack))
            ):
                other = self.centrals[expected]
                name = UnitAddress(*other[:2]).within(self.config.atlas.id)
                report.wrong(
                    f"{what}: neighbour {place + 1} is published as {neighbour['id']}, behaviour "
                    f"{neighbour['behaviour']}, but computed as {name}, behaviour {other.behaviour}"
                )
                return
            left.remove(found)
            who = f"{what}: the {{}} of neighbour {place + 1}"
            if not agrees(neighbour["similarity"], float(cosines[found]), slack):
                report.wrong(
                    f"{who.format('similarity')} is published as {neighbour['similarity']}, "
                    f"but computed as {cosines[found]:.4g}"
                )
            wiring = self.weight_cosine(number, found, weights)
            report.compare("weight cosines", who.format("weight cosine"), neighbour["wiring"], wiring, 2e-6)

    @property
    def _is_approximate(self) -> bool:
        above = self.config.link.approximate_above
        return above is not None and len(self.centrals) > above

    def _among(self, cosines: Floats, claimed: list[Any]) -> Floats:
        """Cosines with the behaviours that are listed as neighbours, NaN with others: (behaviours,)."""
        listed = [number for neighbour in claimed if (number := self._named(neighbour)) is not None]
        among: Floats = np.full(len(cosines), np.nan)
        among[listed] = cosines[listed]
        return among

    def _named(self, neighbour: dict[str, Any]) -> int | None:
        parsed = UnitAddress.parse(neighbour["id"])
        if parsed is None or parsed[0] != self.config.atlas.id:
            return None
        return self._number.get((*parsed[1], int(neighbour["behaviour"])))

    def _interchangeable(self, cosines: Floats, one: int, other: int, slack: float) -> bool:
        """Whether two neighbours may change places by rounding: not where their inputs are the same."""
        same = self.layer[one] == self.layer[other] and self.centrals[one].place == self.centrals[other].place
        return not same and abs(float(cosines[one] - cosines[other])) <= 2 * slack

    def weight_cosine(self, one: int, other: int, weights: Weights) -> float:
        """Between the output weights of the earlier layer's unit and the input weights of the later one's.

        Of the two inputs of a gated unit, the larger by size; NaN within a layer, where widths differ, and of zeros.
        """
        earlier, later = (self.centrals[number] for number in sorted((one, other)))
        if earlier.layer == later.layer:
            return np.nan
        write = weights.write(earlier.layer, [earlier.unit])[0].astype(np.float64)
        best = np.nan
        for part in weights.read(later.layer, [later.unit])[:, 0].astype(np.float64):
            if len(part) != len(write):
                return np.nan
            size = float(np.sqrt(write @ write) * np.sqrt(part @ part))
            if size and not abs(float(write @ part) / size) <= abs(best):
                best = float(write @ part) / size
        return best
