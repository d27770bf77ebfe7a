"""What a comparison of claims with recomputed numbers found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_ROUNDED = 5e-4  # four significant digits, relatively


@dataclass
class VerificationReport:
    """The numbers of comparisons, the largest differences, and the claims that do not hold."""

    compared: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    """By kind: activations as shares of the unit's largest, statistics relative, measures absolute."""
    problems: list[str] = field(default_factory=list)

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
        self.largest[kind] = max(self.largest.get(kind, 0.0), difference / scale)
        if not difference <= tolerance * scale + _ROUNDED * abs(claimed):
            self.problems.append(f"{what} is published as {claimed:.4g}, but computed as {value:.4g}")

    def count(self, kind: str, comparisons: int = 1) -> None:
        """Count comparisons of a kind."""
        self.compared[kind] = self.compared.get(kind, 0) + comparisons

    def wrong(self, problem: str) -> None:
        """Note a claim that does not hold."""
        self.problems.append(problem)

    def add(self, other: VerificationReport) -> None:
        """Take in what another report has."""
        for kind, comparisons in other.compared.items():
            self.count(kind, comparisons)
        for kind, difference in other.largest.items():
            self.largest[kind] = max(self.largest.get(kind, 0.0), difference)
        self.problems += other.problems

    @property
    def summary(self) -> str:
        """The numbers of comparisons and the largest differences, in one line."""
        parts = [f"{count:,} {kind} {self.largest.get(kind, 0.0):.1e}" for kind, count in sorted(self.compared.items())]
        end = f"{len(self.problems)} claims do not hold" if self.problems else "all claims hold"
        return f"largest difference, rounding included, of {', of '.join(parts)}: {end}"
