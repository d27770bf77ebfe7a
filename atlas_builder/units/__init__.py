"""What a unit is, and how its input, activation and weights are reached."""

from atlas_builder.units.base import Units, Visit
from atlas_builder.units.mlp import MLPUnits

__all__ = ["MLPUnits", "Units", "Visit"]
