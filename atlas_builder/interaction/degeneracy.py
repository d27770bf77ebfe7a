"""What of a network's parameters does nothing: units that fire together, and a count of those that are independent."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from atlas_builder.interaction.directions import rank

Layer = tuple[Tensor, Tensor, Tensor | None]
"""Of a linear layer: its inputs (rows, d); the gradients of all outputs by what it computes, (n, units);
and whether each unit fires, bool (rows, units), or None where what it computes is not followed by ReLUs."""


def synchronised(firing: Tensor) -> list[list[int]]:
    """Groups of units that fire on exactly the same rows: the third source of degeneracy of arXiv 2405.10927.

    Args:
        firing: bool (rows, units), whether a ReLU passes its input on.

    Returns:
        Groups of two units or more, in order. Units that never fire are of no group; those that always fire are one.
    """
    groups: dict[bytes, list[int]] = {}
    columns = torch.as_tensor(firing, dtype=torch.bool).T.contiguous()
    for unit, column in enumerate(columns):
        if column.any():
            groups.setdefault(column.numpy().tobytes(), []).append(unit)
    return [group for group in groups.values() if len(group) > 1]


def effective_parameters(layers: Iterable[Layer], tolerance: float = 1e-9, *, biases: bool = True) -> int:
    """At most how many parameters of a network of linear layers and ReLUs are independent to first order.

    Our count, not the paper's: the rank of the Gauss-Newton matrix is at most
    Σ_l rank(G_l) · rank(K_l) - Σ_b rank(G_b) · rank(K_b). G_l is the Gram matrix of a layer's inputs
    and a 1 for the bias, K_l that of the gradients by what the layer computes; b are blocks of
    ReLUs that fire on the same rows, single units too, with G_b the Gram matrix of their
    activations (and a 1 where they always fire) and K_b that of the gradients by their inputs:
    what a block gives on can be scaled and mixed, and taken back by the next layer. Free directions
    may coincide in other ways and interact, so it is no bound on the volume of equal networks.

    Args:
        layers: In the order of the network; the inputs of one are the activations of the one before.
        tolerance: Eigenvalues below this share of the largest count as zero.
        biases: Whether layers have biases; without, nothing above has a 1.
    """
    network = list(layers)
    count = 0
    for number, (inputs, gradients, firing) in enumerate(network):
        count += rank(_gram(_with_one(inputs) if biases else inputs), tolerance) * rank(_gram(gradients), tolerance)
        if firing is not None and number + 1 < len(network):
            count -= _mixed(network[number + 1][0], gradients, firing, tolerance, biases=biases)
    return count


def _mixed(activations: Tensor, gradients: Tensor, firing: Tensor, tolerance: float, *, biases: bool) -> int:
    """Σ_b rank(G_b) · rank(K_b) over groups that fire together, and every other unit that fires for itself."""
    together = synchronised(firing)
    fires, always = firing.any(dim=0), firing.all(dim=0)
    alone = fires.clone()
    alone[[unit for group in together for unit in group]] = False
    # Of a single unit without a 1 the ranks are 1, or 0 where all is 0.
    plain = alone & ~always
    matters = (_lengths(activations) > 0) & (_lengths(gradients) > 0)
    blocks = [*together, *([unit] for unit in torch.nonzero(alone & always)[:, 0].tolist())]
    return int((plain & matters).sum()) + sum(
        rank(_gram(_of_block(activations, firing, block, biases=biases)), tolerance)
        * rank(_gram(gradients[:, block]), tolerance)
        for block in blocks
    )


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float64)
    return lengths


def _of_block(activations: Tensor, firing: Tensor, block: list[int], *, biases: bool) -> Tensor:
    own = activations[:, block]
    return _with_one(own) if biases and bool(firing[:, block[0]].all()) else own


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _gram(rows: Tensor) -> Tensor:
    rows = torch.as_tensor(rows, dtype=torch.float64)
    return rows.T @ rows
