"""The units of a configuration: the only module that knows all kinds."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from atlas_builder.config import Configuration, UnitSettings
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import crate, sae
from atlas_builder.models.language_model import LanguageModel, quiet, reason
from atlas_builder.shipped import MODELS, SAES
from atlas_builder.units.base import Units
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.sae import SAEUnits


def open_units(model: LanguageModel, config: Configuration) -> Units:
    """Open the units of a configuration; raises `ConfigurationError` where they do not fit the model."""
    limit = getattr(model.bridge.cfg, "n_ctx", None)
    if limit and config.corpus.context > limit:
        raise ConfigurationError(f"corpus.context: {config.corpus.context} is more than the model's {limit} tokens.")
    units = config.units
    if isinstance(model.bridge, crate.Crate) != (units.kind == "crate"):
        others = [kind for kind in get_args(UnitSettings.model_fields["kind"].annotation) if kind != "crate"]
        verb, kinds = ("is", "crate") if units.kind != "crate" else ("is not", " or ".join(others))
        raise ConfigurationError(f"units.kind: {config.model.name} {verb} a CRATE model: set units.kind to {kinds}.")
    if units.kind == "crate":
        return CrateUnits(model.bridge, units.layers)
    if units.kind == "sae":
        saes = load_saes(units)
        for loaded in saes:
            _check_trained_on(loaded, config.model.name)
        return SAEUnits(model.bridge, saes, units.layers)
    return MLPUnits(model.bridge, units.layers)


def load_saes(units: UnitSettings) -> list[sae.SAE]:
    """The SAEs of a configuration: from a folder, the shipped ones, Hugging Face, or a release that sae-lens knows."""
    if units.path:
        return [sae.load_sae(folder) for folder in sae.find_saes(Path(units.path))]
    release, name = str(units.release), str(units.id)
    if release == "demo":
        if name not in (shipped := sorted(folder.name for folder in SAES.iterdir())):
            raise ConfigurationError(f"units.id: {name} is not among the shipped SAEs: use {' or '.join(shipped)}.")
        return [sae.load_sae(folder) for folder in sae.find_saes(SAES / name)]
    if "/" in release:
        from huggingface_hub import snapshot_download

        try:
            snapshot = snapshot_download(release, allow_patterns=[f"{name}/*"])
        except Exception as error:  # the hub's client raises many kinds
            raise ModelError(
                f"SAE {name} of {release} cannot be loaded from Hugging Face ({reason(error)}): check units.release, "
                "units.id and the network."
            ) from error
        return [sae.load_sae(Path(snapshot) / name)]
    try:
        from sae_lens import SAE
    except ImportError:
        raise ConfigurationError(
            f"units.release: {release} is not a repository like owner/name; to look it up among SAELens's "
            "releases, install atlas-builder[sae]."
        ) from None
    with TemporaryDirectory() as scratch, quiet():
        SAE.from_pretrained(release, name).save_model(scratch)
        return [sae.load_sae(Path(scratch))]


def _check_trained_on(loaded: sae.SAE, name: str) -> None:
    """Refuse an SAE whose metadata names another model, where both are known by name."""
    trained_on, model = _official(loaded.model or ""), _official(name)
    if trained_on and model and trained_on != model:
        raise ConfigurationError(
            f"units: the SAE of layer {loaded.layer} was trained on {loaded.model}, not on {name}: "
            "change model.name, or choose SAEs of this model."
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
