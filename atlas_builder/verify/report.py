"""What a comparison of claims with recomputed numbers found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

_DIGITS = 4  # significant ones of a published number


def half_a_digit(claimed: float) -> float:
    """The most by which a number that is published as `claimed` was rounded."""
    return 0.5005 * 10.0 ** (math.floor(math.log10(abs(claimed))) - _DIGITS + 1) if claimed else 0.0


def agrees(claimed: float | None, value: float, tolerance: float = 0.0) -> bool:
    """Whether a published number, None for NaN, is the rounded `value`, or one that differs by the tolerance."""
    if claimed is None or math.isnan(value):
        return claimed is None and math.isnan(value)
    return abs(claimed - value) <= tolerance + half_a_digit(claimed)


@dataclass
class VerificationReport:
    """The numbers of comparisons, the largest differences, and the claims that do not hold."""

    compared: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    """By kind: activations as shares of the unit's largest, statistics relative, measures absolute."""
    problems: list[str] = field(default_factory=list)
    not_compared: dict[str, int] = field(default_factory=dict)
    """By kind, the units of which another run may take other tokens, so that it tells nothing of their claims."""
    precision: str = ""
    """How far rounding may bring two runs apart, in words."""

    def compare(
        self, kind: str, what: str, claimed: float | None, value: float, tolerance: float, scale: float = 1
    ) -> None:
        """Compare a number; `tolerance`, beyond rounding, and the difference reported are shares of `scale`."""
        self.count(kind)
        if claimed is None or np.isnan(value):
            if not (claimed is None and np.isnan(value)):
                self.problems.append(f"{what} is published as {claimed}, but computed as {value:.4g}")
            return
        difference = abs(claimed - value)
        self.note(kind, difference / (scale or 1))
        if not agrees(claimed, value, tolerance * scale):
            self.problems.append(f"{what} is published as {claimed:.4g}, but computed as {value:.4g}")

    def note(self, kind: str, difference: float) -> None:
        """Keep the largest difference of a kind."""
        self.largest[kind] = max(self.largest.get(kind, 0.0), difference)

    def count(self, kind: str, comparisons: int = 1) -> None:
        """Count comparisons of a kind."""
        self.compared[kind] = self.compared.get(kind, 0) + comparisons

    def skip(self, kind: str) -> None:
        """Count a unit whose claims of a kind cannot be compared."""
        self.not_compared[kind] = self.not_compared.get(kind, 0) + 1

    def wrong(self, problem: str) -> None:
        """Note a claim that does not hold."""
        self.problems.append(problem)

    def add(self, other: VerificationReport) -> None:
        """Take in what another report has."""
        for kind, comparisons in other.compared.items():
            self.count(kind, comparisons)
        for kind, difference in other.largest.items():
            self.note(kind, difference)
        for kind, units in other.not_compared.items():
            self.not_compared[kind] = self.not_compared.get(kind, 0) + units
        self.problems += other.problems

    @property
    def summary(self) -> str:
        """The numbers of comparisons, the largest differences and what was not compared, in one line."""
        parts = [f"{count:,} {kind} {self.largest.get(kind, 0.0):.1e}" for kind, count in sorted(self.compared.items())]
        end = f"{len(self.problems)} claims do not hold" if self.problems else "all claims hold"
        precise = f" ({self.precision})" if self.precision else ""
        skipped = [f"{kind} of {units:,} unit{'s' * (units != 1)}" for kind, units in sorted(self.not_compared.items())]
        but = f"; not compared exactly, as this run may take other tokens: {', '.join(skipped)}" if skipped else ""
        return f"largest difference, rounding included, of {', of '.join(parts)}{precise}: {end}{but}"
