"""Model families: a tiny random model of each, where it keeps its MLPs, and what an atlas of it comes to.

The one list from which the guide's table is written, against which it is tested, and which
`tests.attacks.families` builds whole. What is read here of a model is read by its family's own names of modules, with
transformers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer
from transformers.pytorch_utils import Conv1D

from atlas_builder.config import ModelSettings
from atlas_builder.models.language_model import load_model
from atlas_builder.shipped import MODEL
from atlas_builder.units.mlp import MLPUnits

Activation = Callable[[Tensor], Tensor]
_VOCABULARY = 2048
_NEAR = 1e-4  # of the largest number: float32, and attention in another order
_BASE = {"vocab_size": _VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_HIDDEN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, **_BASE}
_PLAIN = {**_HIDDEN, "intermediate_size": 12}
_GATED = {**_PLAIN, "num_key_value_heads": 1}
_EXPERTS = {**_GATED, "moe_intermediate_size": 8, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}


_EXPERTS_ONLY = "is a mixture of experts, whose neurons are of one expert and run on its tokens alone"
_UNSUPPORTED = "TransformerLens does not support: choose another model"
_PAIRS = "is an encoder with a decoder"
_NO_MLP = "has no readable MLP"


def _relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def _squared_relu(x: Tensor) -> Tensor:
    return x.clamp(min=0) ** 2


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@dataclass(frozen=True)
class Place:
    """Where a family keeps the MLP of a layer, `{}` being its number, and its function written out."""

    reads: tuple[str, ...]
    """The matrices that read, the gate first; of a joint one (gate, then linear part) twice the name."""
    write: str
    function: Activation


@dataclass(frozen=True)
class Family:
    """A family of models, as the guide's table names it."""

    title: str
    config: str
    """Its class of configurations in transformers."""
    shape: dict[str, Any]
    place: Place | None = None
    """None for what is refused."""
    activation: str | None = None
    """The name that pages have for its function."""
    refused: str | None = None
    """The sentence, in part, with which it is refused."""
    note: str = ""
    """What the guide says beside it."""
    layers: tuple[int, ...] = (0, 1)
    """Its layers with an MLP that is read."""
    auto: str = "AutoModelForCausalLM"
    """Its class of models in transformers."""


def _gated(layers: str, function: Activation = _silu, mlp: str = "mlp") -> Place:
    at = f"{layers}.{{}}.{mlp}"
    return Place((f"{at}.gate_proj", f"{at}.up_proj"), f"{at}.down_proj", function)


def _joint(layers: str, function: Activation = _silu, mlp: str = "mlp", name: str = "gate_up_proj") -> Place:
    at = f"{layers}.{{}}.{mlp}"
    return Place((f"{at}.{name}", f"{at}.{name}"), f"{at}.down_proj", function)


def _plain(first: str, last: str, function: Activation) -> Place:
    return Place((first,), last, function)


def place_of(layers: str, names: tuple[str, str], function: Activation) -> Place:
    return _plain(f"{layers}.{{}}.{names[0]}", f"{layers}.{{}}.{names[1]}", function)


