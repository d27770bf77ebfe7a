"""Memory of the device on which the model runs: how much is free, and what to do when it is too little."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.errors import OutOfMemoryError

REUSED_BYTES = 1 << 25
"""Tensors below this size are allocated from reused memory; glibc accepts no higher threshold."""
BATCH_TOKENS = 8192
"""Most tokens per batch."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 1 << 28
"""More freed memory than this goes back to the system after a batch: a large model's lies between what stays."""
_MALLINFO2 = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
_SHARE = 0.5  # of free memory: the estimate is rough, and other processes need some


def keep_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system.

    Tensors of a few megabytes come and go with every operation; by default each costs
    its page faults anew.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, REUSED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return  # another C library


class _Malloc(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in _MALLINFO2]


def return_freed_memory() -> None:
    """Give back to the system what `keep_memory` keeps, where it is so much that page faults do not count."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallinfo2.restype = _Malloc
        if libc.mallinfo2().fordblks > _KEPT_BYTES:
            libc.malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library


def free_memory(device: str) -> int:
    """Bytes of free memory on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


def tokens_that_fit(shape: Any, context: int, device: str) -> int:
    """About how many tokens a model can run at once in half of the free memory.

    `shape` is TransformerLens's configuration. Alive at one time are two MLP activations
    in float32 and what they were computed from, a dozen residual streams, and attention
    patterns before and after the softmax.
    """
    per_token = 4 * (
        6 * int(shape.d_mlp or 4 * shape.d_model) + 12 * int(shape.d_model) + 3 * int(shape.n_heads) * context
    )
    return int(_SHARE * free_memory(device)) // per_token


def batch_tokens(units: int) -> int:
    """Tokens per batch where the widest layer has so many units.

    It depends on the model only, so batches are the same on every machine; where memory is
    short they run in parts. A layer's activations stay small enough for memory to be reused;
    a larger batch would cost page faults.
    """
    return max(1, min(BATCH_TOKENS, REUSED_BYTES // (4 * units)))


def in_halves(
    run: Callable[[slice], None],
    rows: int,
    device: str,
    refusal: str,
    on_halving: Callable[[int, int], None] = lambda rows, half: None,
) -> None:
    """Run `rows` rows at once or, where the device's memory is too small, recursively in halves.

    `run` is called with a range of rows, and again with parts of the range where it ran out
    of memory. `on_halving` is called with the number of rows that was too large and the
    number tried next. Raises `OutOfMemoryError` with the `refusal` where one row is too many.
    """

    def part(first: int, last: int) -> None:
        try:
            run(slice(first, last))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Only here is the memory that the error referred to released.
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
    """Whether an error of torch means that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)


def as_float32(tensor: Tensor) -> Tensor:
    """A tensor in the form of results: float32, on the CPU, contiguous, detached."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()


def to_host(tensor: Tensor) -> NDArray[Any]:
    """A tensor's numbers in the processor's memory: a transfer, where the tensor is elsewhere."""
    array: NDArray[Any] = np.asarray(tensor.detach().cpu().numpy())
    return array
