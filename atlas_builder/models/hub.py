"""Models, SAEs and transcoders of the Hugging Face hub, as folders here; only files that are read are fetched."""

from __future__ import annotations

from pathlib import Path

from atlas_builder.errors import ModelError
from atlas_builder.models.checkpoint import PICKLED, SAFE, read_settings
from atlas_builder.models.confinement import confined
from atlas_builder.models.wording import reason, shortened

_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


def fetched_model(name: str, revision: str | None) -> Path:
    """The folder of a model: configuration, tokenizer and weights, safetensors where there are any.

    Raises `ModelError` where the hub does not give it.
    """
    try:
        # Texts first: an index says which files the weights are.
        folder = _fetched(name, revision, _TEXTS)
        for weights in (SAFE, PICKLED):
            index = folder / f"{weights}.index.json"
            parts = [weights]
            if index.is_file():
                places = read_settings(index, f"model {shortened(name)}", "choose another").get("weight_map")
                parts = sorted({str(part) for part in places.values()}) if isinstance(places, dict) else []
            folder = _fetched(name, revision, parts)
            if any((folder / part).is_file() for part in parts):
                break
    except ModelError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        raise ModelError(
            f"model {shortened(name)} cannot be loaded from Hugging Face ({reason(error)}): check the name, the "
            "revision and the network."
        ) from error
    return folder


def fetched_sae(release: str, name: str, noun: str) -> Path:
    """The folder of an SAE or, as `noun` says, transcoder of a repository; raises `ModelError` where there is none."""
    from huggingface_hub import snapshot_download

    try:
        with confined(network=True):
            return Path(snapshot_download(release, allow_patterns=[f"{name}/*"])) / name
    except Exception as error:  # the hub's client raises many kinds
        raise ModelError(
            f"{noun} {shortened(name)} of {shortened(release)} cannot be loaded from Hugging Face ({reason(error)}): "
            "check units.release, units.id and the network."
        ) from error


def _fetched(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    with confined(network=True):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
