"""CRATE, a language model whose layers code their input sparsely (Bai and Ma 2024, arXiv 2410.16443).

A block compresses, then sparsifies:

    x ← x + MSSA(LN₁ x)      attention whose queries, keys and values are one projection
    x ← D A₂(LN₂ x)          two steps of ISTA towards a sparse code in an overcomplete dictionary D

There is no residual path around the second step, so a layer's output is a sum of columns
of D, weighted by A₂: coordinate j of A₂ is a unit, and column j is its output weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from atlas_builder.errors import ModelError
from atlas_builder.models.checkpoint import (
    CONFIG,
    SAFE,
    is_stored_whole,
    load_pickle,
    read_config,
    safe_tensors,
)
from atlas_builder.models.completeness import check_finite
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.models.wording import and_more, named, reason, shortened

KIND = "crate"
"""`model_type` in the config.json of a CRATE's folder."""
CODES = 4
"""Columns of a dictionary, as a multiple of the width."""
STEP = 0.1
"""η, the step size of ISTA."""
SPARSITY = 0.1
"""λ, the sparsity penalty."""
EPSILON = 1e-5

See = Callable[[int, Tensor, Tensor], None]
"""Called with a layer, the input of its dictionary, (batch, context, width), and the code, (batch, context, codes)."""

Change = Callable[[int, Tensor], Tensor]
"""Maps a layer and its code to another code of the same shape."""


@dataclass(frozen=True)
class CrateShape:
    """The sizes of a CRATE."""

    vocabulary: int
    layers: int
    heads: int
    width: int
    context: int

    @property
    def parameters(self) -> int:
        """Parameters without positions: V·d + L(6d² + 5d) + 2d, as the paper counts them."""
        width = self.width
        return self.vocabulary * width + self.layers * (6 * width**2 + 5 * width) + 2 * width


class SubspaceAttention(nn.Module):
    """MSSA: each head softly projects a token onto those before it, within the head's subspace.

    softmax(v vᵀ / √(d/K)) v with v = x U: one matrix for queries, keys and values.
    """

    def __init__(self, shape: CrateShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.subspaces = nn.Linear(shape.width, shape.width, bias=False)
        self.join = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, remember: Callable[[Tensor], Tensor], visible: Tensor | None = None) -> Tensor:
        """From (batch, context, width) to the same shape; `remember` prepends v of the tokens before.

        `visible` is added to the scores, as in `Packing.mask`, where a token does not see all before it.
        """
        queries = (
            self.subspaces(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        )  # (batch, heads, context, width / heads)
        keys = remember(queries)
        new, past = queries.shape[2], keys.shape[2] - queries.shape[2]
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past) if past else None
        mask = mask if visible is None else visible
        heads = functional.scaled_dot_product_attention(queries, keys, keys, attn_mask=mask, is_causal=mask is None)
        joined: Tensor = self.join(heads.transpose(1, 2).flatten(-2))
        return joined


class SparseCode(nn.Module):
    """ISTA: A₁ = ReLU(ηDᵀx − ηλ), A₂ = ReLU(A₁ + η(Dᵀx − DᵀD A₁) − ηλ); the output is D A₂."""

    def __init__(self, shape: CrateShape) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.empty(CODES * shape.width, shape.width))  # a row is a column of D
        nn.init.kaiming_uniform_(self.dictionary)

    def encode(self, x: Tensor) -> Tensor:
        """A₂ of (…, width): (…, codes)."""
        drive = functional.linear(x, self.dictionary)
        first = functional.relu(STEP * (drive - SPARSITY))
        explained = functional.linear(first @ self.dictionary, self.dictionary)
        return functional.relu(first + STEP * (drive - explained - SPARSITY))

    def decode(self, code: Tensor) -> Tensor:
        """D A₂: (…, width)."""
        return code @ self.dictionary


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: CrateShape) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(shape.width, EPSILON)
        self.attention = SubspaceAttention(shape)
        self.norm_2 = nn.LayerNorm(shape.width, EPSILON)
        self.ista = SparseCode(shape)


