"""Hostile and damaged models and SAEs, each given to `atlas-builder build`: `python -m tests.attacks.models`.

Each must end within five seconds with exit 1 or 2 and a sentence of at most 300 characters, or
be built where nothing is wrong with it; none may run code, start a program, use the network or
take 200 MB more memory. `--small` takes every twelfth.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlas_builder.cli import main
from atlas_builder.models import sae
from tests.support.models import (
    SHAPES,
    LeavesMark,
    save_multimodal,
    save_tiny,
    save_tiny_crate,
)
from tests.support.saes import ARCHITECTURES, an_sae

Damage = Callable[[Path], None]
SECONDS, MEGABYTES, CHARACTERS = 5, 200, 300
CODE = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\n"


class Case(NamedTuple):
    """A model or SAE that is damaged, and whether it is still good."""

    kind: str
    name: str
    base: str
    damage: Damage
    good: bool = False


# --- how to damage -------------------------------------------------------------------------------------------------


def _json(name: str, *parts: str, **changes: Any) -> Damage:
    """Other values of keys, within the map that `parts` lead to."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        inner = content
        for part in parts:
            inner = inner[part]
        inner.update(changes)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return damage


def _config(**changes: Any) -> Damage:
    return _json("config.json", **changes)


def _text(name: str, content: str | bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def _tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], name: str = "model.safetensors") -> Damage:
    def damage(folder: Path) -> None:
        changed = change(load_file(folder / name))
        save_file({key: tensor.contiguous() for key, tensor in changed.items()}, folder / name, {"format": "pt"})

    return damage


def _without(part: str) -> Damage:
    return _tensors(lambda all_: {key: tensor for key, tensor in all_.items() if part not in key})


def _prefixed(prefix: str) -> Damage:
    return _tensors(lambda all_: {prefix + key: tensor for key, tensor in all_.items()})


def _with(**more: Tensor) -> Damage:
    return _tensors(lambda all_: {**all_, **more})


def _first(part: str, change: Callable[[Tensor], Tensor], name: str = "model.safetensors") -> Damage:
    def changed(all_: dict[str, Tensor]) -> dict[str, Tensor]:
        key = next(key for key in sorted(all_) if part in key)
        return {**all_, key: change(all_[key])}

    return _tensors(changed, name)


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[1] = value
        return tensor

    return change


def _bytes(change: Callable[[bytes], bytes], name: str = "model.safetensors") -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


