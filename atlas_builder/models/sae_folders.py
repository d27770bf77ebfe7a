"""Where SAEs or transcoders are: a folder, the shipped ones, the hub, or a release that sae-lens knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from atlas_builder.config import UnitSettings
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models.confinement import confined
from atlas_builder.models.hub import fetched_sae
from atlas_builder.models.language_model import quiet
from atlas_builder.models.wording import named, reason, shortened
from atlas_builder.shipped import SAES

_CONFIG = "cfg.json"
_NOUNS = {"transcoder": "transcoder"}


@contextmanager
def sae_folders(units: UnitSettings) -> Iterator[list[Path]]:
    """The folders of a configuration's SAEs or transcoders, to be read within the context, unseen.

    Raises `ConfigurationError` or `ModelError` where there are none.
    """
    release, name, noun = str(units.release), str(units.id), _NOUNS.get(units.kind, "SAE")
    if units.path:
        yield find_saes(Path(units.path), noun)
    elif release == "demo":
        if name not in (shipped := sorted(folder.name for folder in SAES.iterdir())):
            raise ConfigurationError(f"units.id: {name} is not among the shipped SAEs: use {' or '.join(shipped)}.")
        yield find_saes(SAES / name)
    elif "/" in release:
        yield [fetched_sae(release, name, noun)]
    else:
        with TemporaryDirectory() as scratch:
            _save_release(release, name, noun, scratch)
            yield [Path(scratch)]


def find_saes(folder: Path, noun: str = "SAE") -> list[Path]:
    """The SAEs or, as `noun` says, transcoders of a folder: itself, or its subfolders, by name.

    Raises `ConfigurationError` where there is none.
    """
    if (folder / _CONFIG).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{_CONFIG}"))
    if not folders:
        raise ConfigurationError(
            f"units.path: {named(folder)} contains no {noun}: name a folder with {_CONFIG} and sae_weights.safetensors."
        )
    return folders


def _save_release(release: str, name: str, noun: str, scratch: str) -> None:
    """Let SAELens load one of its releases, and save it in its own layout."""
    try:
        from sae_lens import SAE
    except ImportError:
        raise ConfigurationError(
            f"units.release: {release} is not a repository like owner/name; to look it up among SAELens's "
            "releases, install atlas-builder[sae]."
        ) from None
    with quiet():
        try:
            with confined(network=True):
                SAE.from_pretrained(release, name).save_model(scratch)  # of a transcoder, too
        except Exception as error:  # SAELens raises many kinds
            raise ModelError(
                f"{noun} {shortened(name)} of {shortened(release)} cannot be loaded by SAELens ({reason(error)}): "
                "check units.release, units.id and the network."
            ) from error
