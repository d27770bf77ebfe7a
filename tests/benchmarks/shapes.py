"""Random models of known shapes, written where transformers finds them, with the demo's tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from atlas_builder.shipped import MODEL

SHAPES = {
    "demo": "the shipped model: 4 layers, width 128, 512 neurons each",
    "stories260k": "5 layers, width 64, 172 gated neurons each, random weights",
    "gpt2": "GPT-2 small: 12 layers, width 768, 3,072 neurons each, random weights",
}


def folder_of(shape: str, scratch: Path) -> str:
    """The model of a shape, made in `scratch`; any other name is a model's own."""
    if shape not in SHAPES or shape == "demo":
        return shape
    torch.manual_seed(0)
    if shape == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=2048, hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8,
                num_key_value_heads=4, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
    folder = scratch / shape
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return str(folder)
