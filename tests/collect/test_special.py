"""Tokens of a chat template in the pass over a layer: they count nowhere, against lists kept whole without them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.collect import bands
from atlas_builder.collect.layer import LayerCollector, LayerShape
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.collect.write import finish
from atlas_builder.config import ExampleSettings
from tests.support import reference
from tests.support.atlases import contexts_of, digests

UNITS, LENGTH, WIDTH, LAYER = 19, 7, 3, 2


class Talk:
    """Activations and inputs over some contexts, the largest of all at special tokens, and NaN at some."""

    def __init__(self, contexts: int, seed: int, share: float) -> None:
        chance = np.random.default_rng(seed)
        self.special = chance.random((contexts, LENGTH)) < share
        self.special[0, 0] = False  # one token counts at least
        self.activations = chance.normal(size=(contexts, LENGTH, UNITS)).astype(np.float32)
        self.activations[:, :, ::2] = np.round(self.activations[:, :, ::2], 1)
        self.activations[self.special] *= 1000
        self.inputs = chance.normal(size=(contexts, LENGTH, WIDTH)).astype(np.float32)
        self.contexts = contexts_of([LENGTH] * contexts)
        self.counted = [(int(context), int(position)) for context, position in np.argwhere(~self.special)]

    def collect(self, rule: ExampleSettings, folder: Path, batches: list[list[int]], shards: int = 1) -> dict[str, str]:
        """The digests of what is collected in some batches, by so many shards."""
        shape = LayerShape(LAYER, UNITS, WIDTH, 2)
        with ThreadPoolExecutor(2) as threads:
            parts = [LayerCollector(shape, rule, folder / str(shard), threads, 2) for shard in range(shards)]
            for number, batch in enumerate(batches):
                head = number % 2
                front = np.full((len(batch), head, UNITS), 99.0, np.float32), np.zeros((len(batch), head, WIDTH), "f4")
                activations, inputs = (
                    np.concatenate([first, every[batch]], axis=1)
                    for first, every in zip(front, (self.activations, self.inputs), strict=True)
                )
                parts[number % shards].visit(
                    np.array(batch),
                    torch.from_numpy(inputs),
                    torch.from_numpy(activations),
                    head,
                    None,
                    self.special[batch],
                )
            for other in parts[1:]:
                parts[0].merge(other)
            finish(parts[0], self.contexts, folder / "result")
            for part in parts:
                part.close()
        return digests(folder / "result")


talks = st.builds(Talk, st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.9]))
rules = st.builds(
    ExampleSettings,
    policy=st.sampled_from(["threshold", "robust", "top"]),
    per_unit=st.integers(5, 8),
    least=st.integers(1, 5),
    window=st.just((2, 3)),
    per_band=st.sampled_from([0, 2]),
    seed=st.integers(0, 1000),
)


@settings(max_examples=40, deadline=None)
@given(talks, rules)
def test_all_but_special_tokens_are_examples_and_count(talk: Talk, rule: ExampleSettings) -> None:
    with TemporaryDirectory() as scratch:
        talk.collect(rule, Path(scratch), [list(range(len(talk.inputs)))])
        layer = CollectedLayer(LAYER, Path(scratch) / "result")
        for unit in range(UNITS):
            _check_unit(talk, rule, layer, unit)
        chances = sorted(talk.counted, key=lambda place: reference.background_priority(rule.seed, LAYER, *place))[:1024]
        assert layer.background_tokens.tolist() == [context * LENGTH + position for context, position in chances]
        np.testing.assert_array_equal(layer.background, [talk.inputs[place] for place in chances])


def _check_unit(talk: Talk, rule: ExampleSettings, layer: CollectedLayer, unit: int) -> None:
    values = [float(talk.activations[place][unit]) for place in talk.counted]
    array = np.array(values)
    wanted = [float(part) for part in (array.max(), array.min(), array.mean(), array.std(), (array > 0).mean())]
    np.testing.assert_allclose([part[unit] for part in layer.moments], wanted, rtol=1e-9, atol=1e-9)
    assert layer.histogram[unit].sum() == layer.tokens == len(values)
    known = reference.Rule(**{field.name: getattr(rule, field.name) for field in fields(reference.Rule)})
    expected: list[tuple[int, int, int]] = []
    for sign in (1, -1):
        courses = np.where(talk.special, -np.inf, sign * talk.activations[:, :, unit])
        chosen = reference.select(courses.max(axis=1).tolist(), known, LAYER, unit, sign)
        expected += [(context, sign, int(courses[context].argmax())) for context in chosen]
    found = layer.of(unit)
    assert [
        tuple(map(int, row)) for row in zip(found["context"], found["sign"], found["position"], strict=True)
    ] == expected
    edges = reference.band_edges(values, rule.bands)
    tokens = [(value, *place) for value, place in zip(values, talk.counted, strict=True)]
    if edges is not None:
        drawn = reference.draw_bands(tokens, edges, rule.per_band * bands.DRAWN, rule.seed, LAYER, unit)
        rows = layer.bands[layer.bands["unit"] == unit]
        assert layer.band_edges[unit].tolist() == edges
        assert list(zip(rows["context"].tolist(), rows["position"].tolist(), strict=True)) == list(
            itertools.chain(*drawn)
        )


@settings(max_examples=30, deadline=None)
@given(talks, rules, st.randoms(use_true_random=False), st.integers(1, 9), st.integers(1, 4))
def test_batches_and_shards_leave_no_trace(
    talk: Talk, rule: ExampleSettings, chance: Any, size: int, shards: int
) -> None:
    order = list(range(len(talk.inputs)))
    chance.shuffle(order)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        whole = talk.collect(rule, Path(one), [list(range(len(order)))])
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        assert talk.collect(rule, Path(other), batches, shards) == whole
