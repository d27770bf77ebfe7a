"""Memory on the device that the model runs on: how much is free, and what to do when it is not enough."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor

from atlas_builder.errors import OutOfMemoryError

REUSED_BYTES = 1 << 25
"""Tensors below this size come from memory that was used before; glibc takes no higher threshold."""
BATCH_TOKENS = 8192
"""Most tokens of a batch."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_SHARE = 0.5  # of what is free: the estimate is rough, and others live here too


def keep_memory() -> None:
    """Have glibc keep freed memory instead of handing it back to the system.

    Tensors of a few megabytes come and go with every operation; by default each costs
    its page faults anew.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, REUSED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return  # another C library, with habits of its own


def free_memory(device: str) -> int:
    """Bytes that are free on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


def tokens_that_fit(shape: Any, context: int, device: str) -> int:
    """About how many tokens a model can run at once in half of the free memory.

    `shape` is TransformerLens's configuration. What is alive at a time: two MLP
    activations of float32 and what they were made from, a dozen residual streams, and
    attention patterns before and after the softmax.
    """
    per_token = 4 * (
        6 * int(shape.d_mlp or 4 * shape.d_model) + 12 * int(shape.d_model) + 3 * int(shape.n_heads) * context
    )
    return int(_SHARE * free_memory(device)) // per_token


def batch_tokens(units: int) -> int:
    """How many tokens make a batch where the widest layer that is looked at has so many units.

    It depends on the model only, so that batches are the same on every machine: where memory
    is short they run in parts. A layer's activations stay small enough for memory to be
    reused, which a larger batch would pay for with page faults.
    """
    return max(1, min(BATCH_TOKENS, REUSED_BYTES // (4 * units)))


def in_halves(
    run: Callable[[slice], None],
    rows: int,
    device: str,
    refusal: str,
    on_halving: Callable[[int, int], None] = lambda rows, half: None,
) -> None:
    """Run `rows` rows at once, or where the device's memory does not hold them in halves, and these likewise.

    `run` is given a range of rows; what it did before it failed it is asked to do again. It
    is told by `on_halving` of how many rows were too many, and how many are tried next.
    Raises `OutOfMemoryError` with the `refusal` where one row alone is too many.
    """

    def part(first: int, last: int) -> None:
        try:
            run(slice(first, last))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Only now is what the error held on to let go.
        if last - first == 1:
            raise OutOfMemoryError(refusal)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        half = -(-(last - first) // 2)
        on_halving(last - first, half)
        part(first, first + half)
        part(first + half, last)

    part(0, rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)


def as_float32(tensor: Tensor) -> Tensor:
    """A tensor as results are kept: float32, on the cpu, contiguous, without a gradient."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