_DEEPSEEK = {
    **_GATED,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_shared_experts": 1,
}
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT-2",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 64, **_BASE},
        place_of("transformer.h", ("mlp.c_fc", "mlp.c_proj"), _gelu_tanh),
        "gelu_new",
    ),
    "gpt_bigcode": Family(
        "GPT BigCode",
        "GPTBigCodeConfig",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 64, **_BASE},
        place_of("transformer.h", ("mlp.c_fc", "mlp.c_proj"), _gelu_tanh),
        "gelu_pytorch_tanh",
    ),
    "gpt_neo": Family(
        "GPT-Neo",
        "GPTNeoConfig",
        {
            **_HIDDEN,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 12,
            "window_size": 8,
            "attention_types": [[["global", "local"], 1]],
        },
        place_of("transformer.h", ("mlp.c_fc", "mlp.c_proj"), _gelu_tanh),
        "gelu_new",
    ),
    "gpt_neox": Family(
        "GPT-NeoX (Pythia)",
        "GPTNeoXConfig",
        {**_PLAIN, "use_parallel_residual": True},
        place_of("gpt_neox.layers", ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), _gelu),
        "gelu",
    ),
    "gptj": Family(
        "GPT-J",
        "GPTJConfig",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 64, "rotary_dim": 4, **_BASE},
        place_of("transformer.h", ("mlp.fc_in", "mlp.fc_out"), _gelu_tanh),
        "gelu_new",
    ),
    "codegen": Family(
        "CodeGen",
        "CodeGenConfig",
        {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 12, "n_positions": 64, "rotary_dim": 4, **_BASE},
        place_of("transformer.h", ("mlp.fc_in", "mlp.fc_out"), _gelu_tanh),
        "gelu_new",
    ),
    "opt": Family(
        "OPT",
        "OPTConfig",
        {**_HIDDEN, "ffn_dim": 12, "word_embed_proj_dim": 16},
        place_of("model.decoder.layers", ("fc1", "fc2"), _relu),
        "relu",
    ),
    "opt_projected": Family(
        "OPT with a projected stream",
        "OPTConfig",
        {**_HIDDEN, "ffn_dim": 12, "word_embed_proj_dim": 8},
        place_of("model.decoder.layers", ("fc1", "fc2"), _relu),
        "relu",
        note="no direct logit effects",
    ),
    "opt_350m": Family(
        "OPT with norms behind (350m)",
        "OPTConfig",
        {**_HIDDEN, "ffn_dim": 12, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
        place_of("model.decoder.layers", ("fc1", "fc2"), _relu),
        "relu",
        note="no direct logit effects: a norm follows each block",
    ),
    "bloom": Family(
        "BLOOM",
        "BloomConfig",
        {"hidden_size": 8, "n_layer": 2, "n_head": 2, **_BASE},
        place_of("transformer.h", ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), _gelu_tanh),
        "gelu_new",
    ),
    "falcon": Family(
        "Falcon",
        "FalconConfig",
        {**_HIDDEN, "ffn_hidden_size": 12, "parallel_attn": True, "bias": False, "new_decoder_architecture": False},
        place_of("transformer.h", ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), _gelu),
        "gelu",
    ),
    "falcon_new": Family(
        "Falcon, new decoder",
        "FalconConfig",
        {
            **_HIDDEN,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "ffn_hidden_size": 12,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
            "multi_query": False,
            "bias": False,
        },
        refused="TransformerLens computes something else than the model itself",
    ),
    "falcon_rw": Family(
        "Falcon RW (ALiBi, sequential)",
        "FalconConfig",
        {**_HIDDEN, "ffn_hidden_size": 12, "parallel_attn": False, "bias": True, "alibi": True, "multi_query": False},
        refused="transformers computes in two ways with different results",
    ),
    "mpt": Family(
        "MPT",
        "MptConfig",
        {"d_model": 16, "n_heads": 2, "n_layers": 2, "expansion_ratio": 1, "max_seq_len": 64, **_BASE},
        place_of("transformer.blocks", ("ffn.up_proj", "ffn.down_proj"), _gelu),
        "gelu",
    ),
    "llama": Family("Llama", "LlamaConfig", _GATED, _gated("model.layers"), "silu"),
    "mistral": Family("Mistral", "MistralConfig", {**_GATED, "sliding_window": 8}, _gated("model.layers"), "silu"),
    "ministral3": Family("Ministral 3", "Ministral3Config", {**_GATED, "head_dim": 8}, _gated("model.layers"), "silu"),
    "qwen2": Family("Qwen 2", "Qwen2Config", _GATED, _gated("model.layers"), "silu"),
    "qwen3": Family("Qwen 3", "Qwen3Config", {**_GATED, "head_dim": 8}, _gated("model.layers"), "silu"),
    "gemma": Family(
        "Gemma", "GemmaConfig", {**_GATED, "head_dim": 8}, _gated("model.layers", _gelu_tanh), "gelu_pytorch_tanh"
    ),
    "gemma2": Family(
        "Gemma 2",
        "Gemma2Config",
        {**_GATED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
        _gated("model.layers", _gelu_tanh),
        "gelu_pytorch_tanh",
    ),
    "gemma3": Family(
        "Gemma 3 (text)",
        "Gemma3TextConfig",
        {**_GATED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
        _gated("model.layers", _gelu_tanh),
        "gelu_pytorch_tanh",
    ),
    "phi": Family(
        "Phi 1, 2", "PhiConfig", _PLAIN, place_of("model.layers", ("mlp.fc1", "mlp.fc2"), _gelu_tanh), "gelu_new"
    ),
    "phi3": Family("Phi 3, 4", "Phi3Config", {**_GATED, "pad_token_id": 0}, _joint("model.layers"), "silu"),
    "stablelm": Family("StableLM", "StableLmConfig", _GATED, _gated("model.layers"), "silu"),
    "olmo": Family("OLMo", "OlmoConfig", _GATED, _gated("model.layers"), "silu"),
    "olmo2": Family("OLMo 2", "Olmo2Config", _GATED, _gated("model.layers"), "silu"),
    "olmo3": Family("OLMo 3", "Olmo3Config", {**_GATED, "sliding_window": 8}, _gated("model.layers"), "silu"),
    "cohere": Family(
        "Cohere (Command R)", "CohereConfig", {**_GATED, "pad_token_id": 0}, _gated("model.layers"), "silu"
    ),
    "cohere2": Family(
        "Cohere 2",
        "Cohere2Config",
        {**_GATED, "head_dim": 8, "sliding_window": 8, "pad_token_id": 0},
        _gated("model.layers"),
        "silu",
    ),
    "starcoder2": Family(
        "StarCoder 2",
        "Starcoder2Config",
        {**_GATED, "sliding_window": None},
        place_of("model.layers", ("mlp.c_fc", "mlp.c_proj"), _gelu_tanh),
        "gelu_pytorch_tanh",
    ),
    "xglm": Family(
        "XGLM",
        "XGLMConfig",
        {
            **_BASE,
            "d_model": 16,
            "ffn_dim": 12,
            "num_layers": 2,
            "attention_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": 1,
        },
        place_of("model.layers", ("fc1", "fc2"), _gelu),
        "gelu",
    ),
    "glm": Family("GLM", "GlmConfig", {**_GATED, "head_dim": 8, "pad_token_id": 0}, _joint("model.layers"), "silu"),
    "glm4": Family("GLM 4", "Glm4Config", {**_GATED, "head_dim": 8, "pad_token_id": 0}, _joint("model.layers"), "silu"),
    "granite": Family("Granite", "GraniteConfig", _GATED, _gated("model.layers"), "silu"),
    "smollm3": Family("SmolLM 3", "SmolLM3Config", {**_GATED, "pad_token_id": 0}, _gated("model.layers"), "silu"),
    "nemotron": Family(
        "Nemotron",
        "NemotronConfig",
        {**_GATED, "head_dim": 8},
        place_of("model.layers", ("mlp.up_proj", "mlp.down_proj"), _squared_relu),
        "relu2",
    ),
    "seed_oss": Family("Seed-OSS", "SeedOssConfig", {**_GATED, "head_dim": 8}, _gated("model.layers"), "silu"),
    "exaone4": Family(
        "EXAONE 4", "Exaone4Config", {**_GATED, "head_dim": 8, "sliding_window": 8}, _gated("model.layers"), "silu"
    ),
    "ernie4_5": Family("ERNIE 4.5", "Ernie4_5Config", {**_GATED, "head_dim": 8}, _gated("model.layers"), "silu"),
    "arcee": Family(
        "Arcee (AFM)",
        "ArceeConfig",
        _GATED,
        place_of("model.layers", ("mlp.up_proj", "mlp.down_proj"), _squared_relu),
        "relu2",
    ),
    "mixtral": Family("Mixtral", "MixtralConfig", {**_GATED, "num_local_experts": 4}, refused=_EXPERTS_ONLY),
    "qwen2_moe": Family(
        "Qwen 2 MoE, dense first layer",
        "Qwen2MoeConfig",
        {**_EXPERTS, "shared_expert_intermediate_size": 8, "mlp_only_layers": [0]},
        _gated("model.layers"),
        "silu",
        layers=(0,),
        note="its dense layers, named in `units.layers`; layers of experts are refused",
    ),
    "qwen3_moe": Family("Qwen 3 MoE", "Qwen3MoeConfig", {**_EXPERTS, "head_dim": 8}, refused=_EXPERTS_ONLY),
    "olmoe": Family("OLMoE", "OlmoeConfig", _EXPERTS, refused=_EXPERTS_ONLY),
    "deepseek_v2": Family(
        "DeepSeek 2, dense first layer",
        "DeepseekV2Config",
        _DEEPSEEK,
        _gated("model.layers"),
        "silu",
        layers=(0,),
        note="its dense layers, named in `units.layers`; layers of experts are refused",
    ),
    "deepseek_v3": Family(
        "DeepSeek 3, dense first layer",
        "DeepseekV3Config",
        _DEEPSEEK,
        _gated("model.layers"),
        "silu",
        layers=(0,),
        note="its dense layers, named in `units.layers`; layers of experts are refused",
    ),
    "gpt_oss": Family(
        "gpt-oss",
        "GptOssConfig",
        {**_GATED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
        refused=_EXPERTS_ONLY,
    ),
    "persimmon": Family("Persimmon", "PersimmonConfig", _PLAIN, refused=_UNSUPPORTED),
    "biogpt": Family("BioGPT", "BioGptConfig", {**_PLAIN, "pad_token_id": 1}, refused=_UNSUPPORTED),
    "openai_gpt": Family(
        "GPT (1)",
        "OpenAIGPTConfig",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, **_BASE},
        place_of("transformer.h", ("mlp.c_fc", "mlp.c_proj"), _gelu_tanh),
        "gelu_new",
        note="no direct logit effects: a norm follows each block",
    ),
    "bert": Family(
        "BERT",
        "BertConfig",
        {**_PLAIN, "pad_token_id": 0},
        place_of("bert.encoder.layer", ("intermediate.dense", "output.dense"), _gelu),
        "gelu",
        auto="AutoModelForMaskedLM",
        note="reads in both directions: no loss, direct logit effects or steering",
    ),
    "roberta": Family(
        "RoBERTa",
        "RobertaConfig",
        {**_PLAIN, "max_position_embeddings": 66, "pad_token_id": 1},
        place_of("roberta.encoder.layer", ("intermediate.dense", "output.dense"), _gelu),
        "gelu",
        auto="AutoModelForMaskedLM",
        note="reads in both directions: no loss, direct logit effects or steering",
    ),
    "distilbert": Family(
        "DistilBERT",
        "DistilBertConfig",
        {
            "dim": 16,
            "hidden_dim": 12,
            "n_layers": 2,
            "n_heads": 2,
            "max_position_embeddings": 64,
            **_BASE,
            "pad_token_id": 0,
        },
        auto="AutoModelForMaskedLM",
        refused=_UNSUPPORTED,
    ),
    "t5": Family(
        "T5",
        "T5Config",
        {
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 12,
            "num_layers": 2,
            "num_heads": 2,
            "vocab_size": _VOCABULARY,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
        },
        auto="AutoModelForSeq2SeqLM",
        refused=_PAIRS,
    ),
    "bart": Family(
        "BART",
        "BartConfig",
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 12,
            "decoder_ffn_dim": 12,
            "max_position_embeddings": 64,
            **_BASE,
            "pad_token_id": 1,
        },
        auto="AutoModelForSeq2SeqLM",
        refused=_PAIRS,
    ),
    "mamba": Family(
        "Mamba", "MambaConfig", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, **_BASE}, refused=_NO_MLP
    ),
    "rwkv": Family(
        "RWKV 4",
        "RwkvConfig",
        {
            "hidden_size": 16,
            "attention_hidden_size": 16,
            "num_hidden_layers": 2,
            "intermediate_size": 12,
            "context_length": 64,
            **_BASE,
        },
        refused=_NO_MLP,
    ),
}


