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
        return once(f"tiny-{family}", functools.partial(save_model, SHAPES[family]))

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


def save_model(shape: PreTrainedConfig, folder: Path) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(shape)
    _as_trained(model, 8)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


CRATE_SHAPE = CrateShape(vocabulary=2048, layers=2, heads=2, width=8, context=32)


@pytest.fixture(scope="session")
def crate_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CRATE of 2 layers of 32 coordinates, with the demo's tokenizer."""
    torch.manual_seed(0)
    model = crate.Crate(CRATE_SHAPE)
    _as_trained(model, 6)
    folder = tmp_path_factory.mktemp("models") / "tiny-crate"
    crate.save_crate(model, folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return folder


class RunsCode:
    """Prints when it is unpickled, as an attacker's object would do worse."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("unpickled!",))
