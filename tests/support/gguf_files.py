"""Small models written as llama.cpp's tools write them, with the package gguf."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from atlas_builder.shipped import MODEL

SHAPE = LlamaConfig(
    vocab_size=2048,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=0,
    tie_word_embeddings=True,
)
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def made_llama() -> LlamaForCausalLM:
    """A random Llama of the demo's vocabulary, its rows as long as quantisation wants them."""
    torch.manual_seed(0)
    return LlamaForCausalLM(SHAPE).eval()


def write_gguf(
    model: LlamaForCausalLM,
    file: Path,
    quantised: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    architecture: str = "llama",
    without: str = "nothing",
    layers: int = 2,
    parts: int = 0,
) -> None:
    """Write a model with the demo's tokenizer; a tensor may be left `without`, and the description may lie."""
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(SHAPE.max_position_embeddings)
    writer.add_embedding_length(SHAPE.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(SHAPE.intermediate_size)
    writer.add_head_count(SHAPE.num_attention_heads)
    writer.add_head_count_kv(SHAPE.num_key_value_heads)
    writer.add_layer_norm_rms_eps(SHAPE.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(SHAPE.vocab_size)
    if parts:
        writer.add_uint16("split.count", parts)
    _add_tokenizer(writer)
    for name, weight in model.state_dict().items():
        theirs = _name(name)
        if theirs is None or without in theirs:
            continue
        array = weight.numpy().astype(np.float32)
        for part, heads in (("attn_q", SHAPE.num_attention_heads), ("attn_k", SHAPE.num_key_value_heads)):
            if part in theirs:
                array = _turned(array, heads)
        if array.ndim == 2:
            writer.add_tensor(theirs, gguf.quants.quantize(array, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(theirs, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantised(model: LlamaForCausalLM, quantised: GGMLQuantizationType) -> LlamaForCausalLM:
    """The model whose weights are those of another after they were quantised and dequantised, row by row."""
    again = made_llama()
    state = {
        name: torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), quantised), quantised))
        if weight.ndim == 2
        else weight
        for name, weight in model.state_dict().items()
    }
    again.load_state_dict(state)
    return again


def _name(name: str) -> str | None:
    """The name of a tensor in a file; None for what is not stored."""
    if name.startswith("lm_head"):
        return None  # tied
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _turned(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of queries or keys in the order in which llama.cpp rotates them: pairs beside each other."""
    rows, width = weight.shape
    return np.ascontiguousarray(weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2)).reshape(rows, width)


def _add_tokenizer(writer: GGUFWriter) -> None:
    stored = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = stored["model"]["vocab"] | {token["content"]: token["id"] for token in stored["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in stored["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["model"]["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)
