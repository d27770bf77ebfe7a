"""The activation function of an MLP, found from what it computes: libraries have defaults for what they do not know."""

from __future__ import annotations

import torch
from torch import Tensor

from atlas_builder.models.precision import epsilon

_KNOWN = ("relu", "gelu", "gelu_new", "silu", "relu2", "quick_gelu", "tanh", "sigmoid", "linear")
_ROUNDINGS = 100
"""Of so many times the machine epsilon, relative to the largest number, a sum over a stream may be off."""


def measured_activation(parts: list[Tensor], activations: Tensor, stated: str | None, dtype: torch.dtype) -> str | None:
    """The name of the function f with activations = f(parts[0]), times parts[1] where there is one.

    All are of one shape, `parts` before the function. What is `stated` holds if it computes this,
    else the known function that comes nearest; None where none does.
    """
    from transformers.activations import ACT2FN

    size = float(torch.stack([part.abs().max().clamp(min=1e-9) for part in parts]).prod())
    apart = {}
    for name in dict.fromkeys((stated, *_KNOWN)):
        if name in ACT2FN:
            computed = ACT2FN[name](parts[0]) * (parts[1] if len(parts) == 2 else 1)
            apart[name] = float((computed - activations).abs().max())
    fitting = {name: by for name, by in apart.items() if by <= _ROUNDINGS * epsilon(dtype) * size}
    return stated if stated in fitting else min(fitting, key=fitting.__getitem__, default=None)