def save_family(name: str, folder: Path) -> None:
    """A random model of a family, with the demo's tokenizer and the weights of a trained one in size."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    shape = getattr(transformers, family.config)(**family.shape)
    model: Any = getattr(transformers, family.auto).from_config(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)


@dataclass(frozen=True)
class PlainReading:
    """What a layer of a model of transformers does, read with hooks on its own modules."""

    inputs: Tensor
    """(batch, context, width)"""
    activations: Tensor
    """(batch, context, units)"""
    computed: Tensor
    """The activations again, by the family's formula, from the inputs and the weights."""
    reads: Tensor
    """(parts, units, width)"""
    writes: Tensor
    """(units, d_model)"""


def read_plainly(name: str, folder: Path, tokens: Tensor) -> dict[int, PlainReading]:
    """Read the layers of a family's model for (batch, context) tokens, without the package under test."""
    family = FAMILIES[name]
    place = family.place
    assert place is not None
    model: Any = getattr(transformers, family.auto).from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, Tensor] = {}

    def see(path: str) -> None:
        model.get_submodule(path).register_forward_pre_hook(lambda _, given: seen.__setitem__(path, given[0]))

    for layer in family.layers:
        see(place.reads[0].format(layer))
        see(place.write.format(layer))
    with torch.inference_mode():
        model(input_ids=tokens)
    return {layer: _plain_reading(model, seen, place, layer, tokens.shape) for layer in family.layers}


