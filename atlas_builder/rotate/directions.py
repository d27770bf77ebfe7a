"""Directions of a layer from its moments: the chosen basis, how stable it is, and what its steps do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atlas_builder.interaction import Basis, basis, principal
from atlas_builder.rotate.moments import BlockMoments
from atlas_builder.rotate.results import Rotation
from atlas_builder.units.basis import Directions


def find_basis(kind: str, moments: BlockMoments, layer: int, tolerance: float) -> Basis:
    """The directions of a kind, as `units.basis` names them; raises `ActivationError` where there are none."""
    if kind == "principal":
        return principal(moments.mean, moments.covariance, tolerance)
    if kind == "random":
        return random_basis(moments.mean, moments.covariance, layer, tolerance)
    return basis(moments.mean, moments.covariance, moments.pulled, tolerance)


def random_basis(mean: Tensor, covariance: Tensor, layer: int, tolerance: float) -> Basis:
    """A random rotation of whitened activations, for comparison: coordinates are uncorrelated, of variance 1.

    C = U D^(-1/2) O from G = U D Uᵀ, with O the orthogonal matrix nearest to Uᵀ Q; Q is random,
    seeded by the layer alone, so that a change of the text changes the rotation as little as it can.
    """
    components = principal(mean, covariance, tolerance)
    axes, deviations = components.encode, components.importance.sqrt()  # (d, k), (k,)
    source = np.random.Generator(np.random.Philox(key=[1, layer]))
    drawn = torch.from_numpy(source.standard_normal((len(mean), len(mean))))
    left, _, right = torch.linalg.svd(axes.T @ torch.linalg.qr(drawn).Q[:, : len(deviations)])
    turn = left @ right
    encode, decode = axes / deviations @ turn, (turn.T * deviations) @ axes.T
    return Basis(mean, encode, decode, torch.ones_like(deviations))


class Stability(NamedTuple):
    """How alike the directions of two halves of a text are, in correlations of their coordinates on all of it."""

    stability: Tensor
    """(k,), see `RotatedLayer.stability`."""
    likeness: Tensor
    """(k, k), see `RotatedLayer.likeness`."""


def stability_of_halves(whole: Basis, halves: tuple[Basis, Basis], covariance: Tensor) -> Stability:
    """Compare the directions of two halves of a text, those that are most like each direction of the whole.

    Correlations do not depend on how units of activations are scaled, as cosines would.
    """
    one, other = (_correlations(whole.encode, half.encode, covariance) for half in halves)  # (k, k of a half)
    matches = [like.argmax(dim=1) for like in (one, other)]
    matched = [half.encode[:, match] for half, match in zip(halves, matches, strict=True)]
    alike = _correlations(matched[0], matched[1], covariance).diagonal()
    likeness = torch.maximum(one[:, matches[0]], other[:, matches[1]]).T.clone()
    likeness.fill_diagonal_(0)
    return Stability(alike.clamp(max=1), likeness.clamp(max=1))


def _correlations(one: Tensor, other: Tensor, covariance: Tensor) -> Tensor:
    """|correlation| of the coordinates along columns: (columns of one, columns of other)."""
    deviations = [(side * (covariance @ side)).sum(dim=0).clamp(min=0).sqrt() for side in (one, other)]
    product = one.T @ covariance @ other
    scale = deviations[0][:, None] * deviations[1]
    return torch.where(scale > 0, product.abs() / scale.clamp(min=1e-300), 0.0)


def mean_effect(directions: Basis, reads: Tensor, slopes: Tensor, write: Tensor) -> Tensor:
    """What a step of one along each direction adds to the stream through the MLP, on average: (k, d_model).

    The mean over tokens of the MLP's derivative, Σ_parts W_outᵀ diag(slope) W_part.

    Args:
        directions: Of width d.
        reads: (parts, units, d).
        slopes: Means of the derivatives of activations: (parts, units).
        write: (units, d_model).
    """
    reached = torch.einsum("kd,pnd,pn->kn", directions.decode, reads.double(), slopes)
    return reached @ write.double()


def shares_read(directions: Basis, covariance: Tensor, reads: Tensor) -> Tensor:
    """Shares of the variance of what each neuron's parts read that come through each direction: (parts, units, k).

    Coordinates are uncorrelated, so that Var(w · h) = Σ_j (C⁺_j · w)² Var(f_j) + the rest, which
    comes through what no direction has. NaN where what is read does not vary. Ours.

    Args:
        directions: k of width d.
        covariance: Of what enters the MLP: (d, d).
        reads: (parts, units, d).
    """
    weights = reads.double()
    total = ((weights @ covariance) * weights).sum(dim=-1, keepdim=True)  # (parts, units, 1)
    variance = (directions.encode * (covariance @ directions.encode)).sum(dim=0)
    through = (weights @ directions.decode.T).square() * variance
    scale = weights.square().sum(dim=-1, keepdim=True) * covariance.diagonal().mean()
    return torch.where(total > 1e-12 * scale, through / total, torch.nan)


def arrays_of(
    kind: str,
    parts: tuple[BlockMoments, BlockMoments, BlockMoments],
    layer: int,
    tolerance: float,
    reads: Tensor,
    write: Tensor,
) -> dict[str, Tensor]:
    """What the stage's file holds of a layer.

    `parts` are the moments of the whole text and of its halves, `reads` and `write` the weights
    of the MLP, (parts, units, d) and (units, d_model).
    """
    whole, *halves = parts
    found = find_basis(kind, whole, layer, tolerance)
    one, other = (find_basis(kind, half, layer, tolerance) for half in halves)
    alike = stability_of_halves(found, (one, other), whole.covariance)
    variance = (found.encode * (whole.covariance @ found.encode)).sum(dim=0)
    weight = (found.decode * (found.decode @ whole.pulled)).sum(dim=1)
    return {
        "mean": found.mean,
        "covariance": whole.covariance,
        "encode": found.encode,
        "decode": found.decode,
        "variance": variance,
        "importance": variance * weight,
        "stability": alike.stability,
        "likeness": alike.likeness.float(),
        "effect": mean_effect(found, reads, whole.slopes, write),
        "shares": shares_read(found, whole.covariance, reads).float(),
    }


def directions_of(rotation: Rotation) -> dict[int, Directions]:
    """The directions of each layer, as the units take them."""
    layers = [rotation.layer(number) for number in rotation.layers]
    return {
        one.layer: Directions(*(torch.from_numpy(array) for array in (one.mean, one.encode, one.decode, one.effect)))
        for one in layers
    }
