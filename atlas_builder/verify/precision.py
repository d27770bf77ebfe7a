"""How far a second run of a model may be from the first, in the precision in which the model runs.

The one rule: a number may differ by its kind's tolerance in float32, or by its kind's number of machine epsilons of
`model.dtype`, whichever is more. The epsilon is 1.2e-7 in float32, where it never counts, 0.00098 in float16
and 0.0078 in bfloat16: there the same tokens in another batch may come out a rounding or two apart.
"""

from __future__ import annotations

from typing import Literal

from atlas_builder.models.precision import DTYPES, epsilon

Kind = Literal["activation", "sum", "order", "decision", "distance", "similarity", "probability"]

_RULE: dict[Kind, tuple[float, float]] = {
    "activation": (1e-4, 2.5),  # a share of the unit's largest
    "sum": (1e-5, 2.5),  # relative: a sum or product over much of a run
    "order": (1e-5, 1.0),  # a share of the largest: activations that close may change places
    "decision": (1e-5, 0.64),  # a distance on which a clustering hangs
    "distance": (2e-5, 1.28),  # distances and means of distances
    "similarity": (1e-5, 1.28),  # cosines of inputs
    "probability": (5e-6, 64.0),  # relative, through all later layers: logits up to 64, rounded, are in an exponent
}
"""For each kind of number its tolerance in float32, and how many machine epsilons it is allowed."""


def tolerance(kind: Kind, dtype: str) -> float:
    """The largest difference that rounding may make to a kind of number, of a model that runs in `dtype`."""
    in_float32, epsilons = _RULE[kind]
    return max(in_float32, epsilons * epsilon(DTYPES[dtype]))


def stated_tolerance(dtype: str) -> str:
    """The rule for activations, in words, as a report of `verify` states it."""
    allowed = tolerance("activation", dtype)
    return f"model in {dtype}: of activations, a tolerance of {allowed:.2g} of a unit's largest"
