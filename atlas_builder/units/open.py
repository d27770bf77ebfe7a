"""The units of a configuration: the only module that knows all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from atlas_builder.config import Configuration, ModelSettings, UnitSettings
from atlas_builder.errors import AtlasError, ConfigurationError, ModelError
from atlas_builder.models import crate, sae
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import is_out_of_memory
from atlas_builder.models.sae_folders import sae_folders
from atlas_builder.models.wording import reason, shortened
from atlas_builder.shipped import MODELS
from atlas_builder.units.base import Units
from atlas_builder.units.basis import BasisUnits, Directions
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.logits import LogitUnits
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.output_tokens import output_tokens
from atlas_builder.units.sae import SAEUnits, TranscoderUnits


def open_units(
    model: LanguageModel,
    config: Configuration,
    directions: Mapping[int, Directions] | None = None,
    tokens: Sequence[int] | None = None,
) -> Units:
    """Open the units of a configuration, for kind basis with the `directions` that the rotate stage found.

    `tokens` are those of output neurons, where they are known already. Raises `ConfigurationError`
    where they do not fit the model.
    """
    limit = getattr(model.bridge.cfg, "n_ctx", None)
    if limit and config.corpus.context > limit:
        raise ConfigurationError(f"corpus.context: {config.corpus.context} is more than the model's {limit} tokens.")
    units = config.units
    if isinstance(model.bridge, crate.Crate) != (units.kind == "crate"):
        others = [kind for kind in get_args(UnitSettings.model_fields["kind"].annotation) if kind != "crate"]
        verb, kinds = ("is", "crate") if units.kind != "crate" else ("is not", " or ".join(others))
        raise ConfigurationError(f"units.kind: {config.model.name} {verb} a CRATE model: set units.kind to {kinds}.")
    opened: Units
    if units.kind == "crate":
        opened = CrateUnits(model.bridge, units.layers)
    elif units.kind in ("sae", "transcoder"):
        saes = load_saes(units)
        for loaded in saes:
            _check_trained_on(loaded, config.model)
        coders = TranscoderUnits if units.kind == "transcoder" else SAEUnits
        opened = coders(model.bridge, saes, units.layers)
    elif units.kind == "logits":
        opened = LogitUnits(
            model.bridge, output_tokens(model, config) if tokens is None else tokens, is_causal=model.is_causal
        )
    elif units.kind == "basis":
        opened = BasisUnits(model.bridge, directions or {}, units.layers)
    else:
        opened = MLPUnits(model.bridge, units.layers)
    _try_out(opened, model, config)
    return opened


def _try_out(units: Units, model: LanguageModel, config: Configuration) -> None:
    """Run two tokens, so that a model that cannot be run is refused before any work; raises `ModelError`."""
    whose = f"model {shortened(config.model.name)}"
    shown: dict[int, tuple[int, int]] = {}
    broken: list[int] = []

    def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
        shown[layer] = inputs.shape[-1], activations.shape[-1]
        if not (inputs.isfinite().all() and activations.isfinite().all()):
            broken.append(layer)

    device = next(iter(model.bridge.original_model.parameters())).device
    try:
        units.run(torch.full((1, 2), model.mask, device=device), visit)
        expected = {layer: (units.read_weights(layer).shape[-1], units.count(layer)) for layer in units.layers[:1]}
    except AtlasError:
        raise
    except Exception as error:  # torch raises many kinds
        if is_out_of_memory(error):
            return  # what runs the corpus says so better
        raise ModelError(
            f"{whose} cannot be run ({reason(error)}): check that its configuration is that of its weights."
        ) from error
    if broken:
        raise ModelError(f"{whose}: layer {broken[0]} computes NaN or infinity from two tokens: check its weights.")
    if list(shown) != list(units.layers) or any(shown[layer] != sizes for layer, sizes in expected.items()):
        raise ModelError(f"{whose}: its layers cannot be read: choose other units.layers or another model.")


def load_saes(units: UnitSettings) -> list[sae.SAE]:
    """The SAEs or transcoders of a configuration, by `sae_folders`."""
    with sae_folders(units) as folders:
        kind: Literal["sae", "transcoder"] = "transcoder" if units.kind == "transcoder" else "sae"
        return [sae.load_sae(folder, kind) for folder in folders]


def _check_trained_on(loaded: sae.SAE, settings: ModelSettings) -> None:
    """Refuse an SAE whose metadata names another model or checkpoint, where both are known by name."""
    trained_on, model = _official(loaded.model or ""), _official(settings.name)
    if trained_on and model and trained_on != model:
        raise ConfigurationError(
            f"units: the {loaded.noun} of layer {loaded.layer} was trained on {loaded.model}, not on {settings.name}: "
            f"change model.name, or choose {loaded.noun}s of this model."
        )
    if loaded.checkpoint and loaded.checkpoint not in (settings.revision or ""):
        raise ConfigurationError(
            f"units: the {loaded.noun} of layer {loaded.layer} was trained on checkpoint {loaded.checkpoint} of its "
            "model: set model.revision to it."
        )


def _official(name: str) -> str | None:
    """The official name of a model with several, gpt2 for gpt2-small; None for a folder or an unknown model."""
    if name in MODELS:
        return name
    try:
        from transformer_lens.supported_models import get_official_model_name
    except ImportError:  # before TransformerLens 4
        from transformer_lens.loading_from_pretrained import get_official_model_name
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return None
