"""Every byte that would leave a device, counted on the processor, where nothing has to.

All tensors are taken to be on a device, but for those made of numpy arrays and those that were taken
to the host: whatever then shows a tensor's numbers to Python counts with all its bytes. What an
operation computes from host tensors counts as the device's, so nothing is missed.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_NUMBERS = (
    Tensor.numpy, Tensor.item, Tensor.tolist, Tensor.__array__, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
    Tensor.__index__, Tensor.__complex__, Tensor.__contains__, Tensor.__repr__, Tensor.__format__, Tensor.data_ptr,
    Tensor.untyped_storage, Tensor.is_nonzero, torch.is_nonzero, torch.equal, Tensor.equal, torch.allclose,
    Tensor.allclose, Tensor.__reduce_ex__, Tensor.__deepcopy__, Tensor.__dlpack__,
)  # fmt: skip
_SIZES = (Tensor.nonzero, torch.nonzero, torch.unique, Tensor.unique, Tensor.masked_select, torch.masked_select)
"""Their results' sizes are numbers that the host learns."""
_SIZE = 8


class Crossings(TorchFunctionMode):
    """Counts while it is entered; `bytes` by the name of what took them."""

    def __init__(self) -> None:
        super().__init__()
        self._mode: Any = super()  # torch gives its modes no types
        self.bytes: Counter[str] = Counter()
        self._on_host: dict[int, weakref.ref[Tensor]] = {}

    @property
    def total(self) -> int:
        """Bytes so far, in all ways."""
        return sum(self.bytes.values())

    def __enter__(self) -> Crossings:
        # The one way in that the mode is not told of.
        self._from_numpy = torch.from_numpy
        vars(torch)["from_numpy"] = lambda array: self._host(self._from_numpy(array))
        self._mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        vars(torch)["from_numpy"] = self._from_numpy
        self._mode.__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given, named = tuple(args), kwargs or {}
        if func in (Tensor.cpu, Tensor.to):
            return self._moved(func, given, named)
        result = func(*given, **named)
        if func is Tensor.copy_ and self._is_host(given[0]):
            self._count("copy_", given[1])
        elif func in _NUMBERS:
            for tensor in given:
                self._count(func.__name__, tensor)
        elif func in _SIZES or (func is torch.where and len(given) == 1) or _is_masking(func, given):
            self.bytes[func.__name__] += _SIZE
        return result

    def _moved(self, func: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What is on the host goes to the device, all else comes to the host if it says so."""
        tensor = given[0]
        places = [part for part in (*given[1:], *named.values()) if isinstance(part, str | torch.device)]
        if func is Tensor.cpu or (places and not self._is_host(tensor)):
            self._count(func.__name__, tensor)
            return self._host(func(*given, **named).detach())
        # A tensor of its own: on a processor, to() may give back the same one.
        return func(*given, **named).detach()

    def _host(self, tensor: Tensor) -> Tensor:
        number = id(tensor)
        self._on_host[number] = weakref.ref(tensor, lambda _: self._on_host.pop(number, None))
        return tensor

    def _is_host(self, tensor: Tensor) -> bool:
        known = self._on_host.get(id(tensor))
        return known is not None and known() is tensor

    def _count(self, name: str, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and not self._is_host(tensor):
            self.bytes[name] += tensor.numel() * tensor.element_size()


def _is_masking(func: Callable[..., Any], given: tuple[Any, ...]) -> bool:
    """Whether it takes the elements of a mask, whose number the host learns."""
    if func is not Tensor.__getitem__:
        return False
    parts = given[1] if isinstance(given[1], tuple) else (given[1],)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)