def _plain_reading(model: Any, seen: dict[str, Tensor], place: Place, layer: int, shape: torch.Size) -> PlainReading:
    reads, write = [path.format(layer) for path in place.reads], place.write.format(layer)
    inputs, activations = (seen[path].reshape(*shape, -1) for path in (reads[0], write))
    linear = [_linear(model.get_submodule(path)) for path in dict.fromkeys(reads)]
    if len(reads) == 2 and len(linear) == 1:  # a joint matrix: the gate's rows come first
        linear = [(weight, bias) for weight, bias in zip(*(part.chunk(2) for part in linear[0]), strict=True)]
    parts = [functional.linear(inputs, weight, bias) for weight, bias in linear]
    computed = place.function(parts[0]) * (parts[1] if len(parts) == 2 else 1)
    writes, _ = _linear(model.get_submodule(write))
    return PlainReading(inputs, activations, computed, torch.stack([weight for weight, _ in linear]), writes.T)


def _linear(module: Any) -> tuple[Tensor, Tensor]:
    """Weight, (out, in), and bias, (out,), of a linear map."""
    weight = module.weight.detach()
    weight = weight.T if isinstance(module, Conv1D) else weight
    bias = getattr(module, "bias", None)
    return weight, torch.zeros(len(weight)) if bias is None else bias.detach()


