"""Whether a checkpoint is the whole of a model: each of its tensors is stored, in its shape, and nothing else.

Libraries fill in random numbers for what is missing and say so in a log; here it is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from atlas_builder.errors import ModelError
from atlas_builder.models.checkpoint import CONFIG, Checkpoint
from atlas_builder.models.wording import and_more, named, shortened

_OPTIONAL = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.(bias|masked_bias)$|(^|\.)(rotary_emb\.inv_freq|position_ids)$"
)
"""Buffers that some versions of transformers save and others compute: masks, frequencies and numbers of positions."""

_SAFELY_MORE = 2
"""Times the parameters that are stored; what is missing is made at random before it is refused, in so much memory."""


def check_fits(model: Any, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is not the whole of a model, an untrained one without numbers (device `meta`).

    Names are compared as they are stored, with or without the prefix of the base model. Where
    transformers renames or joins tensors of an architecture, it alone knows which is which
    (`check_loaded`), and only the number of parameters is bounded here. Raises `ModelError`.
    """
    expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
    stored = {name: tensor for name, tensor in checkpoint.tensors.items() if not _OPTIONAL.search(name)}
    if _is_quantised(model):
        return
    if _is_renamed(model):
        needed = sum({id(tensor): tensor.numel() for tensor in expected.values()}.values())
        given = sum(torch.Size(tensor.shape).numel() for tensor in stored.values())
        if needed > _SAFELY_MORE * given:
            raise ModelError(
                f"model folder {named(checkpoint.folder)}: {CONFIG} describes {needed:,} parameters, but its "
                f"weights hold {given:,}: give the {CONFIG} that was saved with them."
            )
        return
    stored_name = _matched(expected, stored, f"{model.base_model_prefix}.")
    found = {id(expected[name]) for name in stored_name}  # of tied ones, one is enough
    missing = [name for name, tensor in expected.items() if id(tensor) not in found and not _OPTIONAL.search(name)]
    surplus = set(stored) - set(stored_name.values())
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    surplus -= {name for name in surplus if any(re.search(pattern, name) for pattern in ignored)}
    _refuse(checkpoint, missing, surplus)
    for name, theirs in stored_name.items():
        shape = tuple(expected[name].shape)
        if shape != stored[theirs].shape:
            _refuse_shape(checkpoint, theirs, stored[theirs].shape, shape)
        if expected[name].is_floating_point() and not stored[theirs].is_float:
            raise ModelError(
                f"model folder {named(checkpoint.folder)}: {shortened(theirs)} holds whole numbers: give "
                "weights that are not quantised."
            )


def check_loaded(found: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Refuse what transformers' own account of loading says is missing, unexpected or of another shape."""
    missing = [name for name in found.get("missing_keys", ()) if not _OPTIONAL.search(name)]
    surplus = [name for name in found.get("unexpected_keys", ()) if not _OPTIONAL.search(name)]
    _refuse(checkpoint, missing, surplus)
    for name, theirs, ours in sorted(found.get("mismatched_keys", ()), key=str):
        _refuse_shape(checkpoint, name, tuple(theirs), tuple(ours))
    for message in found.get("error_msgs", ()):
        raise ModelError(f"model folder {named(checkpoint.folder)} cannot be loaded: {shortened(message, 100)}.")


def check_finite(model: torch.nn.Module, whose: str) -> None:
    """Refuse weights that are not numbers, or infinite in the precision in which they are run."""
    broken = []
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            # NaN goes through minima and maxima; no second array of this size is made.
            ends = torch.stack(torch.aminmax(parameter.detach()))
            if not ends.isfinite().all():
                broken.append(name)
    if broken:
        raise ModelError(
            f"{whose}: {and_more(broken)} contain NaN or infinity: the weights are damaged; save them again."
        )


def _matched(expected: dict[str, Tensor], stored: dict[str, Any], prefix: str) -> dict[str, str]:
    """For each tensor of a model that is stored, its name there."""
    choices: defaultdict[str, list[str]] = defaultdict(list)
    for name in expected:
        for choice in (name, name.removeprefix(prefix), prefix + name):
            if choice in stored and choice not in choices[name]:
                choices[name].append(choice)
    return {name: found[0] for name, found in choices.items() if found}


def _refuse(checkpoint: Checkpoint, missing: Any, surplus: Any) -> None:
    whose = f"model folder {named(checkpoint.folder)}"
    if missing:
        raise ModelError(
            f"{whose}: the weights lack {and_more(missing)}, which {CONFIG} describes: give whole weights, or the "
            f"{CONFIG} that was saved with them."
        )
    if surplus:
        raise ModelError(
            f"{whose}: the weights contain {and_more(surplus)}, which the model of {CONFIG} does not have: give the "
            f"{CONFIG} that was saved with them."
        )


def _refuse_shape(checkpoint: Checkpoint, name: str, theirs: tuple[int, ...], ours: tuple[int, ...]) -> None:
    raise ModelError(
        f"model folder {named(checkpoint.folder)}: {shortened(name)} has the shape {theirs}, but {CONFIG} requires "
        f"{ours}: give the {CONFIG} that was saved with the weights."
    )


def _is_quantised(model: Any) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _is_renamed(model: Any) -> bool:
    """Whether transformers renames or joins stored tensors of this architecture."""
    if getattr(model, "_checkpoint_conversion_mapping", None):  # transformers 4
        return True
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        return False
    return bool(get_model_conversion_mapping(model, add_legacy=False))
