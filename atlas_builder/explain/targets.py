"""What is explained: whole units, and behaviours with their examples, from the tables of a built atlas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.reader import Atlas
from atlas_builder.records.address import UnitAddress

_TARGET = re.compile(r"(?P<unit>[^#]+)(?:#b(?P<behaviour>[0-9]{1,9}))?")


class ExplainTarget(NamedTuple):
    """A behaviour of a unit, from 1, or the whole unit: behaviour 0, so that targets have an order."""

    layer: int
    unit: int
    behaviour: int = 0

    @property
    def number(self) -> int | None:
        """The behaviour as lines have it."""
        return self.behaviour or None

    @property
    def name(self) -> str:
        """`L2/N17#b3`, or `L2/N17` for the whole unit."""
        return UnitAddress(self.layer, self.unit).id + (f"#b{self.behaviour}" if self.behaviour else "")


class TargetExamples(NamedTuple):
    """Examples of a unit, in the order of the table: behaviour from 1, 0 for unclustered, and places; (examples,)."""

    behaviours: NDArray[np.int64]
    documents: NDArray[np.int64]
    positions: NDArray[np.int64]
    activations: NDArray[np.float64]


class Targets:
    """The units and behaviours of a built atlas."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self.units = {layer["layer"]: layer["units"] for layer in atlas.facts["layers"]}

    def chosen(self, only: Sequence[str], behaviours: int, units: int, seed: int) -> list[ExplainTarget]:
        """Those that are named, and random main behaviours and units, in order.

        Raises `ConfigurationError` where one that is named does not exist.
        """
        every = [ExplainTarget(layer, unit) for layer, count in self.units.items() for unit in range(count)]
        drawn = [*_drawn(self.main, behaviours, seed), *_drawn(every, units, seed)]
        return sorted({*map(self.named, only), *drawn})

    def named(self, text: str) -> ExplainTarget:
        """The target in `L2/N17#b3`, `L2/N17`, or either with the atlas before it."""
        match = _TARGET.fullmatch(text.strip())
        parsed = UnitAddress.parse(match["unit"]) if match else None
        if match is None or parsed is None or parsed[0] not in (None, self._atlas.facts["atlas"]["id"]):
            raise ConfigurationError(
                f"--only: {brief(text)} is no unit or behaviour of this atlas: write L2/N17, or L2/N17#b3."
            )
        target = ExplainTarget(*parsed[1], int(match["behaviour"] or 0))
        if target.unit >= self.units.get(target.layer, 0) or (
            match["behaviour"] is not None and target not in self._behaviours
        ):
            raise ConfigurationError(f"--only: the atlas has no {brief(text)}: choose one that has a page.")
        return target

    @cached_property
    def main(self) -> list[ExplainTarget]:
        """The main behaviours of all units, in order."""
        units = self._atlas.units.select(["layer", "unit", "main_behaviours", "negative_main_behaviours"]).to_pydict()
        places = list(zip(units["layer"], units["unit"], strict=True))
        counts = {
            sign: dict(zip(places, (count or 0 for count in units[name]), strict=True))
            for sign, name in ((1, "main_behaviours"), (-1, "negative_main_behaviours"))
        }
        main = []
        # They are the larger ones, so they come first on each side.
        for target, sign in sorted(self._behaviours.items()):
            place = target[:2]
            if counts[sign].get(place, 0) > 0:
                counts[sign][place] -= 1
                main.append(target)
        return main

    @cached_property
    def _behaviours(self) -> dict[ExplainTarget, int]:
        """The sign of every behaviour."""
        columns = self._atlas.behaviours.select(["layer", "unit", "behaviour", "sign"]).to_pydict()
        rows = zip(columns["layer"], columns["unit"], columns["behaviour"], strict=True)
        return dict(zip(map(ExplainTarget._make, rows), columns["sign"], strict=True))

    def sign(self, target: ExplainTarget) -> int:
        """−1 of a behaviour of negative activations, else 1."""
        return self._behaviours.get(target, 1)

    def other(self, target: ExplainTarget, seed: int) -> ExplainTarget | None:
        """A random target of another unit of the layer, of the same kind; None where there is none.

        Another main behaviour for a behaviour, a unit that has behaviours for a whole unit. It depends on target and
        seed alone, and not on what else is chosen.
        """
        of_layer = self._of_layer[target.layer, bool(target.behaviour)]
        others = [other for other in of_layer if other.unit != target.unit]
        if not others:
            return None
        generator = np.random.default_rng([seed, *target, 1])
        return others[int(generator.integers(len(others)))]

    @cached_property
    def _of_layer(self) -> dict[tuple[int, bool], list[ExplainTarget]]:
        """Main behaviours, and units that have some, by layer and whether they are behaviours."""
        found: dict[tuple[int, bool], list[ExplainTarget]] = {
            (layer, kind): [] for layer in self.units for kind in (False, True)
        }
        for target in self.main:
            found[target.layer, True].append(target)
            whole, units = ExplainTarget(target.layer, target.unit), found[target.layer, False]
            if not units or units[-1] != whole:
                units.append(whole)
        return found

    def examples(self, layer: int, unit: int) -> TargetExamples:
        """All examples of a unit, shown in its record or not."""
        starts, columns = self._examples
        begin, end = np.searchsorted(starts, [_place(layer, unit), _place(layer, unit) + 1])
        return TargetExamples(*(column[begin:end] for column in columns))

    @cached_property
    def _examples(self) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]]:
        """The place of each row's unit, rising, and the columns of `TargetExamples`."""
        table = self._atlas.examples
        column = {
            name: np.asarray(table[name].fill_null(0).to_numpy())
            for name in ("layer", "unit", "behaviour", "document", "position", "activation")
        }
        places = _place(column["layer"].astype(np.int64), column["unit"])
        order = np.argsort(places, kind="stable")
        names = ("behaviour", "document", "position", "activation")
        return places[order], tuple(column[name][order] for name in names)


def _place(layer: Any, unit: Any) -> Any:
    return layer * (1 << 40) + unit


def _drawn(every: Sequence[ExplainTarget], number: int, seed: int) -> list[ExplainTarget]:
    picks = np.random.default_rng(seed).choice(len(every), min(number, len(every)), replace=False)
    return [every[pick] for pick in picks.tolist()]
