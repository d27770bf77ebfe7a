"""What overview pages say of a unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Summary:
    """What the overview pages say of a unit."""

    layer: int
    unit: int
    labels: list[str]
    measures: dict[str, Any]
    stats: dict[str, Any]
    coverage: list[float] = field(default_factory=list)
    likeness: float = 0.0
    """Mean cosine of its behaviours' nearest neighbours, 0 for one that has none."""

    @property
    def name(self) -> str:
        """`L2/N17`."""
        return f"L{self.layer}/N{self.unit}"

    @property
    def page(self) -> str:
        """Address from the site's root."""
        return unit_page(self.layer, self.unit)


def unit_page(layer: int, unit: int) -> str:
    """`L2/N17.html`."""
    return f"L{layer}/N{unit}.html"
