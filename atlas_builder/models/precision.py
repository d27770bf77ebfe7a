"""The numbers in which a model runs: their type, and how exact it is."""

from __future__ import annotations

from typing import get_args

import torch

from atlas_builder.config import ModelSettings

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in get_args(ModelSettings.model_fields["dtype"].annotation)
}
"""The type of torch for each value of `model.dtype`."""


def epsilon(dtype: torch.dtype) -> float:
    """The machine epsilon: the relative distance from 1 to the next number."""
    return float(torch.finfo(dtype).eps)
