"""The collector of a layer against lists kept whole, whatever the order, batches, shards and interruptions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.collect import bands
from atlas_builder.collect.background import BACKGROUND_TOKENS
from atlas_builder.collect.layer import LayerCollector, LayerShape, NotFiniteError
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.collect.write import finish
from atlas_builder.config import ExampleSettings
from tests.support import reference
from tests.support.atlases import contexts_of, digests
from tests.support.engines import DeviceCollector

Engine = type[LayerCollector]

UNITS, LENGTH, WIDTH, LAYER = 21, 6, 3, 5


class World:
    """Activations and inputs of one layer over some contexts, with many ties and zeros."""

    def __init__(self, contexts: int, seed: int, sides: int) -> None:
        chance = np.random.default_rng(seed)
        coarse = chance.choice(
            [-2.0, -0.5, 0.0, 2.0**-17, 2.0**-16, 0.25, 0.74, 0.75, 1.0, 1.03, 3.0], (contexts, LENGTH, UNITS)
        )
        fine = chance.normal(size=(contexts, LENGTH, UNITS))
        self.activations = np.where(np.arange(UNITS) % 2, coarse, fine).astype(np.float32)
        self.activations[:, :, 4] = -np.abs(self.activations[:, :, 4])  # never above zero
        self.inputs = chance.normal(size=(contexts, LENGTH, WIDTH)).astype(np.float32)
        self.shape = LayerShape(LAYER, UNITS, WIDTH, sides)
        self.contexts = contexts_of([LENGTH] * contexts)

    def show(self, collector: LayerCollector, contexts: list[int], head: int) -> None:
        """Run a batch, with `head` tokens in front that must count nowhere."""
        batch = np.array(contexts, np.int64)
        junk = np.full((len(batch), head, UNITS), 99.0, np.float32), np.zeros((len(batch), head, WIDTH), np.float32)
        activations = np.concatenate([junk[0], self.activations[batch]], axis=1)
        inputs = np.concatenate([junk[1], self.inputs[batch]], axis=1)
        collector.visit(batch, torch.from_numpy(inputs), torch.from_numpy(activations), head)


@pytest.fixture(scope="module", params=["loops", "device"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return {"loops": LayerCollector, "device": DeviceCollector}[request.param]


@contextmanager
def collector_in(
    engine: Engine, folder: Path, world: World, examples: ExampleSettings, executor: Executor
) -> Iterator[LayerCollector]:
    collector = engine(world.shape, examples, folder, executor, threads=2)
    try:
        yield collector
    finally:
        collector.close()


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def collect_whole(engine: Engine, world: World, examples: ExampleSettings, executor: Executor, folder: Path) -> Path:
    """All contexts at once, nothing special."""
    with collector_in(engine, folder / "whole", world, examples, executor) as collector:
        world.show(collector, list(range(len(world.inputs))), head=0)
        finish(collector, world.contexts, folder / "result")
    return folder / "result"


worlds = st.builds(World, st.integers(1, 40), st.integers(0, 10_000), st.sampled_from([1, 2]))
rules = st.builds(
    ExampleSettings,
    policy=st.sampled_from(["threshold", "robust", "robust", "top"]),
    per_unit=st.integers(5, 8),
    threshold=st.sampled_from([0.25, 0.75, 1.0]),
    share=st.sampled_from([0.25, 0.5, 1.0]),
    least=st.integers(1, 5),
    weakest=st.sampled_from([0.0, 0.1, 0.25]),
    window=st.just((2, 3)),
    bands=st.sampled_from([[0, 0.5, 0.9, 0.99, 0.999, 1], [0.25, 0.75], [0, 1]]),
    per_band=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**40),
)


@settings(max_examples=60, deadline=None)
@given(worlds, rules)
def test_what_is_collected_is_what_lists_kept_whole_say(
    engine: Engine, threads: Executor, world: World, rule: ExampleSettings
) -> None:
    with TemporaryDirectory() as scratch:
        layer = CollectedLayer(LAYER, collect_whole(engine, world, rule, threads, Path(scratch)))
        for unit in range(UNITS):
            check_examples(world, rule, layer, unit)
            check_statistics(world, layer, unit)
            check_bands(world, rule, layer, unit)
        check_background(world, rule, layer)


def check_examples(world: World, rule: ExampleSettings, layer: CollectedLayer, unit: int) -> None:
    found = layer.of(unit)
    wanted: list[tuple[int, int]] = []
    for sign in (1, -1)[: world.shape.signs]:
        keys = (sign * world.activations[:, :, unit]).max(axis=1).tolist()
        chosen = reference.select(keys, rule_of(rule), LAYER, unit, sign)
        wanted += [(context, sign) for context in chosen]
        check_selection(keys, rule, chosen, layer.selection[unit, 0 if sign > 0 else 1])
    assert list(zip(found["context"].tolist(), found["sign"].tolist(), strict=True)) == wanted
    for example in found:
        course = world.activations[example["context"], :, unit]
        position = int((example["sign"] * course).argmax())
        assert (example["position"], example["value"]) == (position, course[position])
        np.testing.assert_array_equal(layer.inputs[example["row"]], world.inputs[example["context"], position])
        np.testing.assert_array_equal(example["window"], window_of(course, position))


def rule_of(rule: ExampleSettings) -> reference.Rule:
    return reference.Rule(**{field.name: getattr(rule, field.name) for field in fields(reference.Rule)})


def check_selection(keys: list[float], rule: ExampleSettings, chosen: list[int], found: np.void) -> None:
    border, _ = reference.borders(keys, rule_of(rule))
    reach = sum(key >= border for key in keys if key > 0)
    robust = reference.robust_maximum(keys) if rule.policy == "robust" else max(0.0, *keys)
    assert found["robust"] == robust
    if rule.policy == "top" or reach < rule.per_unit:
        assert found["reach"] == reach
    else:  # those of the bin in which the border is may count or not
        certain, possible = (sum(key >= border * off for key in keys if key > 0) for off in (1.25, 0.8))
        assert max(certain, rule.per_unit) <= found["reach"] <= max(possible, rule.per_unit)
    assert found["filled"] == (reach > rule.per_unit if rule.policy == "top" else len(chosen) > reach)


def window_of(course: np.ndarray, position: int) -> list[float]:
    places = range(position - 2, position + 4)
    return [float(course[place]) if 0 <= place < LENGTH else math.nan for place in places]


def check_statistics(world: World, layer: CollectedLayer, unit: int) -> None:
    values = world.activations[:, :, unit].ravel().astype(np.float64)
    found = [float(part[unit]) for part in layer.moments]
    wanted = [values.max(), values.min(), values.mean(), values.std(), (values > 0).mean()]
    assert found == pytest.approx([float(value) for value in wanted], rel=1e-9, abs=1e-9)
    assert layer.histogram[unit].sum() == layer.tokens == values.size


def check_bands(world: World, rule: ExampleSettings, layer: CollectedLayer, unit: int) -> None:
    activations = world.activations[:, :, unit]
    edges = reference.band_edges(activations.ravel().tolist(), rule.bands)
    found = layer.bands[layer.bands["unit"] == unit]
    if edges is None:
        assert not len(found)
        assert np.isnan(layer.band_edges[unit]).all()
        return
    assert layer.band_edges[unit].tolist() == edges
    tokens = [
        (float(activations[context, position]), context, position)
        for context, position in itertools.product(range(len(activations)), range(LENGTH))
    ]
    drawn = reference.draw_bands(tokens, edges, rule.per_band * bands.DRAWN, rule.seed, LAYER, unit)
    for band, wanted in enumerate(drawn):
        these = found[found["band"] == band]
        assert list(zip(these["context"].tolist(), these["position"].tolist(), strict=True)) == wanted
        assert these["rank"].tolist() == list(range(len(wanted)))
    shown = layer.bands["rank"] < rule.per_band
    assert len(layer.band_windows) == shown.sum()
    for token, window in zip(layer.bands[shown], layer.band_windows, strict=True):
        course = world.activations[token["context"], :, token["unit"]]
        assert token["value"] == course[token["position"]]
        np.testing.assert_array_equal(window, window_of(course, token["position"]))


def check_background(world: World, rule: ExampleSettings, layer: CollectedLayer) -> None:
    wanted = reference.background([LENGTH] * len(world.inputs), BACKGROUND_TOKENS, rule.seed, LAYER)
    assert layer.background_tokens.tolist() == [context * LENGTH + position for context, position in wanted]
    np.testing.assert_array_equal(layer.background, [world.inputs[place] for place in wanted])


@settings(max_examples=60, deadline=None)
@given(worlds, rules, st.randoms(use_true_random=False), st.integers(1, 9), st.integers(1, 4), st.data())
def test_order_batches_shards_and_checkpoints_leave_no_trace(
    engine: Engine,
    threads: Executor,
    world: World,
    rule: ExampleSettings,
    chance: Any,
    batch: int,
    shards: int,
    data: st.DataObject,
) -> None:
    order = list(range(len(world.inputs)))
    chance.shuffle(order)
    with TemporaryDirectory() as scratch:
        wanted = digests(collect_whole(engine, world, rule, threads, Path(scratch)))
        merged = Path(scratch) / "merged"
        with collector_in(engine, merged, world, rule, threads) as together:
            for shard in range(shards):
                folder = Path(scratch) / f"shard-{shard}"
                with stopped_and_started(
                    engine, world, rule, threads, order[shard::shards], batch, folder, data
                ) as one:
                    together.merge(one)
            finish(together, world.contexts, Path(scratch) / "sharded")
        assert digests(Path(scratch) / "sharded") == wanted


@contextmanager
def stopped_and_started(
    engine: Engine,
    world: World,
    rule: ExampleSettings,
    executor: Executor,
    contexts: list[int],
    batch: int,
    folder: Path,
    data: st.DataObject,
) -> Iterator[LayerCollector]:
    """Show contexts in batches; now and then forget everything since the last checkpoint."""
    saved, at = None, 0
    collector = engine(world.shape, rule, folder, executor, threads=2)
    start = 0
    try:  # a draw may end the example
        while start < len(contexts):
            world.show(collector, contexts[start : start + batch], head=start % 3)
            start += batch
            what = data.draw(st.sampled_from(["go on", "go on", "checkpoint", "stop"]))
            if what == "checkpoint":
                saved, at = folder / f"{start}.npz", start
                collector.save(saved)
                collector.clean()
            elif what == "stop" and saved is not None:
                collector.close()
                collector = engine(world.shape, rule, folder, executor, 2, saved)
                start = at if data.draw(st.booleans()) else start
                if start != at:  # stopped twice: what came after the checkpoint is shown again
                    world.show(collector, contexts[at:start], head=1)
        yield collector
    finally:
        collector.close()


def test_pools_grow_where_more_must_be_kept_than_is_usual(engine: Engine, threads: Executor, tmp_path: Path) -> None:
    """Contexts whose activation rises as their chance does: none beats another, so all must be kept."""
    rule = ExampleSettings(policy="threshold", per_unit=1, per_band=1, threshold=0.01, window=(2, 3))
    world = World(600, seed=1, sides=1)
    order = sorted(range(600), key=lambda context: reference.priority(0, LAYER, 1, context))
    world.activations[:, :, 1] = -1
    for rank, context in enumerate(order):
        world.activations[context, 2, 1] = 1 + rank / 600
    tokens = [(context, position) for context in range(600) for position in range(LENGTH)]
    tokens.sort(key=lambda token: reference.token_priority(0, LAYER, 2, *token))
    for rank, (context, position) in enumerate(tokens):
        world.activations[context, position, 2] = 1 + rank / len(tokens)
    layer = CollectedLayer(LAYER, collect_whole(engine, world, rule, threads, tmp_path))
    for unit in (1, 2):
        check_examples(world, rule, layer, unit)
        check_bands(world, rule, layer, unit)


def test_memory_does_not_grow_with_the_corpus(engine: Engine, threads: Executor, tmp_path: Path) -> None:
    """With every context near the maximum, a pool keeps about k (1 + ln(n / k)) of n, in RAM and on disk."""
    rule = ExampleSettings(policy="threshold", per_unit=20, per_band=4, threshold=0.75, window=(2, 3))
    chance = np.random.default_rng(0)
    kept, logged = [], []
    with collector_in(engine, tmp_path, World(1, 0, 1), rule, threads) as collector:
        for number in range(40):
            batch = np.arange(number * 200, (number + 1) * 200)
            activations = (0.8 + 0.2 * chance.random((200, LENGTH, UNITS))).astype(np.float32)
            collector.visit(batch, torch.zeros(200, LENGTH, WIDTH), torch.from_numpy(activations), 0)
            if number in (3, 39):
                collector.thin()
                kept.append(collector.top_candidates.fill.mean())
                logged.append(collector.windows.rows)
    assert kept[1] < 20 * (1 + np.log(8000 / 20)) * 1.2
    assert kept[1] < kept[0] * 2
    assert logged[1] < 3 * UNITS * kept[1] + 5000


def test_an_activation_that_is_not_a_number_names_its_context(
    engine: Engine, threads: Executor, tmp_path: Path
) -> None:
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        world = World(5, 0, 1)
        world.activations[3, 2, 17] = bad
        with collector_in(engine, tmp_path / str(bad), world, ExampleSettings(window=(2, 3)), threads) as collector:
            with pytest.raises(NotFiniteError) as caught:
                world.show(collector, [4, 2, 3, 1], head=1)
            assert (caught.value.context, caught.value.units.tolist()) == (3, [17])
            assert caught.value.too_large == bool(np.isfinite(bad))


def test_a_draw_is_uniform_within_its_band(engine: Engine, threads: Executor, tmp_path: Path) -> None:
    """Tokens of one activation: each of 600 is among a unit's first 4 with equal chance, and blocks differ."""
    world = World(100, 0, 1)
    drawn = np.zeros(600)
    for seed in range(40):
        world.activations[:] = 1.0
        rule = ExampleSettings(seed=seed, window=(2, 3), bands=[0, 1])
        layer = CollectedLayer(LAYER, collect_whole(engine, world, rule, threads, tmp_path / str(seed)))
        shown = layer.bands[layer.bands["rank"] < 4]
        first, other = (
            set((shown[shown["unit"] == u]["context"] * LENGTH + shown[shown["unit"] == u]["position"]).tolist())
            for u in (0, 16)
        )
        assert first != other
        for unit in (0, 16):
            these = shown[shown["unit"] == unit]
            np.add.at(drawn, these["context"] * LENGTH + these["position"], 1)
    # 40 seeds × 2 blocks × 4 tokens fall on 600 places: a χ² of 599 degrees of freedom.
    expected = 320 / 600
    assert ((drawn - expected) ** 2 / expected).sum() < 599 + 5 * math.sqrt(2 * 599)
