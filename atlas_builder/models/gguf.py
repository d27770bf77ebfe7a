"""Models in GGUF files, llama.cpp's format: transformers dequantises them, once, into a folder of its own layout.

The folder lies in the user's cache. Everything else reads it as it reads any model, so workers,
`verify` and later builds neither dequantise again nor know of the format.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from platformdirs import user_cache_path

from atlas_builder.errors import ModelError
from atlas_builder.models.precision import DTYPES
from atlas_builder.models.wording import and_more, named, reason
from atlas_builder.system.folders import remove

_MAGIC = b"GGUF"
_FORMAT = 1
"""Raised where a file would be converted otherwise than before."""
_QUANTISATION = "gguf.json"
_LEAST_SHARE = 0.01
"""Types of fewer parameters are not named: norms stay in 32 bits in any file."""
_SAFELY_MORE = 2
"""Times the parameters of the file; a model of more is not made."""


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF does, or is named so."""
    if not file.is_file():
        return False
    with file.open("rb") as start:
        return start.read(len(_MAGIC)) == _MAGIC or file.suffix.lower() == ".gguf"


def converted(file: Path, dtype: str) -> Path:
    """The folder in the Hugging Face layout that a GGUF file was dequantised to, made where there is none.

    Weights are stored in the precision in which they are run, `dtype`. Raises `ModelError` where the
    package gguf is missing, or the file is broken, in parts, or of a model that transformers
    cannot read.
    """
    if find_spec("gguf") is None:
        raise ModelError(
            f"model {named(file)} is a GGUF file, which is read by the package gguf: pip install 'atlas-builder[gguf]'."
        )
    state = file.stat()
    made_of = json.dumps([str(file.resolve()), state.st_size, state.st_mtime_ns, dtype, _FORMAT])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    parent = user_cache_path("atlas-builder") / "gguf"
    target = parent / f"{file.stem[:80]}-{key}"
    if target.is_dir():
        return target
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=".", dir=parent))
    except OSError as error:
        raise ModelError(
            f"model {named(file)} cannot be unpacked to {named(parent)} ({reason(error)}): "
            "set XDG_CACHE_HOME to a folder with room for it."
        ) from error
    try:
        _convert(file, dtype, scratch)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # another process was faster
                raise
    except OSError as error:
        raise ModelError(
            f"model {named(file)} cannot be unpacked to {named(parent)} ({reason(error)}): "
            "make room there, or set XDG_CACHE_HOME to another folder."
        ) from error
    finally:
        if scratch.is_dir():
            remove(scratch)
    return target


def quantisation(folder: Path) -> str | None:
    """The types of numbers of the GGUF file that a folder was made from, such as `Q4_1, Q8_0`; None for others."""
    file = folder / _QUANTISATION
    return str(json.loads(file.read_text(encoding="utf-8"))["types"]) if file.is_file() else None


def _convert(file: Path, dtype: str, folder: Path) -> None:
    """Write model, tokenizer and the types of numbers of a file to a folder."""
    tensors, architecture = _inspected(file)
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        config = AutoConfig.from_pretrained(**place)
        _check_size(file, config, tensors)
        with redirect_stderr(StringIO()):  # its progress bar is not one that transformers can turn off
            model, account = AutoModelForCausalLM.from_pretrained(
                **place,
                config=config,
                dtype=DTYPES[dtype],
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the account names them
            )
        _check_whole(file, account)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        # What is saved is plain numbers.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.config.name_or_path = file.name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:  # transformers says much in OSError
            raise _unreadable(file, error) from error
        raise
    except ModelError:
        raise
    except Exception as error:  # the loaders raise many kinds
        if "not supported" in str(error) or "Unrecognized" in str(error):
            raise ModelError(
                f"model {named(file)} is a GGUF file of the architecture {named(Path(architecture))}, which "
                "transformers cannot read: give the model from which it was made, in the Hugging Face layout."
            ) from error
        raise _unreadable(file, error) from error
    (folder / _QUANTISATION).write_text(json.dumps({"types": _types(tensors)}), encoding="utf-8")


def _inspected(file: Path) -> tuple[list[Any], str]:
    """The tensors of a file, without their numbers, and its architecture; refuses what is broken or a part."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        architecture, parts = (reader.get_field(name) for name in ("general.architecture", "split.count"))
        name = "" if architecture is None else str(architecture.contents())
        count = 1 if parts is None else int(str(parts.contents()))
        tensors, size = list(reader.tensors), file.stat().st_size
        ends = [int(tensor.data_offset + tensor.n_bytes) for tensor in tensors]
    except Exception as error:  # numpy's kinds, for what lies beyond the end of the file
        raise _unreadable(file, error) from error
    if count > 1:
        raise ModelError(
            f"model {named(file)} is one of {count:,} parts of a model: put them together with "
            "llama.cpp's gguf-split --merge, and give the whole file."
        )
    if not tensors:
        raise ModelError(f"model {named(file)} holds no tensor: give the GGUF file of a model.")
    if max(ends) > size:
        raise ModelError(f"model {named(file)} is not whole: it ends before its last tensor does; copy it again.")
    return tensors, name


def _check_size(file: Path, config: Any, tensors: list[Any]) -> None:
    """Refuse a description of a far larger model than the file holds, before any is made."""
    from transformers import AutoModelForCausalLM

    if int(getattr(config, "num_hidden_layers", 0)) > len(tensors):
        raise ModelError(f"model {named(file)} has more layers than tensors: it is damaged; copy it again.")
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config)
    needed = sum(parameter.numel() for parameter in shell.parameters())
    given = sum(int(tensor.n_elements) for tensor in tensors)
    if needed > _SAFELY_MORE * given:
        raise ModelError(
            f"model {named(file)} describes {needed:,} parameters, but holds {given:,}: it is damaged; copy it again."
        )


def _check_whole(file: Path, account: dict[str, Any]) -> None:
    """Refuse a model of which transformers says that it made up a part."""
    if missing := account.get("missing_keys"):
        raise ModelError(f"model {named(file)} lacks {and_more(missing)}: copy or convert it again.")
    if others := account.get("mismatched_keys"):
        names = [str(entry[0]) for entry in others]
        raise ModelError(f"model {named(file)}: {and_more(names)} are of another shape: copy or convert it again.")


def _types(tensors: list[Any]) -> str:
    """The types of numbers of a file, those of most parameters first."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    least = _LEAST_SHARE * counts.total()
    return ", ".join(name for name, count in counts.most_common() if count >= least)


def _unreadable(file: Path, error: BaseException) -> ModelError:
    return ModelError(f"model {named(file)} cannot be read as GGUF ({reason(error)}): copy or convert it again.")
