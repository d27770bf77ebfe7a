"""A model's folder in the Hugging Face layout: which of its files are its weights, and which tensors these hold.

`config.json` decides what a folder is, and the names that transformers reads decide which
files are weights; no other file is opened. Names and shapes are read without the numbers.
"""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from atlas_builder.errors import ModelError
from atlas_builder.models.wording import and_more, named, reason, shortened

CONFIG = "config.json"
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"

_LARGEST_CONFIG = 8 << 20
_LARGEST_HEADER = 32 << 20
_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel",
    "_fsdp_wrapped_module.": "FSDP",
    "_forward_module.": "a trainer",
}
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_NUMBERS_AGAIN = ("mxfp4", "fp8", "finegrained_fp8")
"""Quantisations that transformers alone undoes."""
_ALWAYS_FINE = 256
"""So many layers or experts are made in no time, whatever the weights hold."""
_READ_AS_TEXT = (".json", ".txt", ".model", ".jinja", ".py")


_OTHER_WEIGHTS = {".gguf", ".h5", ".msgpack", ".onnx", ".ckpt", ".pth", ".pt", ".bin", ".npz", ".safetensors"}


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint, without its numbers."""

    shape: tuple[int, ...]
    is_float: bool


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a folder."""

    folder: Path
    is_safe: bool
    """Whether they are safetensors rather than pickles of tensors."""
    tensors: dict[str, StoredTensor]


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model's folder; raises `ModelError` where there is none."""
    hint = "give a folder in the Hugging Face layout"
    if not (folder / CONFIG).exists():
        inner = sorted(path.parent for level in ("*", "*/*") for path in folder.glob(f"{level}/{CONFIG}"))
        hint = (
            f"give the folder in it that has one, such as {shortened(inner[-1].relative_to(folder))}" if inner else hint
        )
        if not inner and (files := sorted(folder.glob("*.gguf"))):
            hint = f"give the file in it, {shortened(files[0].name)}"
    return read_settings(folder / CONFIG, f"model folder {named(folder)}", hint)


def read_settings(file: Path, whose: str, hint: str) -> dict[str, Any]:
    """A small JSON file that is a map; raises `ModelError`, a sentence about `whose` file with a `hint`."""
    if not file.is_file():
        raise ModelError(f"{whose} has no {file.name}: {hint}.")
    try:
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG >> 20} MB")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not a map of keys")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{whose}: {file.name} cannot be read ({reason(error)}): {hint}.") from error
    return found


def read_checkpoint(folder: Path) -> Checkpoint:
    """The tensors of a model's folder.

    Raises `ModelError` for a folder without configuration or weights, files that are no files,
    weights that could run code or are not whole files, and names that are a wrapper's.
    """
    _check_files(folder)
    config = read_config(folder)
    _check_numbers(config, folder)
    checkpoint = _tensors(folder)
    if not checkpoint.tensors:
        raise ModelError(f"model folder {named(folder)}: the weights hold no tensor: save the model again.")
    for wrapper, maker in _WRAPPERS.items():
        if wrapped := [name for name in checkpoint.tensors if name.startswith(wrapper)]:
            raise ModelError(
                f"model folder {named(folder)}: {and_more(wrapped)} were saved from a wrapper ({maker}): "
                f"save the model that is inside, without {wrapper} before its names."
            )
    _check_depth(config, checkpoint)
    return checkpoint


def _check_numbers(config: dict[str, Any], folder: Path) -> None:
    """Refuse weights of few bits that transformers turns into numbers by packages that are not installed."""
    how = config.get("quantization_config")
    method = how.get("quant_method", "bitsandbytes") if isinstance(how, dict) else None
    if how and method not in _NUMBERS_AGAIN:
        raise ModelError(
            f"model folder {named(folder)} is quantised ({shortened(method or 'quantization_config', 30)}): give the "
            "model from which it was made."
        )


def _check_files(folder: Path) -> None:
    """Refuse what would be opened as text and is no file, such as a pipe, which would be waited for without end."""
    for entry in folder.iterdir():
        if entry.suffix in _READ_AS_TEXT and entry.exists() and not entry.is_file():
            mode = entry.stat().st_mode
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
            raise ModelError(f"model folder {named(folder)}: {shortened(entry.name)} is {kind}, not a file: remove it.")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"model folder {named(folder)} has an adapter (adapter_config.json): merge it into the weights of its "
            "model (merge_and_unload), and give the folder in which you save that."
        )


