"""A language model, loaded once, with its tokenizer and unembedding."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas_builder.config import ModelSettings
from atlas_builder.corpus.token_text import token_texts
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import crate
from atlas_builder.models.checkpoint import Checkpoint, read_checkpoint, read_settings
from atlas_builder.models.confinement import confined
from atlas_builder.models.gguf import converted, is_gguf, quantisation
from atlas_builder.models.hub import fetched_model
from atlas_builder.models.memory import as_float32
from atlas_builder.models.precision import DTYPES, epsilon
from atlas_builder.models.probe import Probe
from atlas_builder.models.whole_model import OFFLINE, WholeModel, cannot_load, local_config, without_processors
from atlas_builder.models.wording import named, shortened
from atlas_builder.shipped import MODELS

_LARGEST_TOKEN = 1 << 22
"""No vocabulary has more tokens."""


@dataclass(frozen=True)
class LanguageModel:
    """A TransformerLens bridge, or a CRATE with the same interface, and its tokenizer."""

    bridge: Any
    tokenizer: Any
    quantisation: str | None = None
    """The types of numbers that its weights were dequantised from, such as `Q4_1, Q8_0`; None for others."""

    @property
    def bos(self) -> int | None:
        """The token that begins every context: of beginning, else of classification, else of the end of a text.

        None where the tokenizer lacks all of these.
        """
        return first_token(self.tokenizer)

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
        return token_texts(self.tokenizer, int(self.bridge.cfg.d_vocab))

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the whole model, for `atlas.json`."""
        cfg = self.bridge.cfg
        return {
            "architecture": str(cfg.architecture),
            "layers": int(cfg.n_layers),
            "width": int(cfg.d_model),
            "vocabulary": int(cfg.d_vocab),
            "causal": self.is_causal,
            "direct_logits": self.has_direct_logits,
            "bos_token": None if self.bos is None else self.tokenizer.convert_ids_to_tokens(self.bos),
            "mask_token": self.tokenizer.convert_ids_to_tokens(self.mask),
            **({"quantisation": self.quantisation} if self.quantisation else {}),
        }

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text on its own, without special tokens.

        Raises `ModelError` for a token that the model has no embedding of.
        """
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        tokens = [list(ids) for ids in encoded["input_ids"]]
        self.check_known(tokens)
        return tokens

    def check_known(self, tokens: list[list[int]]) -> None:
        """Raise `ModelError` for a token that the model has no embedding of."""
        size = int(self.bridge.cfg.d_vocab)
        if (largest := max((max(ids) for ids in tokens if ids), default=0)) >= size:
            token = shortened(self.tokenizer.convert_ids_to_tokens(largest), 40)
            raise ModelError(
                f"the text contains {token}, token {largest:,} of the tokenizer, but the model has {size:,} tokens: "
                "use the tokenizer that it was trained with, or take this text out."
            )

    @cached_property
    def is_causal(self) -> bool:
        """Whether a token is read from those before it alone, found by changing the last of some.

        A model that reads in both directions predicts no next token.
        """
        if getattr(self.bridge.cfg, "attention_dir", "causal") == "bidirectional":
            return False
        weight = next(iter(self.bridge.original_model.parameters()))
        texts = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]], device=weight.device) % self.bridge.cfg.d_vocab
        with torch.inference_mode():
            one, other = (as_float32(self.bridge(text[None])[:, :3]) for text in texts)
        # Mixtures of experts round otherwise with other tokens beside.
        return not float((one - other).abs().max()) > epsilon(weight.dtype) ** 0.5 * float(one.abs().max())

    @property
    def has_direct_logits(self) -> bool:
        """Whether what is added to the stream reaches logits through a final norm alone.

        It does not where a norm follows each block, nor where no next token is predicted.
        """
        return self.is_causal and getattr(self.bridge, "ln_final", None) is not None

    def input_embeddings(self) -> Tensor:
        """What each token of the vocabulary enters the model as, in float32 on the CPU: (vocabulary, width)."""
        weight = as_float32(self.bridge.original_model.get_input_embeddings().weight)
        return weight[: int(self.bridge.cfg.d_vocab)]

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
        norm, width = self.bridge.ln_final, int(self.bridge.cfg.d_model)
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


def first_token(tokenizer: Any) -> int | None:
    """The token that begins a text, as TransformerLens chooses it, but that none is made up; BERT's is `[CLS]`."""
    special = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    return next((int(token) for token in special if token is not None), None)


def load_model(model: ModelSettings) -> LanguageModel:
    """Load a model by Hugging Face name, from a folder, or from a GGUF file.

    Raises `ModelError` with one sentence where weights or tokenizer are missing, damaged,
    of another model or unsafe, and `ConfigurationError` where the device is not available.
    """
    _check_device(model.device)
    folder = folder_of(model)
    with quiet(), confined():
        if crate.is_crate(folder):
            tokenizer = _tokenizer(folder)
            bridge: Any = crate.load_crate(folder).to(model.device, DTYPES[model.dtype])
        else:
            checkpoint = read_checkpoint(folder)
            tokenizer = _tokenizer(folder)
            bridge = _bridge(checkpoint, tokenizer, model)
    loaded = LanguageModel(bridge, tokenizer, quantisation(folder))
    _check_tokens(loaded, folder)
    return loaded


