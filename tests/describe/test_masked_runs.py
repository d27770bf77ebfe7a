"""Runs with a masked token, packed two to a row, compared with whole texts run one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atlas_builder.config import ModelSettings
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.ablation import Masking, Wanted
from atlas_builder.describe.masked_runs import RowLayout
from atlas_builder.models.language_model import load_model
from atlas_builder.units.base import Units
from atlas_builder.units.basis import BasisUnits, Directions
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.logits import LogitUnits
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.sae import SAEUnits
from tests.support.families import FAMILIES, save_family
from tests.support.saes import an_sae

_MASK, _REACH = 1, 6
_TOLERANCE = 1e-4
_PLACES = ((0, 23), (1, 17), (0, 17), (2, 12), (2, 3), (1, 0))
"""Contexts and key tokens: far on, in the middle, two of one context, with few before, the first."""

_PACKED = (
    "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "falcon", "llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3",
    "phi", "phi3", "olmo3", "cohere2", "starcoder2", "glm4", "nemotron",
)  # fmt: skip
_UNPACKED = ("gpt_neo", "bloom", "mpt")
"""Those that make their own masks, or bias attention by places of rows."""


def _contexts(bos: int | None) -> Contexts:
    chance = np.random.default_rng(0)
    tokens = chance.integers(3, 2048, 72).astype(np.int32)
    nowhere = np.zeros(3, np.int32)
    return Contexts(tokens, np.array([0, 24, 48, 72]), nowhere, nowhere, ["text"], bos, "")


def _compare(units: Units, bos: int | None, causal: bool = True) -> Masking:
    """Compare a few units of each layer at some key tokens with whole texts, each run alone."""
    read = _contexts(bos)
    masking = Masking(units, read, _MASK, _REACH, causal=causal)
    wanted = np.array(
        [(layer, unit, *place) for place in _PLACES for layer in units.layers for unit in (0, 5)], dtype=Wanted
    )
    for batch in masking.batches(wanted):
        for example, found in zip(wanted[batch], masking.importance(wanted, batch), strict=True):
            importance, scale = _slow(units, read, example)
            # Rounding is relative to the layer's largest activation, and importance to the unit's own.
            np.testing.assert_allclose(found, importance, rtol=max(_TOLERANCE, scale * 1e-5), atol=_TOLERANCE)
    return masking


def _slow(units: Units, read: Contexts, example: Any) -> tuple[np.ndarray, float]:
    """The importance of tokens, and how many times the unit's activation the largest of the layer is."""
    head = [] if read.bos is None else [read.bos]
    text = read.text_of(int(example["context"])).tolist()

    def activation(text: list[int]) -> tuple[float, float]:
        seen: list[tuple[float, float]] = []

        def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
            if layer == example["layer"]:
                at_key = activations[0, len(head) + int(example["position"])]
                seen.append((float(at_key[int(example["unit"])]), float(activations.abs().max())))

        units.run(torch.tensor([head + text]), visit)
        return seen[0]

    without, largest = activation(text)
    importance = np.full(_REACH + 1, np.nan)
    for place in range(max(0, int(example["position"]) - _REACH), int(example["position"]) + 1):
        masked, _ = activation([*text[:place], _MASK, *text[place + 1 :]])
        importance[_REACH + place - int(example["position"])] = 1 - masked / without if without else np.nan
    return importance, largest / abs(without) if without else 0.0


@pytest.mark.parametrize("family", [*_PACKED, *_UNPACKED])
def test_importance_is_what_whole_texts_lose_in_models_of_all_families(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path)
    loaded = load_model(ModelSettings(name=str(tmp_path)))
    masking = _compare(MLPUnits(loaded.bridge, FAMILIES[family].layers), bos=0)
    wanted = np.array([(0, 0, 0, 23)], dtype=Wanted)
    assert masking.way(wanted) == ("trimmed" if family in _PACKED else "unpacked")


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_that_reads_in_both_directions_loses_what_whole_texts_lose(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path)
    loaded = load_model(ModelSettings(name=str(tmp_path)))
    assert not loaded.is_causal
    _compare(MLPUnits(loaded.bridge), bos=None, causal=False)


@pytest.mark.parametrize("kind", ["mlp", "sae", "topk", "stream", "basis", "logits", "crate"])
@pytest.mark.parametrize("bos", [None, 0])
def test_units_of_every_kind_are_packed(kind: str, bos: int | None, gpt2_folder: Path, crate_folder: Path) -> None:
    loaded = load_model(ModelSettings(name=str(crate_folder if kind == "crate" else gpt2_folder)))
    masking = _compare(_units(kind, loaded.bridge), bos)
    assert masking.way(np.array([(0, 0, 0, 23)], dtype=Wanted)) == "trimmed"


def _units(kind: str, bridge: Any) -> Units:
    if kind == "crate":
        return CrateUnits(bridge)
    if kind == "logits":
        return LogitUnits(bridge, list(range(40, 50)))
    if kind == "basis":
        chance = torch.Generator().manual_seed(0)
        shapes = (16,), (16, 8), (8, 16), (8, 16)
        drawn = [Directions(*(torch.randn(shape, generator=chance) for shape in shapes)) for _ in range(2)]
        return BasisUnits(bridge, dict(enumerate(drawn)))
    if kind == "mlp":
        return MLPUnits(bridge)
    if kind == "stream":
        return SAEUnits(bridge, [an_sae("standard", layer, "hook_resid_post") for layer in range(2)])
    return SAEUnits(bridge, [an_sae("topk" if kind == "topk" else "jumprelu", layer) for layer in range(2)])


@given(masked=st.integers(1, 40))
def test_each_run_is_packed_once_and_rows_have_no_slot_to_spare(masked: int) -> None:
    layout = RowLayout.of(masked)
    runs = sorted(zip(layout.start.ravel().tolist(), layout.place.ravel().tolist(), strict=True))
    assert runs == [(start, place) for start in range(masked) for place in range(start, masked)]


@given(masked=st.integers(1, 12), spare=st.lists(st.integers(0, 9), min_size=1, max_size=4), data=st.data())
def test_a_packed_token_sees_the_text_before_its_run_and_its_run_up_to_itself(
    masked: int, spare: list[int], data: st.DataObject
) -> None:
    ends = np.array(spare) + masked - 1
    texts = torch.arange(100, 100 + len(ends) * (ends.max() + 1)).reshape(len(ends), -1)
    layout, cached = RowLayout.of(masked), int(ends.max())
    rows, packing, at = layout.pack(texts, torch.from_numpy(ends), _MASK, cached)
    per_key = len(layout.start)
    seen = set()
    for row, slot in np.ndindex(*rows.shape):
        key = row // per_key
        held = torch.cat([texts[key, :cached], rows[row]])[packing.visible[row, slot]].tolist()
        places = packing.places[row][packing.visible[row, slot]].tolist()
        assert places == list(range(int(packing.positions[row, slot]) + 1))
        start = held.index(_MASK)
        expected = texts[key, : len(held)].tolist()
        assert held == [*expected[:start], _MASK, *expected[start + 1 :]]
        if slot in at[row].tolist():
            assert len(held) == ends[key] + 1
            seen.add((key, start))
    assert seen == {(key, end - back) for key, end in enumerate(ends.tolist()) for back in range(masked)}
    of_key = data.draw(st.integers(0, len(ends) - 1))
    starts = layout.start[np.arange(per_key)[:, None], at[of_key * per_key :][:per_key].numpy()].ravel()
    assert starts[layout.order].tolist() == list(range(masked))
