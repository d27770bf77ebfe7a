"""The numbers in which a model runs: their type, and how exact it is."""

from __future__ import annotations

from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16", "float16"]
"""What `model.dtype` may be."""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Precision)}
"""The type of torch for each."""


def epsilon(dtype: torch.dtype) -> float:
    """The machine epsilon: the relative distance from 1 to the next number."""
    return float(torch.finfo(dtype).eps)
