"""A unit's record beside what a second run found of the unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.rerun.passes import Text
from atlas_builder.verify.precision import tolerance
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.selection import ClaimedSide
from atlas_builder.verify.shown import Key, activations, are_main

Record = dict[str, Any]


@dataclass(frozen=True)
class FoundBehaviour:
    """A behaviour of the second run."""

    sign: int
    members: list[Key]
    """Its examples by falling activation."""
    central: Key | None
    """The central example that the record names; None where that is not the behaviour's."""
    main: bool


@dataclass
class UnitCase:
    """What is compared: the record and the second run's side of it."""

    record: Record
    report: VerificationReport
    config: Configuration
    text: Text
    texts: list[str]
    """The text of each token id."""
    values: NDArray[np.float32]
    """The unit's activations at every token: (tokens,)."""
    sides: list[ClaimedSide] = field(default_factory=list)
    """The choice of examples of each side that explains the record best."""
    behaviours: list[FoundBehaviour] | None = None
    """None where another run may find others."""

    @property
    def name(self) -> str:
        """The unit's id."""
        return str(self.record["id"])

    @property
    def layer(self) -> int:
        """Its layer."""
        return int(self.record["layer"])

    @property
    def unit(self) -> int:
        """Its number in the layer."""
        return int(self.record["unit"])

    @cached_property
    def counted(self) -> NDArray[np.float32]:
        """The activations at the tokens that count: (counted,)."""
        return self.values[self.text.counted] if len(self.values) else self.values

    @property
    def largest(self) -> float:
        """The size of the largest activation that counts, 1 where there is none."""
        return max(float(np.abs(self.counted).max(initial=0)), 0.0) or 1.0

    @property
    def tolerance(self) -> float:
        """The largest difference of an activation in another run, as a share of `largest`."""
        return tolerance("activation", self.config.model.dtype)

    @property
    def exactness(self) -> float:
        """The relative difference of a sum or product over much of another run."""
        return tolerance("sum", self.config.model.dtype)

    @property
    def grain(self) -> float:
        """Added to an activation’s size, what `exactness` is of: in 16 bits, small ones may be off as large ones."""
        return 0.1 if self.config.model.dtype == "float32" else max(0.1, self.largest)

    @property
    def texts_read(self) -> list[str]:
        """What tokens of the text read as, by their number."""
        return self.text.texts_read or self.texts

    def text_of(self, token: int) -> str:
        """The text of a token id."""
        return self.texts[token]

    def activation(self, key: Key) -> float:
        """The activation at a token."""
        return float(activations(self.text, self.values, key.context)[key.position])

    def unclustered(self, sign: int) -> list[Key]:
        """The examples of a side that are in no behaviour, by falling activation."""
        clustered = {key for behaviour in self.behaviours or () for key in behaviour.members if behaviour.sign == sign}
        return [key for side in self.sides if side.sign == sign for key in keys_of(side) if key not in clustered]

    def take(self, side: ClaimedSide, clusters: list[list[int]], centrals: list[Key | None]) -> None:
        """Add the behaviours of a side, given as the places of their examples among the side's."""
        place = {int(context): number for number, context in enumerate(side.order)}
        main = are_main([len(cluster) for cluster in clusters], len(side.chosen))
        for cluster, central, its in zip(clusters, centrals, main, strict=True):
            contexts = sorted((int(side.chosen[example]) for example in cluster), key=place.__getitem__)
            members = [Key(context, int(side.at[context])) for context in contexts]
            self.behaviours = [*(self.behaviours or []), FoundBehaviour(side.sign, members, central, its)]


def keys_of(side: ClaimedSide) -> Iterator[Key]:
    """The key tokens of a side's examples, by falling activation."""
    return (Key(int(context), int(side.at[context])) for context in side.order)