def differences(name: str, folder: Path) -> list[str]:
    """Where the package's reading of a family's model departs from the plain one; in words, one line each."""
    settings = ModelSettings(name=str(folder))
    loaded = load_model(settings)
    units = MLPUnits(loaded.bridge, FAMILIES[name].layers)
    tokens = torch.randint(0, _VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    units.run(tokens, lambda layer, inputs, fired: seen.update({layer: (inputs.clone(), fired.clone())}))
    found = [] if units.activation == FAMILIES[name].activation else [f"its function is called {units.activation}"]
    for layer, plain in read_plainly(name, folder, tokens).items():
        for what, one, other in (
            ("inputs", seen[layer][0], plain.inputs),
            ("activations", seen[layer][1], plain.activations),
            ("activations by the formula", seen[layer][1], plain.computed),
            ("read weights", units.read_weights(layer), plain.reads),
            ("write weights", units.write_weights(layer), plain.writes),
        ):
            apart = float((one - other).abs().max()) if one.shape == other.shape else torch.inf
            if not apart <= _NEAR * float(other.abs().max()):
                found.append(f"layer {layer}: {what} are {apart:.2g} apart")
    return found


def settings_of(name: str, folder: Path, corpus: Path) -> dict[str, Any]:
    """The configuration of a small atlas of a family's model."""
    family = FAMILIES[name]
    return {
        "atlas": {"id": name.replace("_", "-"), "title": family.title, "date": "2026-01-02"},
        "model": {"name": str(folder)},
        "corpus": {"source": "jsonl", "path": str(corpus), "context": 32, "max_tokens": 500},
        "units": {"layers": list(family.layers) if family.place else "all"},
        "examples": {"policy": "threshold", "per_unit": 6, "threshold": 0.5},
        "describe": {"steering": True},
    }


def guide_table() -> str:
    """The table of families as the guide has it, in Markdown."""
    rows = []
    for family in FAMILIES.values():
        answer = f"refused: “{family.refused}”" if family.refused else f"works{'; ' * bool(family.note)}{family.note}"
        rows.append(f"| {family.title} | {answer} |")
    return "\n".join(["| family | |", "| --- | --- |", *rows])
