"""A language model, loaded once: its tokenizer, its units, and what it says with them."""

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
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from atlas_builder import crate, sae
from atlas_builder.config import Configuration, Model
from atlas_builder.config import Units as UnitsSettings
from atlas_builder.demo import SAES, SHIPPED
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.tokens import token_texts
from atlas_builder.units import CrateUnits, MLPUnits, SAEUnits, Units
from atlas_builder.units.base import as_float32

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LanguageModel:
    """A TransformerLens bridge, or a CRATE, which has what is asked of one, with its tokenizer."""

    bridge: Any
    tokenizer: Any

    @property
    def bos(self) -> int | None:
        """The token that heads every context, where the tokenizer has one."""
        token: int | None = self.tokenizer.bos_token_id
        return token

    @property
    def mask(self) -> int:
        """The token that stands for a masked one: padding, as in the paper, or else another special one."""
        tokenizer = self.tokenizer
        known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
        size = int(self.bridge.cfg.d_vocab)
        return next((int(token) for token in known if token is not None and token < size), 0)

    @property
    def token_texts(self) -> list[str]:
        """What each token of the model's vocabulary reads as."""
        texts = token_texts(self.tokenizer)
        return texts + [""] * (int(self.bridge.cfg.d_vocab) - len(texts))

    @property
    def facts(self) -> dict[str, Any]:
        """What is true of the model as a whole, for `atlas.json`."""
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
        multiplies by a gain; a LayerNorm also takes the mean away. Gain and mean are
        in the map, the division is not, so a direction times this map is the change
        of the logits up to a positive factor.
        """
        unembed = as_float32(self.bridge.W_U)
        gain, centred = self._final_norm()
        unembed = gain[:, None] * unembed
        return unembed - unembed.mean(dim=0) if centred else unembed

    def _final_norm(self) -> tuple[Tensor, bool]:
        """Gain of the final norm and whether it takes the mean away, read off by running it.

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

        # Large enough for the norm's epsilon not to count.
        constant = torch.full((width,), 64.0)
        centred = torch.allclose(run(constant), run(-constant), atol=1e-3)
        wave = 64.0 * torch.tensor([1.0, -1.0]).repeat((width + 1) // 2)[:width].double()
        z = wave - wave.mean() if centred else wave
        z = z / z.square().mean().sqrt()
        return ((run(wave) - run(-wave)) / 2 / z).float(), centred


def load(model: Model) -> LanguageModel:
    """Load a model by Hugging Face name or from a folder.

    Raises `ModelError` with one sentence where weights or tokenizer are missing or
    unsafe, and `ConfigurationError` where the device is not there.
    """
    _check_device(model.device)
    name = place(model)
    local = Path(name).is_dir()
    is_crate = local and crate.is_crate(Path(name))
    if local and not is_crate:
        _check_weights(Path(name))
    elif not local and name.startswith((".", "/", "~")):
        raise ModelError(f"model.name: there is no folder {name}: give a folder or a Hugging Face name.")
    with _quiet():
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=model.revision)
            # Without its files some tokenizers load all the same, and know no word.
            if not set(tokenizer.encode("the", add_special_tokens=False)) - {tokenizer.unk_token_id}:
                raise ValueError("its vocabulary is empty")
        except Exception as error:  # the loaders raise whatever their depths raise
            problem = "has no tokenizer that can be read" if local else "cannot be loaded from Hugging Face"
            hint = "put tokenizer.json beside the weights" if local else "check the name, the revision and the network"
            raise ModelError(f"model {name} {problem} ({_reason(error)}): {hint}.") from error
        if is_crate:
            return LanguageModel(crate.load(Path(name)).to(model.device, _DTYPES[model.dtype]), tokenizer)
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
                f"model {name} cannot be loaded by TransformerLens ({_reason(error)}): "
                "check that its architecture is supported and its files are whole."
            ) from error
    return LanguageModel(bridge, tokenizer)


