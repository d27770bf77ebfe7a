"""What a unit is, and how its input, activation and weights are reached."""

from atlas_builder.units.base import Units, Visit
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.sae import SAEUnits

__all__ = ["CrateUnits", "MLPUnits", "SAEUnits", "Units", "Visit"]