class Crate(nn.Module):
    """The language model: tied embeddings, learned positions, a final norm."""

    def __init__(self, shape: CrateShape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_final = nn.LayerNorm(shape.width, EPSILON)
        self.apply(self._start)
        for block in self._layers:
            # As in GPT-2: what adds to the residual stream starts smaller in deeper models.
            nn.init.normal_(block.attention.join.weight, std=0.02 / (2 * shape.layers) ** 0.5)

    @property
    def _layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    @staticmethod
    def _start(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, change: Change | None = None, see: See | None = None) -> Tensor:
        """Logits of (batch, context) tokens: (batch, context, vocabulary); `change` and `see` are as in `stream`."""
        return functional.linear(self.ln_final(self.stream(tokens, see, change=change)), self.tokens.weight)

    def stream(
        self,
        tokens: Tensor,
        see: See | None = None,
        last: int | None = None,
        change: Change | None = None,
        rows: Rows = PLAIN,
    ) -> Tensor:
        """The residual stream after the last layer, or after the layer `last`: (batch, context, width).

        `see` is called with each layer's input and code, and `change` returns what replaces
        the code. `rows` is as in `Units.run`.
        """
        cache, packing, at = rows.cache, rows.packing, rows.at
        past = 0 if cache is None else int(cache.get_seq_length())
        places = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        places = places if packing is None else packing.positions
        visible = None if packing is None else packing.mask(self.tokens.weight.dtype)
        x: Tensor = self.tokens(tokens) + self.positions(places)
        for layer, block in enumerate(self._layers):
            x = x + block.attention(block.norm_1(x), _memory(cache, layer), visible)
            if layer == last:
                x = at_places(x, at)
            read = block.norm_2(x)
            code = block.ista.encode(read)
            if see is not None:
                see(layer, *(tensor if layer == last else at_places(tensor, at) for tensor in (read, code)))
            if layer == last:
                break
            x = block.ista.decode(code if change is None else change(layer, code))
        return x

    def dictionary(self, layer: int) -> Tensor:
        """A layer's dictionary, a column of D as a row: (codes, width)."""
        return self._layers[layer].ista.dictionary

    # What the builder needs of a model, under TransformerLens's names.

    @property
    def cfg(self) -> SimpleNamespace:
        """The model's shape."""
        shape = self.shape
        return SimpleNamespace(
            architecture="CRATE",
            act_fn="ista",
            n_layers=shape.layers,
            n_heads=shape.heads,
            n_ctx=shape.context,
            d_model=shape.width,
            d_mlp=CODES * shape.width,
            d_vocab=shape.vocabulary,
        )

    @property
    def W_U(self) -> Tensor:  # noqa: N802
        """The unembedding: (width, vocabulary)."""
        return self.tokens.weight.T

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings of tokens, under the name of transformers."""
        return self.tokens

    @property
    def original_model(self) -> Crate:
        """The module that holds the weights."""
        return self


def _memory(cache: Any, layer: int) -> Callable[[Tensor], Tensor]:
    """A function that prepends the cached values of earlier tokens to an attention's values, and caches these."""
    return lambda values: values if cache is None else cache.update(values, values, layer)[1]


def is_crate(folder: Path) -> bool:
    """Whether a folder contains a CRATE, in this project's layout or, where it has no config.json, in its authors'."""
    if (folder / CONFIG).exists():
        return bool(read_config(folder).get("model_type") == KIND)
    return bool(_checkpoints(folder))


def save_crate(model: Crate, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": KIND, **asdict(model.shape)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def load_crate(folder: Path) -> Crate:
    """Read what `save_crate` wrote, or a checkpoint (`*.pt`) of the authors' training script.

    Raises `ModelError` where tensors are missing, unexpected, of another shape than the
    configuration gives, or no numbers. Nothing is made at random, and nothing of a size that
    the file does not have.
    """
    whose = f"model {named(folder)}"
    if (folder / CONFIG).exists():
        shape, tensors = _ours(folder, whose)
    else:
        shape, tensors = _authors(folder, whose)
    if shape.layers > len(tensors):
        raise ModelError(
            f"{whose}: its configuration has {shape.layers:,} layers, but the weights hold {len(tensors):,} tensors: "
            "correct the configuration."
        )
    with torch.device("meta"):
        model = Crate(shape)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if missing := expected.keys() - given.keys():
        raise ModelError(f"{whose} lacks the tensor {and_more(missing)} of a CRATE of {shape.layers} layers.")
    if surplus := given.keys() - expected.keys():
        raise ModelError(f"{whose} contains {and_more(surplus)}, which a CRATE of {shape.layers} layers does not have.")
    if other := [name for name in expected if expected[name] != given[name]]:
        name = other[0]
        raise ModelError(
            f"{whose}: {name} has the shape {given[name]}, but its configuration requires {expected[name]}."
        )
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    check_finite(model, whose)
    return model.eval()


def _ours(folder: Path, whose: str) -> tuple[CrateShape, dict[str, Tensor]]:
    shape = _shape(read_config(folder), {name: name for name in CrateShape.__dataclass_fields__}, whose, CONFIG)
    file = folder / SAFE
    if not file.is_file():
        raise ModelError(f"{whose} cannot be read as a CRATE: it requires {CONFIG} and {SAFE}.")
    try:
        if whole := [name for name, tensor in safe_tensors(file) if not tensor.is_float]:
            raise ValueError(f"{shortened(whole[0], 30)} holds whole numbers")
        return shape, load_file(file)
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(
            f"{whose} cannot be read as a CRATE ({reason(error)}): it requires {CONFIG} and {SAFE}."
        ) from error


def _shape(sizes: dict[str, Any], keys: dict[str, str], whose: str, where: str) -> CrateShape:
    """Sizes under the names of a file: whole numbers, at least one, and heads that share the width evenly."""
    values = {}
    for name, key in keys.items():
        if key not in sizes:
            raise ModelError(f"{whose}: {where} lacks the key {key!r}.")
        value = sizes[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise ModelError(
                f"{whose}: {key} in {where} must be a whole number of at least 1, not {shortened(repr(value), 20)}."
            )
        values[name] = value
    shape = CrateShape(**values)
    if shape.width % shape.heads:
        raise ModelError(
            f"{whose}: {where} has {shape.heads} heads, which do not divide the width {shape.width}: correct {where}."
        )
    return shape


_NAMES = {
    "transformer.wte": "tokens",
    "transformer.wpe": "positions",
    "transformer.ln_f": "ln_final",
    "transformer.h": "blocks",
    "prenorm_1": "norm_1",
    "prenorm_2": "norm_2",
    "attn.c_attn": "attention.subspaces",
    "attn.c_proj": "attention.join",
    "ista.weight": "ista.dictionary",
    "_orig_mod.": "",
}
"""The authors' names of the parts, and those used here."""


_BESIDE = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
"""What other programs save beside a model, and which is never opened."""


def _checkpoints(folder: Path) -> list[Path]:
    """The files that may be a checkpoint of the authors' training script."""
    files = sorted(file for file in folder.glob("*.pt") if file.is_file() and not file.name.startswith(_BESIDE))
    return [file for file in files if file.name.startswith("ckpt")] or files


def _authors(folder: Path, whose: str) -> tuple[CrateShape, dict[str, Tensor]]:
    """A checkpoint of the authors' training script: `model_args`, and tensors under `model`."""
    files = _checkpoints(folder)
    if len(files) > 1:
        raise ModelError(f"{whose} has several checkpoints, {and_more([file.name for file in files])}: leave one.")
    path = files[0]
    try:
        checkpoint = load_pickle(path)
        sizes, stored = checkpoint["model_args"], checkpoint["model"]
        if not isinstance(sizes, dict):
            raise ValueError("model_args is not a map")
        tensors: dict[str, Tensor] = {}
        for theirs, tensor in stored.items():
            name = str(theirs)
            for part, ours in _NAMES.items():
                name = name.replace(part, ours)
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not is_stored_whole(tensor):
                raise ValueError(f"{shortened(name, 30)} is no whole tensor")
            if name in tensors:
                raise ValueError(f"{shortened(name, 30)} is there twice")
            if name != "lm_head.weight":  # tied to the embeddings
                tensors[name] = tensor
        if any(tensor.is_meta for tensor in tensors.values()):
            raise ValueError("it is in the old format of torch.save")
    except Exception as error:  # torch raises many kinds
        raise ModelError(f"{named(path)} is not a checkpoint of CRATE's training script ({reason(error)}).") from error
    keys = {"vocabulary": "vocab_size", "layers": "n_layer", "heads": "n_head", "width": "n_embd"}
    return _shape(sizes, {**keys, "context": "block_size"}, whose, "model_args"), tensors
