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

    def forward(self, x: Tensor, remember: Callable[[Tensor], Tensor]) -> Tensor:
        """From (batch, context, width) to the same shape; `remember` prepends v of the tokens before."""
        queries = (
            self.subspaces(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        )  # (batch, heads, context, width / heads)
        keys = remember(queries)
        new, past = queries.shape[2], keys.shape[2] - queries.shape[2]
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past) if past else None
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

    def forward(self, tokens: Tensor, change: Change | None = None) -> Tensor:
        """Logits of (batch, context) tokens: (batch, context, vocabulary); `change` is as in `stream`."""
        return functional.linear(self.ln_final(self.stream(tokens, change=change)), self.tokens.weight)

    def stream(
        self,
        tokens: Tensor,
        see: See | None = None,
        last: int | None = None,
        cache: Any = None,
        change: Change | None = None,
    ) -> Tensor:
        """The residual stream after the last layer, or after the layer `last`: (batch, context, width).

        `see` is called with each layer's input and code, and `change` returns what replaces
        the code. A transformers `cache` is read and extended; the tokens are those that
        follow the cached ones.
        """
        past = 0 if cache is None else int(cache.get_seq_length())
        places = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        x: Tensor = self.tokens(tokens) + self.positions(places)
        for layer, block in enumerate(self._layers):
            x = x + block.attention(block.norm_1(x), _memory(cache, layer))
            read = block.norm_2(x)
            code = block.ista.encode(read)
            if see is not None:
                see(layer, read, code)
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

    @property
    def original_model(self) -> Crate:
        """The module that holds the weights."""
        return self


def _memory(cache: Any, layer: int) -> Callable[[Tensor], Tensor]:
    """A function that prepends the cached values of earlier tokens to an attention's values, and caches these."""
    return lambda values: values if cache is None else cache.update(values, values, layer)[1]


def is_crate(folder: Path) -> bool:
    """Whether a folder contains a CRATE, in this project's layout or in its authors'."""
    if any(folder.glob("*.pt")):
        return True
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == KIND)
    except (OSError, ValueError, AttributeError):
        return False


def save_crate(model: Crate, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": KIND, **asdict(model.shape)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def load_crate(folder: Path) -> Crate:
    """Read what `save_crate` wrote, or a checkpoint (`*.pt`) of the authors' training script.

    Raises `ModelError` where tensors are missing, unexpected, or of another shape than the
    configuration gives.
    """
    checkpoint = next(iter(sorted(folder.glob("*.pt"))), None)
    shape, tensors = _authors(checkpoint) if checkpoint else _ours(folder)
    model = Crate(shape)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if missing := sorted(expected.keys() - given.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"model {folder} lacks the tensor {missing[0]}{more} of a CRATE of {shape.layers} layers.")
    if surplus := sorted(given.keys() - expected.keys()):
        raise ModelError(f"model {folder} contains {surplus[0]}, which a CRATE of {shape.layers} layers does not have.")
    if other := [name for name in expected if expected[name] != given[name]]:
        name = other[0]
        raise ModelError(
            f"model {folder}: {name} has the shape {given[name]}, but its configuration requires {expected[name]}."
        )
    model.load_state_dict(tensors)
    return model.eval()


def _ours(folder: Path) -> tuple[CrateShape, dict[str, Tensor]]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = CrateShape(**{name: int(config[name]) for name in CrateShape.__dataclass_fields__})
        return shape, load_file(folder / "model.safetensors")
    except KeyError as error:
        raise ModelError(f"model {folder}: config.json lacks the key {error}.") from None
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(
            f"model {folder} cannot be read as a CRATE ({error}): it requires config.json and model.safetensors."
        ) from error


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


def _authors(path: Path) -> tuple[CrateShape, dict[str, Tensor]]:
    """A checkpoint of the authors' training script: `model_args`, and tensors under `model`."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        sizes = checkpoint["model_args"]
        shape = CrateShape(
            vocabulary=int(sizes["vocab_size"]),
            layers=int(sizes["n_layer"]),
            heads=int(sizes["n_head"]),
            width=int(sizes["n_embd"]),
            context=int(sizes["block_size"]),
        )
        tensors = {}
        for name, tensor in checkpoint["model"].items():
            for theirs, ours in _NAMES.items():
                name = name.replace(theirs, ours)
            if name != "lm_head.weight":  # tied to the embeddings
                tensors[name] = tensor.float()
    except Exception as error:  # torch raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is not a checkpoint of CRATE's training script ({reason}).") from error
    return shape, tensors