def folder_of(model: ModelSettings) -> Path:
    """The folder of a model: fetched from Hugging Face where it is not on this machine, dequantised from a GGUF file.

    Raises `ModelError`.
    """
    name = place(model)
    try:
        if Path(name).is_dir():
            return Path(name).resolve()
    except ValueError:  # a NUL in the name
        raise ModelError(f"model.name: {shortened(name)} cannot be a name: correct it.") from None
    if is_gguf(Path(name)):
        with quiet(), confined():
            return converted(Path(name), model.dtype)
    if Path(name).is_file():
        raise ModelError(f"model.name: {shortened(name)} is a file: give the folder that it lies in.")
    if name.startswith((".", "/", "~")):
        raise ModelError(
            f"model.name: {shortened(name)} is not found: give a folder, a GGUF file or a Hugging Face name."
        )
    return fetched_model(name, model.revision)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **OFFLINE)
        # What counts up to the largest number would do so for hours.
        if (largest := max(tokenizer.get_vocab().values(), default=0)) > _LARGEST_TOKEN:
            raise ValueError(f"it has a token of the number {largest:,}")
        # Some tokenizers load without their files, with an empty vocabulary.
        if not set(tokenizer.encode("the", add_special_tokens=False)) - {tokenizer.unk_token_id}:
            raise ValueError("its vocabulary is empty")
        _read_alike(tokenizer)
    except BaseException as error:  # tokenizers panics in Rust, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        problem, hint = "has no tokenizer that can be read", "put tokenizer.json beside the weights"
        raise cannot_load(folder, error, problem, hint, _wants_code(folder)) from error
    return tokenizer


def _read_alike(tokenizer: Any) -> None:
    """Take from a tokenizer the chance by which it was trained to cut words in other ways (BPE dropout)."""
    algorithm: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if getattr(algorithm, "dropout", None):
        algorithm.dropout = None


def _wants_code(folder: Path) -> bool:
    """Whether a tokenizer's settings name a class of its own."""
    with contextlib.suppress(ModelError):
        return "auto_map" in read_settings(folder / "tokenizer_config.json", "", "")
    return False


def _bridge(checkpoint: Checkpoint, tokenizer: Any, model: ModelSettings) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources.transformers import get_hf_model_class_for_architecture

    probe = Probe()
    try:
        config = local_config(checkpoint)
        _check_kind(checkpoint.folder, config)
        architecture = _architecture(checkpoint.folder, config)
        with without_processors():
            bridge = TransformerBridge.boot_transformers(
                str(checkpoint.folder),
                device=model.device,
                dtype=DTYPES[model.dtype],
                tokenizer=copy.deepcopy(tokenizer),  # it gets tokens there that the model was not trained with
                trust_remote_code=False,
                model_class=WholeModel(get_hf_model_class_for_architecture(architecture), checkpoint, probe.record),
            )
        probe.check(bridge, checkpoint.folder)
        return bridge
    except Exception as error:  # the loaders raise many kinds
        hint = "check that its architecture is supported and its files are whole"
        raise cannot_load(checkpoint.folder, error, "cannot be loaded by TransformerLens", hint) from error


def _check_kind(folder: Path, config: Any) -> None:
    """Refuse an encoder with a decoder, whose layers are two lists, and what transformers computes in two ways."""
    if config.model_type == "falcon" and getattr(config, "alibi", False):
        raise ModelError(
            f"model {named(folder)} is a Falcon with ALiBi, whose attention transformers computes in two ways with "
            "different results: choose another model."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"model {named(folder)} is an encoder with a decoder ({shortened(config.model_type, 40)}), whose text is "
            "in pairs: choose a model that is one or the other."
        )


def _architecture(folder: Path, config: Any) -> str:
    """The architecture by which TransformerLens reads a model; raises `ModelError` where it knows none."""
    from transformer_lens.model_bridge.sources.transformers import determine_architecture_from_hf_config

    try:
        return str(determine_architecture_from_hf_config(config))
    except ValueError as error:
        names = [name for name in getattr(config, "architectures", None) or () if isinstance(name, str)]
        raise ModelError(
            f"model {named(folder)} has an architecture ({shortened((names or [config.model_type])[0], 60)}) that "
            "TransformerLens does not support: choose another model."
        ) from error


def _check_tokens(loaded: LanguageModel, folder: Path) -> None:
    """Refuse a tokenizer that is another model's: the token that begins every context is beyond the embedding."""
    size = int(loaded.bridge.cfg.d_vocab)
    bos = loaded.bos
    if bos is not None and not 0 <= bos < size:
        raise ModelError(
            f"model {named(folder)}: its tokenizer begins texts with token {shortened(bos, 20)}, but the model has "
            f"{size:,} tokens: use the tokenizer that it was trained with."
        )


def place(model: ModelSettings) -> str:
    """Where a model is: the folder of a shipped one, else the name as given."""
    return str(MODELS.get(model.name, model.name))


def load_plain(model: ModelSettings) -> Any:
    """The model as transformers alone loads it, without TransformerLens; raises `ModelError` as `load_model` does."""
    from transformer_lens.model_bridge.sources.transformers import get_hf_model_class_for_architecture

    checkpoint = read_checkpoint(folder_of(model))
    with quiet(), confined():
        try:
            config = local_config(checkpoint)
            # As transformers chooses it: with a head for masked tokens where that is what was trained.
            auto = get_hf_model_class_for_architecture(_architecture(checkpoint.folder, config))
            # In 16 bits, another order of sums would make far more of a difference than rounding at the end does.
            attention = {} if model.dtype == "float32" else {"attn_implementation": "eager"}
            plain = WholeModel(auto, checkpoint).from_pretrained(
                str(checkpoint.folder), config=config, dtype=DTYPES[model.dtype], **attention
            )
        except Exception as error:  # the loaders raise many kinds
            hint = "check that its files are whole"
            raise cannot_load(checkpoint.folder, error, "cannot be loaded by transformers", hint) from error
    return plain.to(model.device).eval()


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(f"model.device: {device} is not available here: use cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("model.device: mps is not available here: use cpu.")


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