def _tensors(folder: Path) -> Checkpoint:
    for name, is_safe in ((SAFE, True), (PICKLED, False)):
        if (folder / name).is_file():
            return Checkpoint(folder, is_safe, _stored([folder / name], is_safe))
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder, f"{name}.index.json", is_safe)
    others = [entry.name for entry in folder.iterdir() if entry.suffix.lower() in _OTHER_WEIGHTS]
    lacks = f"has no weights that are read, only {and_more(others)}" if others else "has no weights"
    remedy = f"save the model with save_pretrained, so that {SAFE} is" if others else f"put {SAFE}"
    raise ModelError(f"model folder {named(folder)} {lacks}: {remedy} beside {CONFIG}.")


def _sharded(folder: Path, index: str, is_safe: bool) -> Checkpoint:
    """Weights in several files, each tensor in the file that the index says."""
    whose = f"model folder {named(folder)}"
    places = read_settings(folder / index, whose, "save the model again").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ModelError(f"{whose}: {index} has no weight_map of names and files: save the model again.")
    for place in sorted(set(places.values())):
        if place != Path(place).name or "\\" in place or not (folder / place).is_file():
            raise ModelError(f"{whose}: its part {shortened(place)} is missing: copy all files of {index}.")
    tensors = {}
    for place in sorted(set(places.values())):
        stored = _stored([folder / place], is_safe)
        if lost := [name for name, part in places.items() if part == place and name not in stored]:
            raise ModelError(f"{whose}: {shortened(place)} lacks {and_more(lost)}, which {index} names: copy it again.")
        tensors.update(stored)
    return Checkpoint(folder, is_safe, tensors)


def _stored(files: list[Path], is_safe: bool) -> dict[str, StoredTensor]:
    return {name: tensor for file in files for name, tensor in (_safe(file) if is_safe else _pickled(file)).items()}


def _safe(file: Path) -> dict[str, StoredTensor]:
    try:
        return dict(safe_tensors(file))
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(f"{named(file)} is damaged ({reason(error)}): copy or save it again.") from error


def safe_tensors(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Names, shapes and kinds of the tensors of a safetensors file, which is not read as a whole."""
    with file.open("rb") as start:
        if int.from_bytes(start.read(8), "little") > _LARGEST_HEADER:
            raise ValueError(f"its header has more than {_LARGEST_HEADER >> 20} MB")
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        for name in names:
            part = tensors.get_slice(name)
            yield name, StoredTensor(tuple(part.get_shape()), str(part.get_dtype()).startswith(("F", "BF")))


def _pickled(file: Path) -> dict[str, StoredTensor]:
    """Tensors of a pickle that holds nothing else, and all the numbers that its shapes claim."""
    unsafe = f"{named(file)} contains more than tensors, which could run code when loaded: convert it to safetensors."
    try:
        found = load_pickle(file)
    except Exception:  # a hostile pickle raises any kind
        raise ModelError(unsafe) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ModelError(unsafe)
    if not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ModelError(unsafe)
    if not all(is_stored_whole(tensor) for tensor in found.values()):
        raise ModelError(f"{named(file)} is damaged: it claims more numbers than it holds; convert it to safetensors.")
    return {name: StoredTensor(tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in found.items()}


def load_pickle(file: Path) -> Any:
    """What a pickle of tensors holds; numbers stay in the file until they are used. Raises what torch raises."""
    # Not even torch can leave the numbers of its old format in the file, and what is compressed is no such file.
    in_place = zipfile.is_zipfile(file)
    return torch.load(file, map_location="cpu" if in_place else "meta", weights_only=True, mmap=in_place)


def is_stored_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor has storage for each of its numbers; one of stride 0 claims any number of them."""
    return (
        tensor.layout == torch.strided and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _check_depth(config: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Refuse a configuration of more layers or experts than the weights can be of, before any is made."""
    tensors = checkpoint.tensors
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for keys, held in ((_LAYERS, len(tensors)), (_EXPERTS, max(len(tensors), largest))):
        for key in keys:
            for value in (part.get(key) for part in parts):
                if isinstance(value, int | float) and not value <= max(held, _ALWAYS_FINE):
                    raise ModelError(
                        f"model folder {named(checkpoint.folder)}: {CONFIG} has {key} {shortened(value, 20)}, but its "
                        f"weights hold {len(tensors):,} tensors: correct {CONFIG}."
                    )
