"""Random models of every family that is tested, small enough to run in no time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from atlas_builder.models import crate
from atlas_builder.models.crate import CrateShape
from atlas_builder.shipped import MODEL
from tests.support.atlases import Once

_TOKENS = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_PLAIN = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, **_TOKENS}
_GATED = {**_PLAIN, "intermediate_size": 20, "num_key_value_heads": 1, "max_position_embeddings": 64}
# Every family has something that none before it has.
SHAPES: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(n_positions=64, n_embd=16, n_layer=2, n_head=2, n_inner=24, **_TOKENS),
    "llama": LlamaConfig(tie_word_embeddings=True, **_GATED),
    # Attention and MLP side by side, each with a norm of its own; a LayerNorm with rotary positions.
    "gpt_neox": GPTNeoXConfig(use_parallel_residual=True, max_position_embeddings=64, **_PLAIN),
    # Attention over a few tokens only.
    "mistral": MistralConfig(sliding_window=8, **_GATED),
    # Biases in attention.
    "qwen2": Qwen2Config(**_GATED),
    # Norms within attention.
    "qwen3": Qwen3Config(head_dim=8, **_GATED),
    # Norms that add one to their weight, a scaled embedding, GELU in the gate.
    "gemma": GemmaConfig(head_dim=8, **_GATED),
    # Norms behind attention and MLP too, caps on attention and logits, every other layer over a few tokens.
    "gemma2": Gemma2Config(head_dim=8, query_pre_attn_scalar=8, sliding_window=8, **_GATED),
}


@pytest.fixture(scope="session")
def tiny_model(once: Once) -> Callable[[str], Path]:
    """A random model of a family of `SHAPES`, 2 layers of 24 neurons or 20 gated ones, with the demo's tokenizer."""

    @functools.cache
    def make(family: str) -> Path:
        return once(f"tiny-{family}", functools.partial(save_tiny, SHAPES[family]))

    return make


@pytest.fixture(scope="session")
def gpt2_folder(tiny_model: Callable[[str], Path]) -> Path:
    return tiny_model("gpt2")


@pytest.fixture(scope="session")
def llama_folder(tiny_model: Callable[[str], Path]) -> Path:
    return tiny_model("llama")


def _as_trained(model: torch.nn.Module, times: float) -> None:
    """Larger weights than at initialisation, and gains and biases that differ, as in trained models."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(times)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))


def save_tiny(shape: PreTrainedConfig, folder: Path) -> None:
    """A random model of a shape, with the demo's tokenizer."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(shape)
    _as_trained(model, 8)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


NARROW = 160
"""Neurons of a layer of `narrow_demo`."""


@pytest.fixture(scope="session")
def narrow_demo(once: Once) -> Path:
    """The shipped model with the first neurons of each layer: what they respond to is real, and their pages are few."""
    return once("narrow-demo", save_narrow)


def save_narrow(folder: Path) -> None:
    """The shipped model with the first `NARROW` neurons of each layer."""
    whole = AutoModelForCausalLM.from_pretrained(MODEL)
    shape = GPT2Config.from_pretrained(MODEL)
    shape.n_inner = NARROW
    model = AutoModelForCausalLM.from_config(shape)
    kept = {"mlp.c_fc.weight": (slice(None), slice(NARROW)), "mlp.c_fc.bias": slice(NARROW)}
    kept["mlp.c_proj.weight"] = slice(NARROW)
    weights = {
        name: weight[next((part for end, part in kept.items() if name.endswith(end)), slice(None))]
        for name, weight in whole.state_dict().items()
    }
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


_SEES = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
_READS = {**_GATED, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "pad_token_id": 0}


def save_multimodal(folder: Path) -> None:
    """A random Gemma 3 that sees pictures, whose processor wants a package that is not installed."""
    torch.manual_seed(0)
    shape = Gemma3Config(
        text_config=_READS,
        vision_config={**_SEES, "image_size": 16, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=5,
        boi_token_index=3,
        eoi_token_index=4,
    )
    model: PreTrainedModel = Gemma3ForConditionalGeneration(shape)
    _as_trained(model, 2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


CRATE_SHAPE = CrateShape(vocabulary=2048, layers=2, heads=2, width=8, context=32)


@pytest.fixture(scope="session")
def crate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CRATE of 2 layers of 32 coordinates, with the demo's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-crate"
    save_tiny_crate(folder)
    return folder


def save_tiny_crate(folder: Path) -> None:
    """A random CRATE of `CRATE_SHAPE`, with the demo's tokenizer."""
    torch.manual_seed(0)
    model = crate.Crate(CRATE_SHAPE)
    _as_trained(model, 6)
    crate.save_crate(model, folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


class LeavesMark:
    """Makes a file when it is unpickled, as an attacker's object would do worse."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.mark), "w"))


class RunsCode:
    """Prints when it is unpickled, as an attacker's object would do worse."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("unpickled!",))
