"""Models as transformers loads them, whole and without code of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from atlas_builder.errors import ModelError
from atlas_builder.models.checkpoint import CONFIG, Checkpoint
from atlas_builder.models.completeness import check_finite, check_fits, check_loaded
from atlas_builder.models.wording import named, reason

OFFLINE = {"trust_remote_code": False, "local_files_only": True}
"""Said to each loader: no code of a model is run, and no file is fetched."""


class WholeModel:
    """Loads the model of a checkpoint through a class of transformers, or refuses it.

    It stands where TransformerLens expects such a class; `on_loaded` is called with the model. Raises
    `ModelError` where the checkpoint is not the whole model, and what transformers raises.
    """

    def __init__(
        self, auto: Any, checkpoint: Checkpoint, on_loaded: Callable[[Any], None] = lambda model: None
    ) -> None:
        self._auto, self._checkpoint, self._on_loaded = auto, checkpoint, on_loaded

    def from_pretrained(self, name: str, **settings: Any) -> Any:
        """As the class's `from_pretrained`."""
        checkpoint = self._checkpoint
        # Sizes are compared before anything of these sizes is made.
        check_fits(self._shell(settings["config"]), checkpoint)
        # With sizes that differ ignored, the account has their names; `check_loaded` refuses them.
        account_of_all = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        kept = {**settings, **OFFLINE, **account_of_all, "use_safetensors": checkpoint.is_safe}
        model, account = self._auto.from_pretrained(name, **kept)
        check_loaded(account, checkpoint)
        check_finite(model, f"model folder {named(checkpoint.folder)}")
        self._on_loaded(model)
        return model

    def _shell(self, config: Any) -> Any:
        """The model of a configuration without its numbers."""
        with torch.device("meta"):
            return self._auto.from_config(config, trust_remote_code=False)


def local_config(checkpoint: Checkpoint) -> Any:
    """The configuration of a folder, of a class of transformers; raises what transformers raises."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(checkpoint.folder), **OFFLINE)
    attention = getattr(config, "_attn_implementation", None)
    if isinstance(attention, str) and "/" in attention:
        raise ModelError(
            f"model folder {named(checkpoint.folder)} {OWN_CODE}: remove attn_implementation from {CONFIG}."
        )
    return config


OWN_CODE = "needs its own code, which is not run"


def cannot_load(folder: Path, error: BaseException, otherwise: str, hint: str, wants_code: bool = False) -> ModelError:
    """The sentence for what a loader raised: that the model needs its own code, or `otherwise`.

    `wants_code` says that it has some, where the error does not say that this is why.
    """
    if isinstance(error, ModelError):
        return error
    if "trust_remote_code" in str(error) or wants_code:
        return ModelError(f"model {named(folder)} {OWN_CODE}: choose a model that transformers knows.")
    return ModelError(f"model {named(folder)} {otherwise} ({reason(error)}): {hint}.")


@contextlib.contextmanager
def without_processors() -> Iterator[None]:
    """Loading the text part of a model alone: its readers of images and sound are nothing.

    TransformerLens would load them, and install packages where they are missing.
    """
    import transformers

    loaders = [
        loader
        for name in ("AutoProcessor", "AutoFeatureExtractor", "AutoImageProcessor")
        if (loader := getattr(transformers, name, None)) is not None
    ]
    kept = [loader.__dict__.get("from_pretrained") for loader in loaders]
    for loader in loaders:
        loader.from_pretrained = classmethod(lambda cls, *_, **__: None)
    try:
        yield
    finally:
        for loader, function in zip(loaders, kept, strict=True):
            if function is None:
                del loader.from_pretrained
            else:
                loader.from_pretrained = function
