"""A second implementation of units: hooks on a model's own modules, and formulas written independently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from atlas_builder.config import Configuration, UnitSettings
from atlas_builder.models import crate, language_model
from atlas_builder.models.memory import as_float32
from atlas_builder.models.sae_folders import sae_folders
from atlas_builder.rerun.directions import PublishedDirections
from atlas_builder.rerun.saes import PlainSAE

_ROUNDED = 1e-4
"""A share of the largest logit by which rounding may move one in float32."""

Reading = dict[int, tuple[Tensor, Tensor]]
"""For each layer the inputs of its units, (batch, context, width), and their activations, (batch, context, units)."""


class SecondReading(Protocol):
    """A model and its units, run without the code of the pass."""

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        """Inputs and activations for (batch, context) tokens and layers."""


@runtime_checkable
class Clampable(Protocol):
    """A second reading whose units can be clamped."""

    def next_token(self, tokens: Tensor, layer: int, unit: int, value: float | None) -> Tensor:
        """The distribution of the next token after (batch, context) tokens: (batch, vocabulary).

        The unit is clamped to `value` at every position, unless it is None.
        """


def second_reading(
    config: Configuration,
    loaded: language_model.LanguageModel,
    directions: PublishedDirections | None = None,
    output_tokens: Sequence[int] = (),
) -> SecondReading:
    """The second reading for the units of a configuration; those of kind basis are in `directions`.

    Output neurons are those of `output_tokens`.
    """
    if config.units.kind == "crate":
        folder = language_model.folder_of(config.model)
        return _Codes(crate.load_crate(folder).double().state_dict(), loaded.bridge.cfg.n_heads)
    place = loaded.bridge.adapter.translate_transformer_lens_path
    plain = language_model.load_plain(config.model)
    if config.units.kind in ("sae", "transcoder"):
        return _Latents(plain, place, _plain_saes(config.units))
    if config.units.kind == "basis":
        assert directions is not None
        return _Directions(plain, place, directions)
    if config.units.kind == "logits":
        return _Logits(plain, place, output_tokens)
    return _Neurons(plain, place)


class HookedReading:
    """A model of transformers with hooks on some of its modules."""

    def __init__(self, plain: Any, place: Callable[[str], str]) -> None:
        self.plain, self._place = plain, place

    def captured(self, tokens: Tensor, modules: Sequence[tuple[str, bool]]) -> list[Tensor]:
        """The input of each module, or its output if the flag is set: (batch, context, …)."""
        seen: dict[tuple[str, bool], Tensor] = {}

        def before(name: str) -> Callable[..., None]:
            def hook(module: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
                seen[name, False] = given[0] if given else next(iter(named.values()))

            return hook

        def after(name: str) -> Callable[..., None]:
            def hook(module: Any, given: Any, out: Any) -> None:
                seen[name, True] = out[0] if isinstance(out, tuple) else out

            return hook

        handles = []
        for name, comes_out in modules:
            module = self.plain.get_submodule(self._place(name))
            if comes_out:
                handles.append(module.register_forward_hook(after(name)))
            else:
                handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
        try:
            with torch.inference_mode():
                self.plain.base_model(input_ids=tokens.to(self.plain.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return [seen[name, comes_out] for name, comes_out in modules]

    def next_token_with(self, tokens: Tensor, name: str, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The distribution of the next token, (batch, vocabulary), what enters a module changed."""

        def hook(module: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> Any:
            if given:
                return (change(given[0]), *given[1:]), named
            first = next(iter(named))
            return given, {**named, first: change(named[first])}

        handle = self.plain.get_submodule(self._place(name)).register_forward_pre_hook(hook, with_kwargs=True)
        try:
            with torch.inference_mode():
                logits = self.plain(input_ids=tokens.to(self.plain.device), use_cache=False).logits[:, -1]
        finally:
            handle.remove()
        return as_float32(logits.double().softmax(-1))

    def mlp_module(self, layer: int) -> str:
        """The module whose input enters the MLP, by its name in the model."""
        return self._place(self._mlp(layer, "in"))

    def _mlp(self, layer: int, part: str) -> str:
        """The MLP, or its matrix `in` or `out` where matrices stand in the block by themselves."""
        name = f"blocks.{layer}.mlp"
        return name if self._has(name) else f"{name}.{part}"

    def _has(self, name: str) -> bool:
        try:
            self.plain.get_submodule(self._place(name))
        except (AttributeError, KeyError, ValueError):
            return False
        return True


class _Neurons(HookedReading):
    """MLP neurons: the input of the MLP, and that of its output matrix."""

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        names = [name for layer in layers for name in (self._mlp(layer, "in"), self._writer(layer))]
        tensors = self.captured(tokens, [(name, False) for name in names])
        # Some models flatten contexts within a block.
        tensors = [tensor.reshape(*tokens.shape, -1) for tensor in tensors]
        return {layer: (tensors[2 * at], tensors[2 * at + 1]) for at, layer in enumerate(layers)}

    def _writer(self, layer: int) -> str:
        """The output matrix; that of a dense layer among mixtures of experts has another name."""
        names = [f"blocks.{layer}.mlp.{name}" for name in ("out", "dense_out")]
        return next((name for name in names if self._has(name)), names[0])

    def next_token(self, tokens: Tensor, layer: int, unit: int, value: float | None) -> Tensor:
        """As `Clampable.next_token`; the neuron is overwritten in the input of the output matrix."""

        def clamp(activations: Tensor) -> Tensor:
            changed = activations.clone()
            if value is not None:
                changed[..., unit] = value
            return changed

        return self.next_token_with(tokens, self._writer(layer), clamp)


class _Directions(HookedReading):
    """Directions of what enters MLPs, in float64."""

    def __init__(self, plain: Any, place: Callable[[str], str], directions: PublishedDirections) -> None:
        super().__init__(plain, place)
        self.directions = directions

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        seen = self.captured(tokens, [(self._mlp(layer, "in"), False) for layer in layers])
        # Some models flatten contexts within a block.
        centred = [
            x.reshape(*tokens.shape, -1).cpu().double() - self._of(layer, "mean")
            for x, layer in zip(seen, layers, strict=True)
        ]
        return {layer: (x, x @ self._of(layer, "encode")) for layer, x in zip(layers, centred, strict=True)}

    def next_token(self, tokens: Tensor, layer: int, unit: int, value: float | None) -> Tensor:
        """As `Clampable.next_token`; what enters the MLP is moved along the direction."""
        along, across = self._of(layer, "encode")[:, unit], self._of(layer, "decode")[unit]

        def clamp(inputs: Tensor) -> Tensor:
            exact = inputs.cpu().double()
            if value is not None:
                exact = exact + (value - (exact - self._of(layer, "mean")) @ along)[..., None] * across
            return exact.to(inputs)

        return self.next_token_with(tokens, self._mlp(layer, "in"), clamp)

    def _of(self, layer: int, name: str) -> Tensor:
        return torch.from_numpy(self.directions.of(layer, name))


class _Logits(HookedReading):
    """Output neurons: the logits of some tokens less the mean of all, as the output matrix itself computes them."""

    def __init__(self, plain: Any, place: Callable[[str], str], tokens: Sequence[int]) -> None:
        super().__init__(plain, place)
        self.tokens = list(tokens)

    @property
    def head(self) -> Any:
        """The output matrix."""
        return self.plain.get_output_embeddings()

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self.head.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
        try:
            with torch.inference_mode():
                self.plain(input_ids=tokens.to(self.plain.device), use_cache=False)
        finally:
            handle.remove()
        inputs, logits = (tensor.cpu().double() for tensor in seen[0])
        computed = logits[..., self.tokens] - logits.mean(-1, keepdim=True)
        # Where a token's logit is near the mean, the difference of two logits in float32 is mostly rounding.
        columns, biases = self._columns
        exact = inputs @ columns + biases
        agrees = (exact - computed).abs().max() <= _ROUNDED * logits.abs().max()
        return dict.fromkeys(layers, (inputs, exact if agrees else computed))

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor]:
        """Of the tokens less the mean of all, in float64: weights (width, tokens) and biases (tokens,)."""
        weight, bias = self.head.weight.detach().cpu(), getattr(self.head, "bias", None)
        bias = torch.zeros(len(weight)) if bias is None else bias.detach().cpu()
        columns = weight[self.tokens].double() - weight.mean(0, dtype=torch.float64)
        return columns.T, bias[self.tokens].double() - bias.mean(dtype=torch.float64)