def place(model: Model) -> str:
    """Where a model is: the folder of a shipped one, else the name as it was given."""
    return str(SHIPPED.get(model.name, model.name))


def load_plain(model: Model) -> Any:
    """The model as transformers alone loads it, without TransformerLens; the name was found good before."""
    from transformers import AutoModelForCausalLM

    with _quiet():
        found = AutoModelForCausalLM.from_pretrained(place(model), revision=model.revision, dtype=_DTYPES[model.dtype])
    return found.to(model.device).eval()


def open_units(model: LanguageModel, config: Configuration) -> Units:
    """The units a configuration asks for; the one place that knows the kinds."""
    limit = getattr(model.bridge.cfg, "n_ctx", None)
    if limit and config.corpus.context > limit:
        raise ConfigurationError(f"corpus.context: {config.corpus.context} is more than the model's {limit} tokens.")
    units = config.units
    if isinstance(model.bridge, crate.Crate) != (units.kind == "crate"):
        has, wants = ("is", "crate") if units.kind != "crate" else ("is no", "mlp or sae")
        raise ConfigurationError(f"units.kind: {config.model.name} {has} CRATE, whose units are of kind {wants}.")
    if units.kind == "crate":
        return CrateUnits(model.bridge, units.layers)
    if units.kind == "sae":
        found = load_saes(units)
        for one in found:
            _check_trained_on(one, config.model.name)
        return SAEUnits(model.bridge, found, units.layers)
    return MLPUnits(model.bridge, units.layers)


def load_saes(units: UnitsSettings) -> list[sae.SAE]:
    """The SAEs of a configuration: from a folder, the shipped ones, the hub, or a release that sae-lens knows."""
    if units.path:
        return [sae.load(folder) for folder in sae.find(Path(units.path))]
    release, name = str(units.release), str(units.id)
    if release == "demo":
        if name not in (shipped := sorted(folder.name for folder in SAES.iterdir())):
            raise ConfigurationError(f"units.id: {name} is not among the shipped SAEs: use {' or '.join(shipped)}.")
        return [sae.load(folder) for folder in sae.find(SAES / name)]
    if "/" in release:
        from huggingface_hub import snapshot_download

        try:
            whole = snapshot_download(release, allow_patterns=[f"{name}/*"])
        except Exception as error:  # the hub's client raises whatever its depths raise
            raise ModelError(
                f"SAE {name} of {release} cannot be loaded from Hugging Face ({_reason(error)}): check units.release, "
                "units.id and the network."
            ) from error
        return [sae.load(Path(whole) / name)]
    try:
        from sae_lens import SAE
    except ImportError:
        raise ConfigurationError(
            f"units.release: {release} is no repository like owner/name; to look it up among SAELens's releases, "
            "install atlas-builder[sae]."
        ) from None
    with TemporaryDirectory() as scratch, _quiet():
        SAE.from_pretrained(release, name).save_model(scratch)
        return [sae.load(Path(scratch))]


def _check_trained_on(found: sae.SAE, name: str) -> None:
    """Refuse an SAE that says it was trained on another model, where both are known by name."""
    theirs, own = _official(found.model or ""), _official(name)
    if theirs and own and theirs != own:
        raise ConfigurationError(
            f"units: the SAE of layer {found.layer} was trained on {found.model}, not on {name}: "
            "set model.name to that, or name SAEs of this model."
        )


def _official(name: str) -> str | None:
    """The one name of a model that is known by several, gpt2-small's gpt2; None for a folder or what is not known."""
    if name in SHIPPED:
        return name
    try:
        from transformer_lens.supported_models import get_official_model_name
    except ImportError:  # before TransformerLens 4
        from transformer_lens.loading_from_pretrained import get_official_model_name
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return None


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
                f"{file} holds more than tensors, which could run code when loaded: convert it to safetensors."
            ) from None


def _reason(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
