"""How directions of one place in a network act on those of the next, and on the outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from atlas_builder.errors import ActivationError
from atlas_builder.interaction.directions import Basis


def pull(jacobians: Tensor, after: Basis | None = None) -> Tensor:
    """M of `basis`: the mean over rows of JᵀJ, summed over the positions that J is taken by.

    With `after`, J is followed by the directions of the next place, of which the kept ones
    count: since CCᵀ = PMP for the projector P on them, this is the local version's
    E[JᵀPMPJ] (arXiv 2405.10928).

    Args:
        jacobians: (rows, out, d) or (rows, out, positions, d), derivatives of what comes after by the activations.
            A row may also be one of several random combinations of the outputs with signs φ, as (rows, 1, …).
        after: Directions of the place whose width is `out`; without, the outputs themselves.

    Returns:
        (d, d), symmetric.
    """
    reached = _along(jacobians, after).flatten(0, -2)  # (rows · out · positions, d)
    return reached.T @ reached / len(jacobians)


def edges(inputs: Tensor, jacobians: Tensor, before: Basis, after: Basis | None = None) -> Tensor:
    """Strengths of the edges from directions of a place to those of the next, or to outputs.

    E_ij is the mean over rows of (Σ_s Ĵ_i,sj f̂_sj)², with f̂ the coordinates before at input
    position s and Ĵ the derivative of the coordinate after by them: what coordinate j
    contributes to i to first order, squared. Several output positions are several calls whose
    results are added. The scale of a direction before does not matter, that of one after does.

    Args:
        inputs: (rows, d) or (rows, positions, d), activations before.
        jacobians: (rows, out, d) or (rows, out, positions, d).
        before: Directions of width d.
        after: Directions of width `out`; without, the outputs themselves.

    Returns:
        (k after or out, k before), not negative.
    """
    reached = _along(jacobians, after) @ before.decode.T  # (rows, k_after[, positions], k_before)
    coordinates = before.coordinates(inputs)[:, None]  # (rows, 1[, positions], k_before)
    contributions = reached * coordinates
    if contributions.dim() == 4:
        contributions = contributions.sum(dim=2)
    return contributions.square().mean(dim=0)


def _along(jacobians: Tensor, after: Basis | None) -> Tensor:
    """Derivatives of the coordinates after: (rows, k or out[, positions], d)."""
    jacobians = torch.as_tensor(jacobians, dtype=torch.float64)
    if not torch.isfinite(jacobians).all():
        raise ActivationError("gradients are NaN or infinite: load the model in float32.")
    return jacobians if after is None else torch.einsum("ro...,ok->rk...", jacobians, after.encode)


def edges_needed(strengths: Tensor, score: Callable[[Tensor], float], least: float) -> int:
    """The smallest number of edges, the strongest first, with which a network still scores `least`.

    Found by doubling and then by bisection, as if more edges never scored less; where they
    do, the number is one at which the score passes `least`, not always the smallest.

    Args:
        strengths: (k_after, k_before). Of equal ones the first in order are kept.
        score: Of a mask of edges kept, bool and shaped like `strengths`: how well the network does with them alone.
        least: The score to keep.

    Raises:
        ValueError: If all edges together score less.
    """
    order = torch.argsort(strengths.flatten(), descending=True, stable=True)

    def enough(count: int) -> bool:
        kept = torch.zeros(strengths.numel(), dtype=torch.bool)
        kept[order[:count]] = True
        return score(kept.view(strengths.shape)) >= least

    low, high = -1, 0  # too few, perhaps enough
    while not enough(high):
        if high == len(order):
            raise ValueError("all edges together score less than asked: ask for less.")
        low, high = high, min(max(2 * high, 1), len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