def _pickled(content: Callable[[Path, dict[str, Tensor]], Any], name: str = "pytorch_model.bin") -> Damage:
    """Weights as a pickle instead of safetensors."""

    def damage(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(content(folder, held), folder / name)

    return damage


def _beside(*names: str) -> Damage:
    """Pickles that would run code, beside good weights."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(pickle.dumps(LeavesMark(folder.parent / "mark")))

    return damage


def _leave_code(folder: Path) -> None:
    (folder / "evil.py").write_text(CODE.format(mark=str(folder.parent / "mark")), encoding="utf-8")


def _other_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


def _own_code(where: str, classes: dict[str, str], **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        _leave_code(folder)
        _json(where, auto_map={key: f"evil.{value}" for key, value in classes.items()}, **changes)(folder)

    return damage


def _pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def _sharded(change: Callable[[Path, dict[str, str]], dict[str, Any]]) -> Damage:
    """Weights in two files and their index, which `change` changes."""

    def damage(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names, places = sorted(held), {}
        for part, keys in enumerate((names[::2], names[1::2]), 1):
            file = f"model-0000{part}-of-00002.safetensors"
            save_file({key: held[key] for key in keys}, folder / file, {"format": "pt"})
            places.update(dict.fromkeys(keys, file))
        index = {"metadata": {"total_size": 1}, "weight_map": change(folder, places)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return damage


def _lost_shard(folder: Path, places: dict[str, str]) -> dict[str, str]:
    (folder / "model-00002-of-00002.safetensors").unlink()
    return places


def _tokenizer(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")

    return damage


def _added(content: str, number: int) -> Callable[[dict[str, Any]], None]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    def change(tokenizer: dict[str, Any]) -> None:
        tokenizer["added_tokens"].append({"id": number, "content": content, **flags})

    return change


def _far(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[next(iter(sorted(vocabulary)))] = 4_000_000_000


def _shifted(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {token: number + 2000 for token, number in vocabulary.items()}


def _both(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        for one in damages:
            one(folder)

    return damage


def _nothing(folder: Path) -> None:
    return


# --- the cases -----------------------------------------------------------------------------------------------------


def _code() -> Iterator[Case]:
    kind = "own code, programs, network"
    model = {"AutoConfig": "C", "AutoModelForCausalLM": "M"}
    yield Case(kind, "tokenizer of its own", "gpt2", _both(
        _own_code("tokenizer_config.json", {"AutoTokenizer": "T"}, tokenizer_class="T"),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ))  # fmt: skip
    yield Case(kind, "tokenizer pair of its own", "gpt2", _both(
        lambda folder: _json("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]},
                             tokenizer_class="T")(folder),
        _text("evil.py", "raise SystemExit(3)"), lambda folder: (folder / "tokenizer.json").unlink(),
    ))  # fmt: skip
    yield Case(kind, "model type of its own", "gpt2", _own_code("config.json", model, model_type="mine"))
    yield Case(kind, "code in another repository", "gpt2", _config(
        auto_map={"AutoConfig": "a/b--evil.C", "AutoModelForCausalLM": "a/b--evil.M"}, model_type="mine"
    ))  # fmt: skip
    yield Case(kind, "code that is not needed", "gpt2", _own_code("config.json", model), good=True)
    yield Case(kind, "attention from the hub", "gpt2", _config(attn_implementation="someone/kernel"))
    yield Case(kind, "attention from the hub, hidden", "gpt2", _config(_attn_implementation="someone/kernel"))
    yield Case(kind, "an adapter of another model", "gpt2", _text("adapter_config.json", json.dumps(
        {"base_model_name_or_path": "someone/else", "peft_type": "LORA"})))  # fmt: skip
    yield Case(kind, "a multimodal model", "gemma3", _nothing, good=True)
    yield Case(kind, "a multimodal model with a processor of its own", "gemma3", _both(
        _text("processor_config.json", json.dumps({"processor_class": "P", "auto_map": {"AutoProcessor": "evil.P"}})),
        _leave_code,
    ), good=True)  # fmt: skip
    yield Case(kind, "a generation of its own", "gpt2", _both(
        lambda folder: (folder / "custom_generate").mkdir(), _text("custom_generate/generate.py", "raise SystemExit"),
    ), good=True)  # fmt: skip
    bomb = _pickled(lambda folder, _: {"weight": LeavesMark(folder.parent / "mark")})
    yield Case(kind, "a pickle that runs code", "gpt2", bomb)
    yield Case(kind, "a plain pickle that runs code", "gpt2", _both(
        lambda folder: (folder / "model.safetensors").unlink(), _beside("pytorch_model.bin")))  # fmt: skip
    files = ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth", "scaler.pt", "ckpt.pt", "x.bin")
    yield Case(kind, "pickles beside good weights", "gpt2", _beside(*files, "pytorch_model.bin"), good=True)
    yield Case(kind, "pickles beside a good CRATE", "crate", _beside(*files), good=True)
    yield Case(kind, "quantised by a library that is not there", "gpt2", _config(
        quantization_config={"quant_method": "gptq", "bits": 4}))  # fmt: skip
    yield Case(kind, "quantised by kernels of the hub", "gpt2", _config(
        quantization_config={"quant_method": "mxfp4"}), good=True)  # fmt: skip
    yield Case(kind, "quantised by an unknown method", "gpt2", _config(
        quantization_config={"quant_method": ["evil"]}))  # fmt: skip


def _weights() -> Iterator[Case]:
    kind = "weights not whole"
    for family in SHAPES:
        layer = "h.1" if family == "gpt2" else "layers.1"
        yield Case(kind, f"{family}: as it is", family, _nothing, good=True)
        yield Case(kind, f"{family}: from torch.compile", family, _prefixed("_orig_mod."))
        yield Case(kind, f"{family}: from DataParallel", family, _prefixed("module."))
        yield Case(kind, f"{family}: under another prefix", family, _prefixed("inner."))
        yield Case(kind, f"{family}: no last layer", family, _without(f"{layer}."))
        yield Case(kind, f"{family}: no MLP weight", family, _without(f"{layer}.mlp"))
        yield Case(kind, f"{family}: no embedding", family, _without("wte" if family == "gpt2" else "embed_"))
        yield Case(kind, f"{family}: a tensor more", family, _with(score=torch.zeros(2, 2)))
        yield Case(kind, f"{family}: an MLP misshapen", family, _first("mlp", lambda tensor: tensor[:-1]))
        depth = {"n_layer": 3} if family == "gpt2" else {"num_hidden_layers": 3, "layer_types": None}
        yield Case(kind, f"{family}: a layer more in config.json", family, _config(**depth))
        less = {key: value and 1 for key, value in depth.items()}
        yield Case(kind, f"{family}: a layer less in config.json", family, _config(**less))
    yield Case(kind, "only a norm's bias missing", "gpt2", _without("ln_f.bias"))
    yield Case(kind, "without the base prefix", "gpt2", _tensors(
        lambda all_: {key.removeprefix("transformer."): value for key, value in all_.items()}), good=True)  # fmt: skip
    yield Case(kind, "with buffers of old versions", "gpt2", _with(**{
        "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64), "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        "transformer.h.1.attn.bias": torch.ones(1, 1, 64, 64)}), good=True)  # fmt: skip
    yield Case(kind, "with the tied head too", "gpt2", _tensors(
        lambda all_: {**all_, "lm_head.weight": all_["transformer.wte.weight"].clone()}), good=True)  # fmt: skip
    yield Case(kind, "untied in config.json, no head", "gpt2", _config(tie_word_embeddings=False))
    yield Case(kind, "untied in config.json, no head", "llama", _config(tie_word_embeddings=False))
    yield Case(kind, "in two files", "gpt2", _sharded(lambda _, places: places), good=True)
    yield Case(kind, "in two files, one lost", "gpt2", _sharded(_lost_shard))
    yield Case(kind, "in a file of another folder", "gpt2", _sharded(
        lambda _, places: dict.fromkeys(places, "../../../etc/passwd")))  # fmt: skip
    yield Case(kind, "in an index of lists", "gpt2", _sharded(lambda _, places: {key: [1] for key in places}))
    yield Case(kind, "in an empty index", "gpt2", _sharded(lambda _, places: {}))
    yield Case(kind, "an index that names what is not there", "gpt2", _sharded(
        lambda _, places: {**places, "more": "model-00001-of-00002.safetensors"}))  # fmt: skip
    yield Case(kind, "empty safetensors", "gpt2", _tensors(lambda _: {}))
    for value in (float("nan"), float("inf"), -float("inf")):
        yield Case(kind, f"{value} in a weight", "gpt2", _first("mlp", _filled(value)))
        yield Case(kind, f"{value} in a norm", "llama", _first("norm", _filled(value)))
    yield Case(kind, "huge numbers", "gpt2", _first("mlp", lambda tensor: tensor.fill_(3e38)))
    yield Case(kind, "whole numbers", "gpt2", _first("mlp", lambda tensor: tensor.to(torch.int8)))
    yield Case(kind, "complex numbers", "gpt2", _first("mlp", lambda tensor: tensor.to(torch.complex64)))
    yield Case(kind, "half precision", "gpt2", _tensors(
        lambda all_: {key: tensor.bfloat16() for key, tensor in all_.items()}), good=True)  # fmt: skip
    yield Case(kind, "a vision part missing", "gemma3", _without("vision_tower"))
    yield Case(kind, "a text layer missing", "gemma3", _without("language_model.model.layers.1."))
    yield Case(kind, "a projector misshapen", "gemma3", _first("projector", lambda tensor: tensor[:-1]))


def _files() -> Iterator[Case]:
    kind = "files damaged"
    yield Case(kind, "no bytes", "gpt2", _text("model.safetensors", b""))
    yield Case(kind, "cut within the header", "gpt2", _bytes(lambda raw: raw[:1000]))
    yield Case(kind, "cut within the numbers", "gpt2", _bytes(lambda raw: raw[:-1000]))
    yield Case(kind, "bytes appended", "gpt2", _bytes(lambda raw: raw + b"\0" * 64))
    yield Case(kind, "a header of 2^63 bytes", "gpt2", _bytes(lambda raw: b"\xff" * 8 + raw[8:]))
    yield Case(kind, "a header of 90 MB", "gpt2", _bytes(
        lambda raw: (90 << 20).to_bytes(8, "little") + b"{" + b" " * ((90 << 20) - 2) + b"}"))  # fmt: skip
    yield Case(kind, "a header that nests", "gpt2", _bytes(
        lambda raw: (200_000).to_bytes(8, "little") + b"[" * 200_000))  # fmt: skip
    yield Case(kind, "random bytes", "gpt2", _text("model.safetensors", os.urandom(5000)))
    yield Case(kind, "weights are a pipe", "gpt2", _pipe("model.safetensors"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "vocab.txt"):
        yield Case(kind, f"{name} is a pipe", "gpt2", _pipe(name))
    yield Case(kind, "config.json is a folder", "gpt2", _both(
        lambda folder: (folder / "config.json").unlink(), lambda folder: (folder / "config.json").mkdir()))  # fmt: skip
    pickled: dict[str, Callable[[Path, dict[str, Tensor]], Any]] = {
        "a list": lambda folder, held: [1, 2],
        "numbers": lambda folder, held: dict.fromkeys(held, 1.5),
        "names that are numbers": lambda folder, held: dict(enumerate(held.values())),
        "claims 10^12 numbers": lambda folder, held: {**held, "x": torch.zeros(1).expand(10**12)},
        "a weight claims its numbers": lambda folder, held: {
            key: value[:1, :1].clone().expand(value.shape) if value.ndim == 2 else value for key, value in held.items()
        },
        "sparse": lambda folder, held: {key: value.to_sparse() for key, value in held.items()},
        "a tensor less": lambda folder, held: dict(list(held.items())[1:]),
    }
    for name, content in pickled.items():
        yield Case(kind, f"pickled: {name}", "gpt2", _pickled(content))
    yield Case(kind, "pickled: cut", "gpt2", _both(
        _pickled(lambda folder, held: held), _bytes(lambda raw: raw[:3000], "pytorch_model.bin")))  # fmt: skip
    yield Case(kind, "pickled: tensors only", "gpt2", _pickled(lambda folder, held: held), good=True)
    yield Case(kind, "weights of another name", "gpt2", _other_name)  # fmt: skip


_SIZES: tuple[Any, ...] = (10**7, 0, -1, "two", [2], {}, 2.5, 10**30, float("nan"), float("inf"))


def _configurations() -> Iterator[Case]:
    kind = "config.json"
    contents: dict[str, str | bytes] = {
        "no bytes": "", "a list": "[1]", "a number": "7", "cut": '{"model_type": "gp', "NUL": b"\0" * 50,
        "Latin-1": b'{"model_type": "\xe9"}', "nests": "[" * 200_000, "40 MB": '{"a": "' + "x" * (40 << 20) + '"}',
        "a number of 10^5 digits": '{"n_layer": ' + "9" * 100_000 + "}", "nothing in it": "{}",
        "an unknown type": '{"model_type": "nothing"}', "a type that is a list": '{"model_type": ["gpt2"]}',
        "a type of 10^4 letters": json.dumps({"model_type": "x" * 10_000}),
        "a type that is a surrogate": '{"model_type": "\\ud800\\u202e\\n"}',
        "no text model": '{"model_type": "vit"}', "another architecture": '{"model_type": "mamba"}',
    }  # fmt: skip
    for name, content in contents.items():
        yield Case(kind, name, "gpt2", _text("config.json", content))
    for family, keys in {"gpt2": ("n_layer", "n_head", "n_embd", "vocab_size", "n_positions", "n_inner"),
                         "llama": ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size",
                                   "num_key_value_heads", "intermediate_size")}.items():  # fmt: skip
        for key in keys:
            for value in _SIZES:
                yield Case(kind, f"{family}: {key} {str(value)[:12]}", family, _config(**{key: value}))
        heads = "n_head" if family == "gpt2" else "num_attention_heads"
        yield Case(kind, f"{family}: heads do not divide", family, _config(**{heads: 3}))
        others: dict[str, Any] = {heads: 4, **({"head_dim": None} if family == "llama" else {})}
        yield Case(kind, f"{family}: heads do divide, others", family, _config(**others), good=family == "gpt2")
    yield Case(kind, "an unknown activation", "gpt2", _config(activation_function="evil"))
    yield Case(kind, "an activation that is a list", "llama", _config(hidden_act=["silu"]))
    yield Case(kind, "architectures of odd type", "gpt2", _config(architectures=7))
    yield Case(kind, "no architectures", "gpt2", _config(architectures=[]), good=True)
    yield Case(kind, "architectures unknown", "gpt2", _config(architectures=["Evil"]), good=True)
    yield Case(kind, "another family's architecture", "gpt2", _config(architectures=["LlamaForCausalLM"]))
    yield Case(kind, "rotary positions of odd type", "llama", _config(rope_parameters=[1], rope_scaling="x"))
    yield Case(kind, "an epsilon that is text", "llama", _config(rms_norm_eps="small"))
    for part in ("text_config", "vision_config"):
        deep = _json("config.json", part, num_hidden_layers=10**7)
        yield Case(kind, f"10^7 layers in {part}", "gemma3", deep)
    yield Case(kind, "10^7 positions", "llama", _config(max_position_embeddings=10**7), good=True)
    crates: tuple[tuple[str, Any], ...] = (
        ("vocabulary", 10**9), ("layers", 10**7), ("heads", 3), ("heads", 0), ("width", -8), ("context", 10**12),
        ("layers", "2"), ("layers", [2]), ("layers", True), ("width", 8.0), ("context", 31), ("layers", 3),
    )  # fmt: skip
    for key, value in crates:
        yield Case(kind, f"CRATE: {key} {value}", "crate", _config(**{key: value}))
    yield Case(kind, "CRATE: NaN", "crate", _first("dictionary", _filled(float("nan"))))
    yield Case(kind, "CRATE: whole numbers", "crate", _first("dictionary", lambda tensor: tensor.int()))
    yield Case(kind, "CRATE: empty", "crate", _tensors(lambda _: {}))
    yield Case(kind, "CRATE: as it is", "crate", _nothing, good=True)


def _tokenizers() -> Iterator[Case]:
    kind = "tokenizer"
    yield Case(kind, "ids beyond the embedding", "gpt2", _tokenizer(_shifted))
    yield Case(kind, "an id of 4 billion", "gpt2", _tokenizer(_far))
    yield Case(kind, "an added token beyond, in the text", "gpt2", _tokenizer(_added("the cat", 2048)))
    yield Case(kind, "an added token beyond, not in the text", "gpt2", _tokenizer(_added("<picture>", 2048)), good=True)
    yield Case(kind, "BOS beyond the embedding", "gpt2", _both(
        _tokenizer(_added("<begin>", 2048)), _json("tokenizer_config.json", bos_token="<begin>")))  # fmt: skip
    yield Case(kind, "BOS that no token is", "gpt2", _json("tokenizer_config.json", bos_token="<never>"))
    for name, content in {"no bytes": "", "a list": "[1]", "nothing in it": "{}", "nests": "[" * 200_000,
                          "cut": '{"version": "1.0", "mod'}.items():  # fmt: skip
        yield Case(kind, name, "gpt2", _text("tokenizer.json", content))
    yield Case(kind, "settings are a list", "gpt2", _text("tokenizer_config.json", "[]"))
    for value in (["a"], 7, {"content": 7}):
        yield Case(kind, f"BOS is {value}", "gpt2", _json("tokenizer_config.json", bos_token=value))
    yield Case(
        kind, "a class that is a path", "gpt2", _json("tokenizer_config.json", tokenizer_class="../evil"), good=True
    )
    yield Case(kind, "a vocabulary of odd type", "gpt2", _tokenizer(lambda content: content["model"].update(vocab=[1])))


_GOOD = {("metadata", "{'a': 1}"), ("k", "7")}
"""Odd values that mean something."""


def _sae_config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        metadata = changes.pop("metadata", None) if "metadata" in changes else None
        content.update(changes)
        if isinstance(metadata, dict):
            content["metadata"].update(metadata)
        elif metadata is not None:
            content["metadata"] = metadata
        (folder / "cfg.json").write_text(json.dumps(content), encoding="utf-8")

    return damage


def _saes() -> Iterator[Case]:
    kind, weights = "SAEs", "sae_weights.safetensors"
    for architecture in ARCHITECTURES:
        base = f"sae-{architecture}"
        yield Case(kind, f"{architecture}: as it is", base, _nothing, good=True)
        for tensor in ("W_enc", "W_dec", "b_dec"):
            yield Case(kind, f"{architecture}: no {tensor}", base, _tensors(
                lambda all_, gone=tensor: {key: value for key, value in all_.items() if key != gone}, weights))  # type: ignore[misc] # fmt: skip
            yield Case(
                kind, f"{architecture}: {tensor} misshapen", base, _first(tensor, lambda held: held[:-1], weights)
            )
            # One latent that is no number is dead; without the bias of the input, all are.
            good = tensor != "b_dec"
            broken = _first(tensor, _filled(float("nan")), weights)
            yield Case(kind, f"{architecture}: NaN in {tensor}", base, broken, good)
        yield Case(kind, f"{architecture}: a tensor more", base, _tensors(
            lambda all_: {**all_, "more": torch.ones(3)}, weights))  # fmt: skip
    odd: tuple[Any, ...] = (["x"], {"a": 1}, 7, float("inf"), float("nan"), 10**40, True, "x" * 9999, "\ud800\u202e")
    for key in ("architecture", "k", "normalize_activations", "apply_b_dec_to_input", "activation_fn",
                "activation_fn_kwargs", "rescale_acts_by_decoder_norm", "d_in", "d_sae", "metadata"):  # fmt: skip
        for value in odd:
            if not (value is True and key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")):
                good = (key, str(value)) in _GOOD
                yield Case(kind, f"{key} is {str(value)[:12]!r}", "sae-topk", _sae_config(**{key: value}), good)
    for key in ("hook_name", "model_name"):
        for value in odd:
            # A name that no model is known by says nothing.
            good = key == "model_name" and isinstance(value, str)
            yield Case(kind, f"{key} is {str(value)[:12]!r}", "sae-topk", _sae_config(metadata={key: value}), good=good)
    for hook in ("blocks.7.mlp.hook_in", "blocks.-1.mlp.hook_in", f"blocks.{'9' * 5000}.mlp.hook_in", "blocks..x", ""):
        yield Case(kind, f"reads {hook[:20]}", "sae-topk", _sae_config(metadata={"hook_name": hook}))
    yield Case(kind, "k beyond the latents", "sae-topk", _sae_config(k=41))
    yield Case(kind, "k below nothing", "sae-topk", _sae_config(k=-3))
    yield Case(kind, "another width", "sae-topk", _both(
        _first("W_enc", lambda held: held[:-1], weights), _first("W_dec", lambda held: held[:, :-1], weights),
        _first("b_dec", lambda held: held[:-1], weights)))  # fmt: skip
    for name, content in {"no bytes": "", "a list": "[]", "cut": "{", "nests": "[" * 200_000}.items():
        yield Case(kind, f"cfg.json: {name}", "sae-topk", _text("cfg.json", content))
    yield Case(kind, "cfg.json is a pipe", "sae-topk", _pipe("cfg.json"))
    yield Case(kind, "weights are a pipe", "sae-topk", _pipe(weights))
    yield Case(kind, "weights cut", "sae-topk", _bytes(lambda raw: raw[:200], weights))
    yield Case(kind, "whole numbers", "sae-topk", _first("W_dec", lambda held: held.int(), weights))
    yield Case(kind, "empty", "sae-topk", _tensors(lambda _: {}, weights))


# --- the attack ----------------------------------------------------------------------------------------------------


class _Watch:
    """Programs that are started and addresses that are asked, by anything in this process."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        used = event in ("os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")
        if used or (event == "subprocess.Popen" and "multiprocessing" not in str(arguments[1])):
            self.seen.append(event)


def _make(base: str, folder: Path) -> None:
    if base.startswith("sae-"):
        sae.save_sae(an_sae(base.removeprefix("sae-")), folder)
    elif base == "crate":
        save_tiny_crate(folder)
    elif base == "gemma3":
        save_multimodal(folder)
    else:
        save_tiny(SHAPES[base], folder)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Attack:
    """A place for models, and what became of each."""

    def __init__(self, root: Path) -> None:
        self.root, self.watch = root, _Watch()
        (root / "text.txt").write_text("the cat sat on the mat and the dog sat by the cat " * 40, encoding="utf-8")

    def base(self, name: str) -> Path:
        folder = self.root / "bases" / name
        if not folder.exists():
            _make(name, folder)
        return folder

    def problem(self, case: Case) -> str | None:
        """What is wrong with how a case ended; None where it held."""
        place = self.root / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name in ("gpt2", case.base):
            shutil.copytree(self.base(name), place / name, dirs_exist_ok=True)
        case.damage(place / case.base)
        self.watch.seen.clear()
        # What a build writes to stdout and stderr is caught; nobody answers its questions but with yes.
        before, began = _peak(), time.perf_counter()
        result = CliRunner().invoke(main, self._command(case, place), input="yes\n" * 100)
        seconds, grown = time.perf_counter() - began, _peak() - before
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        said = lines[-1] if lines else ""
        if (place / "mark").exists():
            return "code ran"
        if self.watch.seen:
            return f"used {sorted(set(self.watch.seen))}"
        if case.good:
            return None if result.exit_code == 0 else f"refused, though good: {said[:200]}"
        if result.exit_code not in (1, 2):
            return f"exit {result.exit_code}: {result.exception!r}"[:200]
        if "this is a bug" in said or "a fault in" in said:
            return f"a fault: {said[:200]}"
        if len(said) > CHARACTERS or len(lines) > 1:
            return f"{len(lines)} lines, {len(said)} characters: {said[:100]}"
        if "Killed" in said or not said.isprintable():
            return f"said {said[:100]!r}"
        if seconds > SECONDS:
            return f"{seconds:.1f} s: {said[:100]}"
        if grown > MEGABYTES:
            return f"{grown:.0f} MB: {said[:100]}"
        return None

    def _command(self, case: Case, place: Path) -> list[str]:
        is_sae = case.base.startswith("sae-")
        units: dict[str, Any] = {"kind": "crate"} if case.base == "crate" else {"kind": "mlp"}
        if is_sae:
            units = {"kind": "sae", "path": str(place / case.base)}
        config = {
            "model": {"name": str(place / ("gpt2" if is_sae else case.base))},
            "corpus": {"source": "text", "path": str(self.root / "text.txt"), "context": 16},
            "units": units,
            "examples": {"per_unit": 4},
        }
        (place / "atlas.yml").write_text(json.dumps(config), encoding="utf-8")
        return ["build", str(place / "atlas.yml"), "--output", str(place / "site"), "--until", "collect"]


def attack(small: bool, only: str = "") -> int:
    """Run all cases, print the table, and return how many failed."""
    cases = [*_code(), *_weights(), *_files(), *_configurations(), *_tokenizers(), *_saes()]
    if small:
        cases = [case for number, case in enumerate(cases) if number % 12 == 0 or case.kind.startswith("own")]
    cases = [case for case in cases if only in f"{case.kind}: {case.name}"]
    tried, failed, problems = Counter[str](), Counter[str](), []
    slowest = (0.0, "")
    with TemporaryDirectory() as scratch:
        run = Attack(Path(scratch))
        # What importing costs is no case's.
        for base in ("gpt2", "gemma3", "crate", "sae-topk"):
            if problem := run.problem(Case("warm-up", base, base, _nothing, good=True)):
                problems.append(f"warm-up {base}: {problem}")
                failed["warm-up"] += 1
        start = _peak()
        for case in cases:
            began = time.perf_counter()
            problem = run.problem(case)
            slowest = max(slowest, (time.perf_counter() - began, case.name))
            tried[case.kind] += 1
            if problem:
                failed[case.kind] += 1
                problems.append(f"{case.kind}: {case.name}: {problem}")
        grown = _peak() - start
    print("| kind | tried | held | failed |\n| --- | ---: | ---: | ---: |")
    for kind, number in tried.items():
        print(f"| {kind} | {number} | {number - failed[kind]} | {failed[kind]} |")
    whole = sum(tried.values())
    print(f"| all | {whole} | {whole - sum(failed.values())} | {sum(failed.values())} |\n")
    print(
        f"Memory grew by {grown:.0f} MB over all; the slowest, with making it, took {slowest[0]:.1f} s ({slowest[1]})."
    )
    for line in problems:
        print(f"- {line}")
    return sum(failed.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="less than a minute")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    chosen = parser.parse_args()
    sys.exit(1 if attack(chosen.small, chosen.only) else 0)
