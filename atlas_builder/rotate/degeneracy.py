"""What of a layer does nothing: units that never fire, or fire together, and how many parameters are independent.

Of units like ReLUs, what fires is read from every token: sums of four random numbers a token, over the tokens on
which a unit fires, are the same for two units only where these tokens are. What takes pairs of units or
gradients is read from a sample of tokens, spread evenly over the text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.interaction import effective_parameters
from atlas_builder.interaction.directions import rank
from atlas_builder.rotate.gradients import MLPPass
from atlas_builder.rounding import significant

SAMPLED = 8192
"""Tokens sampled, or twice as many as gradients are wide where that is more."""
WIDEST = 8192
"""Pre-activations of a layer up to which its independent parameters are counted: the work grows as the cube."""
FIRING = ("relu", "relu2")
"""Activation functions, as `MLPUnits.activation` names them, of units that do nothing, and have no derivative, where
the (gate's) pre-activation is not positive. Others have no firing set."""
LISTED = 1000
"""Units that a list names at most; the number of all stands beside it."""
RARE = 5
"""Sampled tokens on which a unit must fire to be one of the nearest pair: sets of fewer are alike by chance."""

_SALTS, _BITS = 4, 26  # sums of 2^37 tokens fit into int64, and of 2^27 at a time into float64, exactly
_BLOCK = 512  # units compared with all others at a time
_SHARE = 0.99

Blocks = list[dict[str, Tensor]]


def sampled_rows(total: int, wanted: int) -> NDArray[np.int64]:
    """Numbers of `wanted` of `total` rows, or of all if they are fewer, spread evenly."""
    kept = min(total, wanted)
    return np.arange(kept, dtype=np.int64) * total // max(kept, 1)


class DegeneracySums:
    """What is kept of the tokens of one block, for one layer; however blocks divide the rows, the facts are the same.

    Kept are counts and sums of all rows, and of the sampled ones inputs, gradients, activations and what fires, as
    float32 and bits: their number depends on the layer's widths alone.
    """

    def __init__(self, width: int, units: int, parts: int, added: int, total: int, activation: str) -> None:
        """
        Args:
            width: Of what enters the MLP.
            units: Neurons.
            parts: Pre-activations of each, 2 of a gated one.
            added: Width of what the MLP adds to the stream.
            total: Rows that there are in all blocks.
            activation: Name of the activation function.
        """
        self._fires, self._counted = activation in FIRING, parts * units <= WIDEST
        needed = _needed(width, units, parts, added)
        self._sampled = sampled_rows(total, max(SAMPLED, needed if self._counted else 0))
        self._tokens = 0
        self._fired = torch.zeros(units, dtype=torch.int64)
        self._hash = torch.zeros(_SALTS, units, dtype=torch.int64)
        # A chunk without rows, so that every block has arrays of the right shapes.
        self._chunks: list[dict[str, Tensor]] = [
            {
                "rows": torch.zeros(0, dtype=torch.int64),
                "firing": torch.zeros(0, (units + 7) // 8 if self._fires else 0, dtype=torch.uint8),
                "slopes": torch.zeros(0, 0 if self._fires else units),
                "inputs": torch.zeros(0, width),
                "activations": torch.zeros(0, units),
                "output_gradients": torch.zeros(0, added),
                "part_gradients": torch.zeros(0, parts, units),
            }
        ]

    def add(self, layer_pass: MLPPass, rows: NDArray[np.int64]) -> None:
        """Add the rows of a batch; `rows` are their numbers among all."""
        self._tokens += len(rows)
        firing = layer_pass.parts[0] > 0
        if self._fires:
            self._fired += firing.sum(dim=0).cpu()
            salts = torch.from_numpy(_salts(rows)).to(firing.device)
            self._hash += (salts.T @ firing.to(torch.float64)).to(torch.int64).cpu()
        kept = np.flatnonzero(np.isin(rows, self._sampled))
        if len(kept):
            self._chunks.append(self._sample(layer_pass, firing, rows, kept))

    def _sample(
        self, layer_pass: MLPPass, firing: Tensor, rows: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        chosen = torch.from_numpy(kept).to(firing.device)
        chunk = {"rows": torch.from_numpy(rows[kept])}
        if self._fires:
            chunk["firing"] = torch.from_numpy(np.packbits(firing[chosen].cpu().numpy(), axis=1))
        else:
            chunk["slopes"] = _narrow(layer_pass.slopes[0, chosen])
        if self._counted:
            chunk["inputs"] = _narrow(layer_pass.inputs[chosen])
            chunk["activations"] = _narrow(layer_pass.activations[chosen])
            chunk["output_gradients"] = _narrow(layer_pass.output_gradients[chosen])
            chunk["part_gradients"] = _narrow(layer_pass.part_gradients[:, chosen].transpose(0, 1))
        return chunk

    def arrays(self) -> dict[str, Tensor]:
        """What the block's file stores.

        `tokens ()`, `fired (units)` and `hash (4, units)`, all int64, the last two 0 of units that are not like ReLUs;
        of sampled rows, s of them: `rows (s)` int64, `firing (s, units / 8)` bits or `slopes (s, units)`, by the gate
        of a gated unit, and where parameters are counted `inputs (s, d)`, `activations (s, units)`,
        `output_gradients (s, added)`, `part_gradients (s, parts, units)`, float32.
        """
        arrays = _joined(self._chunks)
        self._chunks = [arrays]
        return {"tokens": torch.tensor(self._tokens), "fired": self._fired, "hash": self._hash, **arrays}


def degeneracy_of(
    blocks: Blocks,
    covariance: Tensor,
    pulled: Tensor,
    importance: Tensor,
    *,
    activation: str,
    biases: bool,
    tolerance: float,
) -> dict[str, Any]:
    """The facts of one layer, as JSON has them.

    Args:
        blocks: The arrays of every block.
        covariance: Of what enters the MLP, (d, d).
        pulled: M of `interaction.basis` there, (d, d).
        importance: Of each direction, (k,), in any order.
        activation: As in the sums.
        biases: Whether the MLP's linear layers have biases.
        tolerance: Eigenvalues below this share of the largest count as zero.

    Returns:
        `width, activations_rank, gradients_rank, units`; `dead` and `always_on` as `{count, units}` and `groups` as
        `{count, units: [[…], …]}`, null of units that have no firing set; `nearest` as `{units: [a, b], by, value}` or
        null; `directions_99`; `parameters`, `independent` (at most so many, null where not counted), and `needed`, the
        tokens from which it is counted, null where the layer is too wide for it; `tokens, sampled_tokens`.

    Raises:
        ActivationError: If a number is NaN or infinite.
    """
    tokens = sum(int(block["tokens"]) for block in blocks)
    fired, hashes = (sum((block[name] for block in blocks[1:]), blocks[0][name]) for name in ("fired", "hash"))
    sample = _joined([{name: block[name] for name in _SAMPLE} for block in blocks])
    _, parts, units = sample["part_gradients"].shape
    width, added = sample["inputs"].shape[1], sample["output_gradients"].shape[1]
    fires = activation in FIRING
    groups = _groups(fired, hashes) if fires else None
    firing = _unpacked(sample["firing"], units) if fires else None
    # What parts of a gated unit, or a squared one, are scaled by against each other is not taken off.
    mixing = firing if activation == "relu" and parts == 1 else None
    needed = _needed(width, units, parts, added)
    enough = len(sample["inputs"]) >= needed
    return {
        "width": width,
        "activations_rank": rank(covariance, tolerance),
        "gradients_rank": rank(pulled, tolerance),
        "units": units,
        "dead": _list(fired == 0) if fires else None,
        "always_on": _list(fired == tokens) if fires else None,
        "groups": None if groups is None else _shortened(groups),
        "nearest": nearest_units(sample["slopes"]) if firing is None else nearest_firing(firing, groups or []),
        "directions_99": _directions_of(importance, _SHARE),
        "parameters": parts * units * (width + biases) + added * (units + biases),
        "independent": _independent(sample, mixing, tolerance, biases=biases) if enough else None,
        "needed": needed if parts * units <= WIDEST else None,
        "tokens": tokens,
        "sampled_tokens": len(sample["rows"]),
    }


def nearest_firing(firing: Tensor, groups: list[list[int]]) -> dict[str, Any] | None:
    """The two units whose sets of rows are most alike, by their Jaccard index, the first of equals; none if all part.

    Args:
        firing: bool (rows, units); units that fire on fewer than `RARE` rows are left out.
        groups: Units that fire together on all rows, whose pairs are left out.
    """
    counts = firing.sum(dim=0).to(torch.float64)
    often = torch.nonzero(counts >= RARE)[:, 0]
    group = torch.arange(firing.shape[1])
    for members in groups:
        group[members] = members[0]
    fires, counts, group = firing[:, often].to(torch.float32), counts[often], group[often]

    def index(first: slice, others: slice) -> Tensor:
        both = (fires[:, first].T @ fires[:, others]).to(torch.float64)  # counts below 2^24, exact
        alike = both / (counts[first, None] + counts[others] - both)
        alike[group[first, None] == group[others]] = 0
        return alike

    return _nearest(often, index, "jaccard")


def nearest_units(slopes: Tensor) -> dict[str, Any] | None:
    """The two units whose derivatives by their pre-activation are most alike over rows, by |cosine|; our extension.

    Args:
        slopes: (rows, units); a unit whose are 0 on all rows is left out.
    """
    lengths = torch.linalg.vector_norm(slopes, dim=0, dtype=torch.float64)
    live = torch.nonzero(lengths > 0)[:, 0]
    directions = (slopes[:, live] / lengths[live]).to(torch.float32)

    def index(first: slice, others: slice) -> Tensor:
        cosines: Tensor = (directions[:, first].T @ directions[:, others]).abs()
        return cosines.to(torch.float64).clamp(max=1)

    return _nearest(live, index, "slope cosine")


def _nearest(units: Tensor, index: Callable[[slice, slice], Tensor], by: str) -> dict[str, Any] | None:
    """The pair of the largest `index`, of which rows are asked for block by block, if it is above 0."""
    best, pair = 0.0, None
    for start in range(0, len(units) - 1, _BLOCK):
        values = index(slice(start, start + _BLOCK), slice(start, None)).triu(1)  # each pair once
        value, place = values.flatten().max(dim=0)
        if value > best:
            best, (one, other) = float(value), divmod(int(place), values.shape[1])
            pair = start + one, start + other
    return None if pair is None else {"units": [int(units[one]) for one in pair], "by": by, "value": significant(best)}


def _groups(fired: Tensor, hashes: Tensor) -> list[list[int]]:
    """Units that fire on the same rows, two or more, in order; those that never fire are of no group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for unit, sums in enumerate(torch.cat([fired[None], hashes]).T.tolist()):
        if sums[0]:
            groups.setdefault(tuple(sums), []).append(unit)
    return [group for group in groups.values() if len(group) > 1]


def _independent(sample: dict[str, Tensor], mixing: Tensor | None, tolerance: float, *, biases: bool) -> int:
    """Our count for the MLP's two linear layers; of a gated one, gate and linear part are one layer of twice the width.

    `mixing` is what fires, where units that fire together can be mixed without a change of what the MLP does.
    """
    first = sample["inputs"], sample["part_gradients"].flatten(1), mixing
    second = sample["activations"], sample["output_gradients"], None
    return effective_parameters([first, second], tolerance, biases=biases)


def _directions_of(importance: Tensor, share: float) -> int:
    """How many directions, the most important first, hold a share of all importance."""
    sums = importance.sort(descending=True).values.to(torch.float64).cumsum(0)
    return int((sums < share * sums[-1]).sum()) + 1 if len(sums) else 0


def _needed(width: int, units: int, parts: int, added: int) -> int:
    """Sampled rows from which ranks of gradients do not lack for rows."""
    return 2 * max(parts * units, width, added)


def _list(chosen: Tensor) -> dict[str, Any]:
    units = torch.nonzero(chosen)[:, 0].tolist()
    return {"count": len(units), "units": units[:LISTED]}


def _shortened(groups: list[list[int]]) -> dict[str, Any]:
    """The first groups, of as many units in all as a list names."""
    ends = np.cumsum([len(group) for group in groups])
    listed = groups[: int((ends <= LISTED).sum())] or [group[:LISTED] for group in groups[:1]]
    return {"count": len(groups), "units": listed}


_SAMPLE = ("rows", "firing", "slopes", "inputs", "activations", "output_gradients", "part_gradients")


def _joined(chunks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sampled rows of all chunks, in the order of the text: however they were divided, the same."""
    joined = {name: torch.cat([chunk[name] for chunk in chunks if name in chunk]) for name in _SAMPLE}
    order = torch.argsort(joined["rows"])
    return {name: array[order] if len(array) else array for name, array in joined.items()}


def _unpacked(bits: Tensor, units: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=units).astype(bool))


def _narrow(rows: Tensor) -> Tensor:
    return rows.to(torch.float32).cpu().contiguous()


def _salts(rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Random integers below 2^26 that depend on a row's number alone, by splitmix64: (rows, 4)."""
    mixed = _SALTS * rows[:, None] + np.arange(1, _SALTS + 1)
    mixed = mixed.astype(np.uint64)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(64 - _BITS)).astype(np.float64)
