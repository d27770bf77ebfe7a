"""The last block of a run at wanted places alone, after the keys and values of all places.

What precedes a wanted place matters to the last block by its keys and values and by nothing else:
queries, attention, its output and the MLP are computed where something is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers.activations import NewGELUActivation

from atlas_builder.models.packing import at_places


class KeysKnownError(Exception):
    """Ends a block whose keys and values are known."""


class RowCache:
    """A cache of transformers with keys and values of texts, some rows each, which keep none of their own.

    Without `texts` there are none yet: those of the rows are kept. Where it `trims`, the last block of
    a run has its keys and values computed before anything else of it.
    """

    def __init__(self, texts: RowCache | None = None, *, trims: bool) -> None:
        self.trims = trims
        self._texts = texts
        self._own: Any = DynamicCache()
        self._known: tuple[Tensor, Tensor] | None = None
        self._waits = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)  # what else models ask of a cache

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that rows see, those of their own tokens, (rows, heads, tokens, width), last."""
        if self._known is not None:  # the last block, once more
            return self._known
        if self._texts is None:
            keys, values = self._own.update(key_states, value_states, layer_idx, *args, **kwargs)
        else:
            text = self._texts.layers[layer_idx]
            keys, values = _after(text.keys, key_states), _after(text.values, value_states)
        if self._waits:
            self._known = keys, values
            raise KeysKnownError
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the texts; none in a model that passes a cache over."""
        return int((self._own if self._texts is None else self._texts).get_seq_length(layer_idx))

    def learn(self, run_block: Callable[[], Any]) -> bool:
        """Run the last block until its keys and values are known, which it has from then on; False if it has none."""
        self._waits = True
        try:
            with suppress(KeysKnownError):
                run_block()
        finally:
            self._waits = False
        return self._known is not None


def _after(text: Tensor, own: Tensor) -> Tensor:
    """(texts, heads, before, width) and (texts · rows, heads, tokens, width): (texts · rows, heads, both, width)."""
    rows = own.reshape(len(text), -1, *own.shape[1:])
    before = text[:, None].expand(-1, rows.shape[1], -1, -1, -1)
    return torch.cat([before, rows], dim=3).flatten(0, 1)


@contextmanager
def at_wanted_places(block: nn.Module, cache: RowCache, at: Tensor) -> Iterator[Callable[[], bool]]:
    """Within it, a block runs for places `at`, (rows, k), alone; yields whether it is at keys and values of all.

    What comes after the block has zeros at other places.
    """
    tokens = 0  # that the block was given, once it runs for some
    waits = False

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        nonlocal tokens, waits
        waits = True
        try:
            known = cache.learn(lambda: module.forward(*args, **kwargs))
        finally:
            waits = False
        if not known:
            return None
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        tokens = hidden.shape[1]
        narrow = partial(_narrow, at=at, tokens=tokens)
        return tuple(map(narrow, args)), {name: narrow(value) for name, value in kwargs.items()}

    def leave(module: nn.Module, given: Any, output: Any) -> Any:
        if not tokens:
            return output
        return (
            (_spread(output[0], at, tokens), *output[1:]) if isinstance(output, tuple) else _spread(output, at, tokens)
        )

    handles = block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)
    try:
        yield lambda: waits
    finally:
        for handle in handles:
            handle.remove()


def _spread(output: Tensor, at: Tensor, tokens: int) -> Tensor:
    """(rows, k, width) at their places among all, (rows, tokens, width)."""
    spread = output.new_zeros(len(output), tokens, output.shape[2])
    spread[torch.arange(len(at), device=at.device)[:, None], at] = output
    return spread


def _narrow(value: Any, at: Tensor, tokens: int) -> Any:
    """What a block is given for all tokens, for some: (rows | 1, tokens, …), a mask (rows | 1, heads, tokens, …)."""
    if isinstance(value, tuple):
        return tuple(_narrow(part, at, tokens) for part in value)
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) not in (1, len(at)):
        return value
    if value.ndim == 4:  # a mask, the same for all heads or not
        by_token = value.transpose(1, 2)
        return at_places(_for_all(by_token, at), at).transpose(1, 2) if by_token.shape[1] == tokens else value
    return at_places(_for_all(value, at), at) if value.shape[1] == tokens else value


def _for_all(value: Tensor, at: Tensor) -> Tensor:
    return value.expand(len(at), *value.shape[1:])


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Within it, GELU by tanh, which transformers writes as eight operations, is torch's one; it rounds otherwise."""
    changed = [module for module in model.modules() if type(module) is NewGELUActivation]
    for module in changed:
        module.forward = partial(functional.gelu, approximate="tanh")
    try:
        yield
    finally:
        for module in changed:
            del module.forward