class _Latents(HookedReading):
    """The latents of SAEs, each read beside the module of a block that its hook is the input or the output of."""

    def __init__(self, plain: Any, place: Callable[[str], str], saes: dict[int, PlainSAE]) -> None:
        super().__init__(plain, place)
        self.saes = saes
        self.prepends_bos = all(sae.prepends_bos for sae in saes.values())

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        seen = self.captured(tokens, [self._beside(self.saes[layer]) for layer in layers])
        # Some models flatten contexts within a block.
        seen = [x.reshape(*tokens.shape, -1).cpu().double() for x in seen]
        return {layer: self._read(self.saes[layer], x) for layer, x in zip(layers, seen, strict=True)}

    def _beside(self, sae: PlainSAE) -> tuple[str, bool]:
        """The module, and whether its output is read."""
        block, joins = f"blocks.{sae.layer}", self.plain.config.model_type == "bloom"  # whose modules add the stream
        norm = f"{block}.ln2" if self._has(f"{block}.ln2") else self._mlp(sae.layer, "in")
        places = {
            "hook_resid_pre": (block, False),
            "hook_resid_mid": (norm, False),
            "hook_resid_post": (block, True),
            "mlp.hook_in": (self._mlp(sae.layer, "in"), False),
            "mlp.hook_out": (self._mlp(sae.layer, "out"), True),
            "ln2.hook_normalized": (f"{block}.ln2", False),
        }
        if sae.hook in ("hook_mlp_out", "hook_attn_out"):
            part, behind, last = ("mlp", "ln2_post", "out") if sae.hook == "hook_mlp_out" else ("attn", "ln1_post", "o")
            whole = f"{block}.{part}.{last}" if joins or not self._has(f"{block}.{part}") else f"{block}.{part}"
            return (f"{block}.{behind}" if self._has(f"{block}.{behind}") else whole), True
        return (f"{block}.ln2", False) if _is_before_gain(sae) else places[sae.hook]

    def _read(self, sae: PlainSAE, x: Tensor) -> tuple[Tensor, Tensor]:
        if sae.hook in ("hook_mlp_out", "hook_attn_out"):
            x = x * getattr(self.plain.config, "residual_multiplier", 1.0)
        if _is_before_gain(sae):
            norm = self.plain.get_submodule(self._place(f"blocks.{sae.layer}.ln2"))
            x = x - x.mean(-1, keepdim=True) if self._centres(x.shape[-1]) else x
            # Every norm has its epsilon by one of these names.
            little = next(getattr(norm, name) for name in ("eps", "variance_epsilon", "epsilon") if hasattr(norm, name))
            x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + little)
        elif sae.was_loaded_with("center_writing_weights") and not sae.hook.startswith("mlp."):
            x = x - x.mean(-1, keepdim=True) if self._centres(x.shape[-1]) else x
        read, latents = sae.latents(x.reshape(-1, x.shape[-1]).numpy())
        return (
            torch.from_numpy(read).reshape(*x.shape[:-1], -1),
            torch.from_numpy(latents).reshape(*x.shape[:-1], -1),
        )

    def _centres(self, width: int) -> bool:
        """Whether the model's norms take the mean off, so that the same number everywhere and its opposite are one."""
        if not self._has("ln_final"):
            return False
        norm = self.plain.get_submodule(self._place("ln_final"))
        even = torch.full((1, 1, width), 64.0, dtype=self.plain.dtype, device=self.plain.device)
        with torch.inference_mode():
            return bool(torch.allclose(norm(even).float(), norm(-even).float(), atol=1e-3))


