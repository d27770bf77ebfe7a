"""A run on to the logits visits what a run that stops does, for every kind of unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atlas_builder.config import ModelSettings
from atlas_builder.models import language_model
from atlas_builder.units.base import Units
from atlas_builder.units.basis import BasisUnits, Directions
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.logits import LogitUnits
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.sae import SAEUnits
from tests.support.saes import an_sae

_WIDTH = 16


def _directions() -> Directions:
    torch.manual_seed(1)
    return Directions(torch.randn(_WIDTH), torch.randn(_WIDTH, 3), torch.randn(3, _WIDTH), torch.randn(3, _WIDTH))


_KINDS: dict[str, Callable[[language_model.LanguageModel], Units]] = {
    "mlp": lambda loaded: MLPUnits(loaded.bridge),
    "mlp of the first layer": lambda loaded: MLPUnits(loaded.bridge, [0]),
    "sae": lambda loaded: SAEUnits(loaded.bridge, [an_sae("standard", 0)]),
    "basis": lambda loaded: BasisUnits(loaded.bridge, {0: _directions(), 1: _directions()}),
    "logits": lambda loaded: LogitUnits(loaded.bridge, [5, 9, 700]),
    "crate": lambda loaded: CrateUnits(loaded.bridge, [0]),
}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_run_to_the_logits_visits_as_one_that_stops_and_ends_with_the_models_logits(
    kind: str, family: str, tiny_model: Callable[[str], Path], crate_folder: Path
) -> None:
    """Gemma 2 caps its logits behind the unembedding."""
    folder = crate_folder if kind == "crate" else tiny_model(family)
    loaded = language_model.load_model(ModelSettings(name=str(folder)))
    units = _KINDS[kind](loaded)
    tokens = torch.randint(0, 2048, (2, 9), generator=torch.Generator().manual_seed(0))
    stopped: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    went_on: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    units.run(tokens, lambda *seen: stopped.append((seen[0], seen[1].clone(), seen[2].clone())))
    logits = units.run_to_logits(tokens, lambda *seen: went_on.append((seen[0], seen[1].clone(), seen[2].clone())))
    with torch.inference_mode():
        assert torch.equal(logits, loaded.bridge(tokens))
    assert [layer for layer, *_ in went_on] == [layer for layer, *_ in stopped] == list(units.layers)
    for (_, *once), (_, *again) in zip(stopped, went_on, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))
