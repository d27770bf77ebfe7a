"""A language model, loaded once, with its tokenizer and unembedding."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas_builder.config import ModelSettings
from atlas_builder.corpus.token_text import token_texts
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import crate
from atlas_builder.models.memory import as_float32
from atlas_builder.shipped import MODELS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LanguageModel:
    """A TransformerLens bridge, or a CRATE with the same interface, and its tokenizer."""

    bridge: Any
    tokenizer: Any

    @property
    def bos(self) -> int | None:
        """The beginning-of-sequence token that begins every context, where the tokenizer has one."""
        token: int | None = self.tokenizer.bos_token_id
        return token

    @property
    def mask(self) -> int:
        """The token that replaces a masked one: padding, as in the paper, or else another special token."""
        tokenizer = self.tokenizer
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
        size = int(self.bridge.cfg.d_vocab)
        return next((int(token) for token in special if token is not None and token < size), 0)

    @property
    def token_texts(self) -> list[str]:
        """The text of each token of the model's vocabulary."""
        texts = token_texts(self.tokenizer)
        return texts + [""] * (int(self.bridge.cfg.d_vocab) - len(texts))

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the whole model, for `atlas.json`."""
        cfg = self.bridge.cfg
        return {
            "architecture": str(cfg.architecture),
            "layers": int(cfg.n_layers),
            "width": int(cfg.d_model),
            "vocabulary": int(cfg.d_vocab),
            "bos_token": self.tokenizer.bos_token,
            "mask_token": self.tokenizer.convert_ids_to_tokens(self.mask),
        }

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text on its own, without special tokens."""
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def unembedding(self) -> Tensor:
        """The linear map from the residual stream to logits: (d_model, vocabulary).

        The final norm divides by a positive number that depends on the context and
        multiplies by a gain; a LayerNorm also subtracts the mean. Gain and mean are in
        the map, the division is not, so a direction times this map is the change of
        the logits up to a positive factor.
        """
        unembed = as_float32(self.bridge.W_U)
        gain, centred = self._final_norm()
        unembed = gain[:, None] * unembed
        return unembed - unembed.mean(dim=0) if centred else unembed

    def _final_norm(self) -> tuple[Tensor, bool]:
        """Gain of the final norm and whether it subtracts the mean, found by running it.

        Every architecture stores its norm differently (Gemma adds one to the weight),
        but all of them compute z(x) · gain + bias.
        """
        norm = getattr(self.bridge, "ln_final", None)
        width = int(self.bridge.cfg.d_model)
        if norm is None:
            return torch.ones(width), False
        weight = next(iter(self.bridge.original_model.parameters()))

        def run(x: Tensor) -> Tensor:
            with torch.inference_mode():
                return as_float32(norm(x.to(weight.device, weight.dtype)[None, None])[0, 0]).double()

        # Large enough to make the norm's epsilon negligible.
        constant = torch.full((width,), 64.0)
        centred = torch.allclose(run(constant), run(-constant), atol=1e-3)
        wave = 64.0 * torch.tensor([1.0, -1.0]).repeat((width + 1) // 2)[:width].double()
        z = wave - wave.mean() if centred else wave
        z = z / z.square().mean().sqrt()
        return ((run(wave) - run(-wave)) / 2 / z).float(), centred


def load_model(model: ModelSettings) -> LanguageModel:
    """Load a model by Hugging Face name or from a folder.

    Raises `ModelError` with one sentence where weights or tokenizer are missing or
    unsafe, and `ConfigurationError` where the device is not available.
    """
    _check_device(model.device)
    name = place(model)
    local = Path(name).is_dir()
    is_crate = local and crate.is_crate(Path(name))
    if local and not is_crate:
        _check_weights(Path(name))
    elif not local and name.startswith((".", "/", "~")):
        raise ModelError(f"model.name: folder {name} is not found: give a folder or a Hugging Face name.")
    with quiet():
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=model.revision)
            # Some tokenizers load without their files, with an empty vocabulary.
            if not set(tokenizer.encode("the", add_special_tokens=False)) - {tokenizer.unk_token_id}:
                raise ValueError("its vocabulary is empty")
        except Exception as error:  # the loaders raise many kinds
            problem = "has no tokenizer that can be read" if local else "cannot be loaded from Hugging Face"
            hint = "put tokenizer.json beside the weights" if local else "check the name, the revision and the network"
            raise ModelError(f"model {name} {problem} ({reason(error)}): {hint}.") from error
        if is_crate:
            return LanguageModel(crate.load_crate(Path(name)).to(model.device, _DTYPES[model.dtype]), tokenizer)
        try:
            bridge = TransformerBridge.boot_transformers(
                name,
                device=model.device,
                dtype=_DTYPES[model.dtype],
                tokenizer=tokenizer,
                revision=model.revision,
            )
        except Exception as error:
            raise ModelError(
                f"model {name} cannot be loaded by TransformerLens ({reason(error)}): "
                "check that its architecture is supported and its files are whole."
            ) from error
    return LanguageModel(bridge, tokenizer)


def place(model: ModelSettings) -> str:
    """Where a model is: the folder of a shipped one, else the name as given."""
    return str(MODELS.get(model.name, model.name))


def load_plain(model: ModelSettings) -> Any:
    """The model as transformers alone loads it, without TransformerLens; the name has been checked before."""
    from transformers import AutoModelForCausalLM

    with quiet():
        plain = AutoModelForCausalLM.from_pretrained(place(model), revision=model.revision, dtype=_DTYPES[model.dtype])
    return plain.to(model.device).eval()


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(f"model.device: {device} is not available here: use cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("model.device: mps is not available here: use cpu.")


def _check_weights(folder: Path) -> None:
    """Refuse a folder without weights, or whose only weights are pickles that could run code."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {folder} has no config.json: give a folder in the Hugging Face layout.")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if not pickles:
        raise ModelError(f"model folder {folder} has no weights: put model.safetensors beside config.json.")
    for file in pickles:
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
            raise ModelError(
                f"{file} contains more than tensors, which could run code when loaded: convert it to safetensors."
            ) from None


def reason(error: BaseException) -> str:
    """Kind and first line of a library's error."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading without the libraries' own progress bars and notices."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers

    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings(), io.StringIO() as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            transformers.logging.set_verbosity(verbosity)