def _is_before_gain(sae: PlainSAE) -> bool:
    """Whether an SAE reads what its layer's norm makes before its gain, or a folded model, whose norm has none."""
    return sae.hook == "ln2.hook_normalized" or (sae.hook == "mlp.hook_in" and sae.was_loaded_with("fold_ln"))


def _plain_saes(units: UnitSettings) -> dict[int, PlainSAE]:
    with sae_folders(units) as folders:
        return {sae.layer: sae for sae in map(PlainSAE, folders)}


class _Codes:
    """The codes of a CRATE, from the equations of its paper in float64."""

    def __init__(self, weights: dict[str, Tensor], heads: int) -> None:
        self._weights, self._heads = weights, heads

    def __call__(self, tokens: Tensor, layers: Sequence[int]) -> Reading:
        readings = {}
        for layer, (_, read, code) in enumerate(self._forward(tokens)):
            if layer in layers:
                readings[layer] = read, code
            if layer == max(layers):
                break
        return readings

    def next_token(self, tokens: Tensor, layer: int, unit: int, value: float | None) -> Tensor:
        """As `Clampable.next_token`; the coordinate is overwritten before the dictionary is applied."""
        *_, (x, _, _) = self._forward(tokens, (layer, unit, value))
        return as_float32((self._norm(x[:, -1], "ln_final") @ self._weights["tokens.weight"].T).softmax(-1))

    def _forward(
        self, tokens: Tensor, clamp: tuple[int, int, float | None] | None = None
    ) -> Iterator[tuple[Tensor, ...]]:
        """The output, input and code of each layer in turn, with `clamp` applied: layer, unit and value."""
        weights = self._weights
        with torch.inference_mode():
            x = weights["tokens.weight"][tokens.cpu()] + weights["positions.weight"][: tokens.shape[1]]
            for layer in range(sum(name.endswith("ista.dictionary") for name in weights)):
                name = f"blocks.{layer}."
                x = x + self._attention(self._norm(x, f"{name}norm_1"), f"{name}attention.")
                read, columns = self._norm(x, f"{name}norm_2"), weights[f"{name}ista.dictionary"].T  # D: (width, codes)
                drive, gram = read @ columns, columns.T @ columns
                first = (0.1 * drive - 0.01).clamp(min=0)
                code = (first + 0.1 * (drive - first @ gram) - 0.01).clamp(min=0)
                if clamp is not None and clamp[0] == layer and clamp[2] is not None:
                    code[..., clamp[1]] = clamp[2]
                x = code @ columns.T
                yield x, read, code

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], crate.EPSILON
        )

    def _attention(self, x: Tensor, name: str) -> Tensor:
        values = torch.einsum("bcw,vw->bcv", x, self._weights[f"{name}subspaces.weight"])
        heads = torch.stack(values.chunk(self._heads, dim=-1))  # (heads, batch, context, width / heads)
        scores = torch.einsum("hbqd,hbkd->hbqk", heads, heads) / heads.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mixed = torch.einsum("hbqk,hbkd->hbqd", scores.masked_fill(later, -torch.inf).softmax(-1), heads)
        joined = torch.cat(list(mixed), dim=-1)
        return joined @ self._weights[f"{name}join.weight"].T + self._weights[f"{name}join.bias"]
