"""What masking a token does, compared with runs of whole contexts, one token masked in each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import Configuration
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe import ablation, importance_parts
from atlas_builder.describe.ablation import Masking, Wanted
from atlas_builder.describe.results import Described
from atlas_builder.errors import OutOfMemoryError
from atlas_builder.models import language_model, memory
from atlas_builder.models.packing import PLAIN, Packing, Rows, at_places
from atlas_builder.pipeline.build import build
from atlas_builder.records.record import LayerRecords
from atlas_builder.records.schema import Record
from atlas_builder.records.stages import Stages
from atlas_builder.units.base import Units
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, digests

TOLERANCE = 1e-4

Importance = Literal["none", "central", "shown"]


@dataclass(frozen=True)
class Atlas:
    """A tiny atlas as far as it was built."""

    config: Configuration
    work: Path

    @property
    def collected(self) -> Collected:
        return Collected(self.work / "collect")

    def described(self, layer: int) -> Described:
        return Described(layer, self.work / "describe")

    def explained(self, layer: CollectedLayer) -> list[int]:
        importance = self.described(layer.layer).importance
        return [example for example in range(len(layer.examples)) if importance.of(example) is not None]

    def records(self, layer: CollectedLayer) -> list[Record]:
        stages = Stages(*(self.work / stage for stage in ("collect", "cluster", "describe", "link")))
        made = LayerRecords(stages, layer, self.config)
        return [made.record(unit) for unit in range(layer.units)]


@pytest.fixture(scope="module")
def atlas_of(
    configure: Configure, pool: Executor, tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Importance], Atlas]:
    """An atlas of a family of models, collected and clustered once, described as asked for; few tokens are masked."""
    folder = tmp_path_factory.mktemp("importance")

    def make(family: str, importance: Importance) -> Atlas:
        chosen = configure(
            model={"name": str(tiny_model(family))},
            corpus={"max_documents": 12},
            examples={"window": (9, 2)},
            describe={"importance": importance},
        )
        output = folder / f"{family}-{importance}"
        if not work_folder(output).exists():
            build(chosen, folder / family, until="cluster", executor=pool)
            shutil.copytree(work_folder(folder / family), work_folder(output))
        build(chosen, output, until="link", executor=pool)
        return Atlas(chosen, work_folder(output))

    return make


# The numbers.


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma", "gemma2"])
def test_importance_is_what_whole_contexts_lose_with_one_token_masked(
    family: str, atlas_of: Callable[[str, Importance], Atlas]
) -> None:
    atlas = atlas_of(family, "central")
    loaded = language_model.load_model(atlas.config.model)
    units = open_units(loaded, atlas.config)
    compared = 0
    for layer in atlas.collected.layers:
        for number in atlas.explained(layer)[::7]:
            found = atlas.described(layer.layer).importance.of(number)
            assert found is not None
            expected = _slow(loaded, units, atlas.collected.contexts, layer.layer, layer.examples[number], len(found))
            np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
            compared += int((~np.isnan(expected)).sum())
    assert compared > 30


def _slow(
    loaded: language_model.LanguageModel, units: Units, read: Contexts, layer: int, example: Any, tokens: int
) -> np.ndarray:
    """I(k) of an example, by running its whole context once for each token."""
    text = read.text_of(int(example["context"])).astype(np.int64).tolist()
    head = [] if loaded.bos is None else [loaded.bos]

    def activation(text: list[int]) -> float:
        found: list[float] = []

        def visit(at: int, inputs: Tensor, activations: Tensor) -> None:
            if at == layer:
                found.append(float(activations[0, len(head) + int(example["position"]), int(example["unit"])]))

        units.run(torch.tensor([head + text]), visit)
        return found[0]

    whole = activation(text)
    assert whole == pytest.approx(float(example["value"]), rel=1e-3)
    importance = np.full(tokens, np.nan)
    for back in range(min(tokens, int(example["position"]) + 1)):
        place = int(example["position"]) - back
        importance[tokens - 1 - back] = 1 - activation([*text[:place], loaded.mask, *text[place + 1 :]]) / whole
    return importance


class _Rotor:
    """Two layers of units that respond to all tokens up to theirs, each at its place; the last one is dead."""

    kind, activation, layers, units = "mlp", "none", (0, 2), 3

    def count(self, layer: int) -> int:
        return self.units

    def has_negative(self, layer: int) -> bool:
        return True

    def read_weights(self, layer: int) -> Tensor:
        raise AssertionError("masking reads no weights")

    def write_weights(self, layer: int) -> Tensor:
        raise AssertionError("masking reads no weights")

    def __init__(self, obeys: bool = True) -> None:
        self.obeys = obeys

    def run(self, tokens: Tensor, visit: Callable[..., None], last: int | None = None, rows: Rows = PLAIN) -> None:
        new = tokens.shape[1]
        if rows.cache is not None:
            past = tokens[:, None, :, None].double()
            tokens = rows.cache.update(past, past, 0)[0][:, 0, :, 0]
        for layer in self.layers:
            if last is None or layer <= last:
                seen = self.activations(tokens, layer, rows.packing if self.obeys else None)[:, -new:]
                visit(layer, None, at_places(seen, rows.at))

    def run_to_logits(self, tokens: Tensor, visit: Callable[..., None]) -> Tensor:
        raise AssertionError("masking needs no logits")

    def activations(self, tokens: Tensor, layer: int, packing: Packing | None = None) -> Tensor:
        pace = torch.tensor([1.0, 0.7, 0.0])
        place = torch.arange(1, tokens.shape[1] + 1) if packing is None else packing.places + 1
        turns = torch.sin((tokens * place)[:, :, None] * pace * (layer + 1))
        felt = torch.where(pace > 0, 1.5 + turns, 0.0)
        return felt.cumsum(1) if packing is None else packing.visible.to(felt) @ felt


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_examples_that_run_together_are_explained_as_each_alone(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=7), min_size=1, max_size=4))
    bos, reach = data.draw(st.sampled_from([None, 0])), data.draw(st.integers(0, 4))
    places = [(context, place) for context, text in enumerate(texts) for place in range(len(text))]
    looks = st.tuples(st.sampled_from(_Rotor.layers), st.integers(0, 2), st.sampled_from(places))
    rows = [(layer, unit, *place) for layer, unit, place in data.draw(st.lists(looks, max_size=12))]
    wanted = np.array(rows, dtype=Wanted)
    rotor, mask = _Rotor(obeys=data.draw(st.booleans())), 1
    masker = Masking(rotor, _contexts(texts, bos), mask, reach)
    batches = masker.batches(wanted)
    assert sorted(int(example) for batch in batches for example in batch) == list(range(len(rows)))
    for batch in batches:
        for example, found in zip(batch, masker.importance(wanted, batch), strict=True):
            layer, unit, context, position = rows[example]
            text = ([] if bos is None else [bos]) + texts[context][: position + 1]
            whole = rotor.activations(torch.tensor([text]), layer)[0, -1, unit]
            for back, value in enumerate(reversed(found.tolist())):
                if back > position or whole == 0:
                    assert np.isnan(value)
                else:
                    masked = [*text[: len(text) - 1 - back], mask, *text[len(text) - back :]]
                    left = rotor.activations(torch.tensor([masked]), layer)[0, -1, unit]
                    assert value == pytest.approx(float(1 - left / whole), rel=TOLERANCE, abs=TOLERANCE)


def _contexts(texts: list[list[int]], bos: int | None) -> Contexts:
    starts = np.cumsum([0, *map(len, texts)])
    nowhere = np.zeros(len(texts), np.int32)
    return Contexts(np.concatenate(texts).astype(np.int32), starts, nowhere, nowhere, ["text"], bos, "")


def test_a_unit_that_is_silent_owes_nothing_to_any_token() -> None:
    wanted = np.array([(0, 2, 0, 1), (0, 0, 0, 1)], dtype=Wanted)
    masker = Masking(_Rotor(), _contexts([[4, 5]], 0), 1, 1)
    silent, heard = masker.importance(wanted, np.arange(2))
    assert np.isnan(silent).all()
    assert np.isfinite(heard).all()


# What is explained, and how it is published.


def test_nothing_is_explained_where_nothing_is_asked_for(atlas_of: Callable[[str, Importance], Atlas]) -> None:
    atlas = atlas_of("gpt2", "none")
    assert not list((atlas.work / "describe").rglob("*importance*"))
    for layer in atlas.collected.layers:
        assert atlas.explained(layer) == []
        examples = [example for record in atlas.records(layer) for example in record["examples"]]
        assert examples
        assert not any("importance" in example for example in examples)


def test_central_examples_alone_are_explained_where_these_are_asked_for(
    atlas_of: Callable[[str, Importance], Atlas],
) -> None:
    atlas = atlas_of("gpt2", "central")
    for layer in atlas.collected.layers:
        central = Clustered(layer.layer, atlas.work / "cluster").behaviours["central"]
        assert atlas.explained(layer) == sorted(central)
        for record in atlas.records(layer):
            explained = [place for place, example in enumerate(record["examples"]) if "importance" in example]
            assert explained == sorted(behaviour["central"] for behaviour in record["behaviours"])


def test_every_example_shown_is_explained_where_these_are_asked_for(
    atlas_of: Callable[[str, Importance], Atlas],
) -> None:
    atlas, fewer = atlas_of("gpt2", "shown"), atlas_of("gpt2", "central")
    for layer in atlas.collected.layers:
        explained = 0
        for record in atlas.records(layer):
            of_bands = {place for band in record["bands"] for place in band["examples"]}
            for place, example in enumerate(record["examples"]):
                assert ("importance" in example) == (place not in of_bands)
                if place not in of_bands:
                    assert len(example["importance"]) == example["key"] + 1
                    explained += 1
        assert explained == len(atlas.explained(layer)) > len(fewer.explained(layer))
        for number in fewer.explained(layer):  # whoever else is explained
            one, other = (some.described(layer.layer).importance.of(number) for some in (atlas, fewer))
            assert one is not None
            assert other is not None
            np.testing.assert_allclose(one, other, atol=TOLERANCE, rtol=TOLERANCE)


def test_what_cannot_be_measured_is_null_in_a_record(
    atlas_of: Callable[[str, Importance], Atlas], pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = _undescribed(atlas_of("gpt2", "central"), tmp_path / "site")
    whole_run = MLPUnits.run

    def silent(self: MLPUnits, tokens: Tensor, visit: Callable[..., None], *rest: Any, **more: Any) -> None:
        def quieted(layer: int, inputs: Tensor, fired: Tensor) -> None:
            visit(layer, inputs, torch.zeros_like(fired))

        whole_run(self, tokens, quieted, *rest, **more)

    monkeypatch.setattr(MLPUnits, "run", silent)
    build(again.config, tmp_path / "site", until="link", executor=pool)
    for layer in again.collected.layers:
        examples = [example for record in again.records(layer) for example in record["examples"]]
        explained = [example for example in examples if "importance" in example]
        assert explained
        for example in explained:
            assert example["importance"] == [None] * (example["key"] + 1)


def _undescribed(atlas: Atlas, output: Path) -> Atlas:
    """A copy of an atlas that is clustered but not described yet."""
    shutil.copytree(atlas.work, work_folder(output))
    for stage in ("describe", "link"):
        shutil.rmtree(work_folder(output) / stage)
    return Atlas(atlas.config, work_folder(output))


# Runs that do not go as planned.


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes_and_repeats_no_part(
    atlas_of: Callable[[str, Importance], Atlas], pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BATCH_TOKENS", 256)
    monkeypatch.setattr(importance_parts, "_BATCHES_A_FILE", 3)
    monkeypatch.setattr(ablation, "_TIMES", 1)
    atlas = atlas_of("gpt2", "central")
    explain_batch = Masking.importance
    batches: list[tuple[int, ...]] = []
    stop_after = 0

    def counted(self: Masking, wanted: np.ndarray, examples: np.ndarray) -> np.ndarray:
        if stop_after and len(batches) == stop_after:
            raise KeyboardInterrupt
        batches.append(tuple(examples.tolist()))
        return explain_batch(self, wanted, examples)

    monkeypatch.setattr(Masking, "importance", counted)
    whole = _undescribed(atlas, tmp_path / "whole")
    build(whole.config, tmp_path / "whole", until="describe", executor=pool)
    every = batches.copy()
    assert len(every) > 12

    stopped = _undescribed(atlas, tmp_path / "stopped")
    batches.clear()
    stop_after = 7  # two parts are done, and a batch of the third
    with pytest.raises(KeyboardInterrupt):
        build(stopped.config, tmp_path / "stopped", until="describe", executor=pool)
    assert not (stopped.work / "describe").exists()
    batches.clear()
    stop_after = 0
    build(stopped.config, tmp_path / "stopped", until="describe", executor=pool)
    assert batches == every[6:]
    assert digests(stopped.work / "describe") == digests(whole.work / "describe")


def test_a_batch_that_does_not_fit_is_parted_and_nothing_is_lost(
    atlas_of: Callable[[str, Importance], Atlas], pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds the runs of one context, and says so after a layer has been seen."""
    atlas = atlas_of("gpt2", "central")
    whole_run, refused = MLPUnits.run, 0

    def small_device(
        self: MLPUnits, tokens: Tensor, visit: Callable[..., None], last: int | None = None, rows: Rows = PLAIN
    ) -> None:
        count, slots = tokens.shape

        def narrow(layer: int, inputs: Tensor, activations: Tensor) -> None:
            nonlocal refused
            visit(layer, inputs, activations)
            if rows.packing is not None and count > slots // 2 + 1:
                refused += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

        whole_run(self, tokens, narrow, last, rows)

    monkeypatch.setattr(MLPUnits, "run", small_device)
    again = _undescribed(atlas, tmp_path / "site")
    build(again.config, tmp_path / "site", until="describe", executor=pool)
    assert refused
    for layer in atlas.collected.layers:
        assert again.explained(layer) == atlas.explained(layer)
        for number in atlas.explained(layer):
            one, other = (some.described(layer.layer).importance.of(number) for some in (atlas, again))
            assert one is not None
            assert other is not None
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_context_whose_masked_runs_do_not_fit_at_all_is_said(
    atlas_of: Callable[[str, Importance], Atlas], pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    again = _undescribed(atlas_of("gpt2", "central"), tmp_path / "site")
    monkeypatch.setattr(MLPUnits, "run", no_room)
    with pytest.raises(OutOfMemoryError, match=r"describe\.importance none"):
        build(again.config, tmp_path / "site", until="describe", executor=pool)
