"""Directions of the activations at one place in a network: the interaction basis and the principal components."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from atlas_builder.errors import ActivationError

_ROUNDING = 1e-13
"""Variance of a sum in float64, as a share of the squared mean."""
_TINY = 1e-280


class Basis(NamedTuple):
    """Directions of activations f (rows, d): coordinates (f - mean) @ encode, and f ≈ mean + coordinates @ decode."""

    mean: Tensor
    """(d,)"""
    encode: Tensor
    """(d, k), a direction a column, the most important first."""
    decode: Tensor
    """(k, d), with decode @ encode = 1."""
    importance: Tensor
    """(k,), descending and positive."""

    def coordinates(self, activations: Tensor) -> Tensor:
        """Coordinates of activations (..., d): (..., k)."""
        return (activations.to(self.encode) - self.mean) @ self.encode


def basis(mean: Tensor, covariance: Tensor, pulled: Tensor, tolerance: float = 1e-9) -> Basis:
    """The interaction basis (arXiv 2405.10927) of a place in a network.

    With G the covariance and M the mean of JᵀJ, J the derivative of what comes after by the
    activations, C is such that CᵀGC is diagonal with λ on the diagonal and C⁺MC⁺ᵀ = 1:
    coordinates are uncorrelated, those of variance λ; a step in any of them changes what comes
    after equally, in squares. λ are the nonzero eigenvalues of GM. Computed as R = S⁻¹U D^(-1/2)
    from S⁻¹GS⁻¹ = U D Uᵀ with S the standard deviations, then R⁺MR⁺ᵀ = V Λ Vᵀ, C = R V Λ^(1/2). λ and
    coordinates are the same after any invertible linear change of the activations, and S keeps
    what counts as zero the same after units are rescaled. A direction's sign is ours: the largest entry
    of its row of `decode` is positive. Directions of equal λ are free to turn within their plane.

    Args:
        mean: (d,), the mean activation μ.
        covariance: (d, d), G.
        pulled: (d, d), M as `pull` gives it.
        tolerance: Eigenvalues below this share of the largest count as zero.

    Returns:
        k directions, k at most the ranks of G and M.

    Raises:
        ActivationError: If a number is NaN or infinite, or no activation varies or matters.
    """
    mean, covariance, pulled = (_checked(array) for array in (mean, covariance, pulled))
    scale = _scales(mean, covariance)
    correlations = covariance / scale.clamp(min=_TINY) / scale.clamp(min=_TINY)[:, None]
    correlations[scale == 0], correlations[:, scale == 0] = 0, 0
    variances, axes = _spectrum(correlations, tolerance, "no activation varies, so that there is no direction")
    whiten = axes * (scale > 0)[:, None] / scale.clamp(min=_TINY)[:, None] / variances.sqrt()  # (d, r)
    unwhiten = (axes * scale[:, None] * variances.sqrt()).T  # (r, d)
    importance, turn = _spectrum(
        unwhiten @ pulled @ unwhiten.T, tolerance, "nothing depends on these activations, so that there is no direction"
    )
    encode = whiten @ turn * importance.sqrt()
    decode = (turn / importance.sqrt()).T @ unwhiten
    sign = _signs(decode)
    return Basis(mean, encode * sign, decode * sign[:, None], importance)


def principal(mean: Tensor, covariance: Tensor, tolerance: float = 1e-9) -> Basis:
    """The principal components of activations: `importance` is the variance along each.

    Args:
        mean: (d,).
        covariance: (d, d).
        tolerance: Variances below this share of the largest count as zero.

    Raises:
        ActivationError: If a number is NaN or infinite, or no activation varies.
    """
    mean, covariance = _checked(mean), _checked(covariance)
    variances, axes = _spectrum(covariance, tolerance, "no activation varies, so that there is no direction")
    sign = _signs(axes.T)
    return Basis(mean, axes * sign, axes.T * sign[:, None], variances)


def rank(moments: Tensor, tolerance: float = 1e-9) -> int:
    """The rank of a matrix of second moments (n, n), units scaled to 1: eigenvalues above a share of the largest."""
    moments = _checked(moments)
    scale = moments.diagonal().clamp(min=0).sqrt()
    kept = scale > 0
    values = torch.linalg.eigvalsh(moments[kept][:, kept] / scale[kept] / scale[kept][:, None])
    return int((values > tolerance * values.max()).sum()) if len(values) and values.max() > 0 else 0


def _scales(mean: Tensor, covariance: Tensor) -> Tensor:
    """Standard deviations of units, 0 where all that varies is rounding: (d,)."""
    variances = covariance.diagonal()
    varies = (variances > _ROUNDING * mean.square()) & (variances > _TINY)
    return torch.where(varies, variances, 0).sqrt()


def _spectrum(moments: Tensor, tolerance: float, otherwise: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues above the tolerance, descending, (k,), and their vectors as columns, (d, k)."""
    values, vectors = torch.linalg.eigh((moments + moments.T) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    if not len(values) or values[0] <= 0:
        raise ActivationError(f"{otherwise}: use more tokens, or leave this layer out.")
    kept = values > tolerance * values[0]
    return values[kept], vectors[:, kept]


def _signs(rows: Tensor) -> Tensor:
    """1 or -1 for each row, so that its largest entry by size is positive: (k,)."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))[:, 0]
    return torch.where(largest < 0, -1.0, 1.0).to(rows)


def _checked(array: Tensor) -> Tensor:
    array = torch.as_tensor(array, dtype=torch.float64)
    if not torch.isfinite(array).all():
        raise ActivationError("activations or gradients are NaN or infinite: load the model in float32.")
    return array
