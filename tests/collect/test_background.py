"""The background of a layer against all tokens sorted, and against a second reading of every kind of unit."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.collect import background
from atlas_builder.collect.background import BACKGROUND_TOKENS, Background
from atlas_builder.collect.results import Collected
from atlas_builder.collect.sampling import background_stream
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.config import Configuration
from atlas_builder.models import language_model, memory
from atlas_builder.pipeline.build import build
from atlas_builder.rerun.models import second_reading
from atlas_builder.workspace import work_folder
from tests.support import reference
from tests.support.atlases import Configure
from tests.support.saes import trained_units

LAYER, LENGTH, WIDTH, HEAD = 3, 5, 2, 1


def begun(folder: Path, seed: int = 0) -> Background:
    folder.mkdir(exist_ok=True)
    return Background(background_stream(seed, LAYER), RowLog(folder, "background", WIDTH))


def inputs_of(contexts: list[int]) -> torch.Tensor:
    """Inputs that name their token, after those of a token that must not count."""
    inputs = np.full((len(contexts), HEAD + LENGTH, WIDTH), np.nan, np.float32)
    inputs[:, HEAD:, 0] = np.array(contexts)[:, None]
    inputs[:, HEAD:, 1] = np.arange(LENGTH)
    return torch.from_numpy(inputs)


def show(sample: Background, contexts: list[int]) -> None:
    sample.visit(np.array(contexts, np.int64), inputs_of(contexts), HEAD)


@pytest.mark.parametrize("contexts", [1, 204, 205, 2000])
def test_a_background_is_the_first_of_all_tokens_by_chance(contexts: int, tmp_path: Path) -> None:
    sample = begun(tmp_path, seed=7)
    for first in range(0, contexts, 300):
        show(sample, list(range(first, min(contexts, first + 300))))
    wanted = reference.background([LENGTH] * contexts, BACKGROUND_TOKENS, 7, LAYER)
    assert len(wanted) == min(BACKGROUND_TOKENS, contexts * LENGTH)
    assert list(zip(sample.context.tolist(), sample.position.tolist(), strict=True)) == wanted
    assert sample.inputs.tolist() == [list(place) for place in wanted]
    sample.log.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.randoms(use_true_random=False), st.integers(1, 9), st.integers(1, 7), st.data())
def test_order_batches_shards_and_checkpoints_leave_no_trace(
    contexts: int, chance: Any, batch: int, shards: int, data: st.DataObject
) -> None:
    order = list(range(contexts))
    chance.shuffle(order)
    with TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(background, "BACKGROUND_TOKENS", 12)
        merged = begun(Path(scratch) / "merged")
        stack.callback(merged.log.close)
        for shard in range(shards):
            sample, mine = begun(Path(scratch) / str(shard)), order[shard::shards]
            stack.callback(sample.log.close)
            for start in range(0, len(mine), batch):
                show(sample, mine[start : start + batch])
                if data.draw(st.booleans()):
                    sample = stopped_and_started(sample)
                    stack.callback(sample.log.close)
            merged.merge(sample)
        assert merged.inputs.tolist() == [list(place) for place in reference.background([LENGTH] * contexts, 12, 0, 3)]


def stopped_and_started(sample: Background) -> Background:
    """The sample as its checkpoint gives it, when something was logged since."""
    sample.log.settle()
    saved, log = sample.arrays(), sample.log
    rows = log.rows
    log.append(np.zeros((2, WIDTH), np.float32))
    log.close()
    return Background(background_stream(0, LAYER), RowLog(log.folder, log.name, WIDTH, log.generation, rows), saved)


def test_neither_memory_nor_disk_grows_with_the_corpus(tmp_path: Path) -> None:
    sample = begun(tmp_path)
    for first in range(0, 400_000, 1000):
        show(sample, list(range(first, first + 1000)))
    # Of n tokens, about k (1 + ln(n / k)) are at some time among the first k.
    assert sample.log.rows < BACKGROUND_TOKENS * (1 + math.log(2_000_000 / BACKGROUND_TOKENS)) * 1.1
    assert len(sample.context) == BACKGROUND_TOKENS
    before = sample.inputs
    assert sample.log.is_mostly_waste(BACKGROUND_TOKENS)
    sample.thin()
    assert sample.log.rows == BACKGROUND_TOKENS
    np.testing.assert_array_equal(sample.inputs, before)
    sample.log.close()


def test_every_token_is_as_likely_and_layers_draw_apart() -> None:
    """Of 4,096 tokens, a quarter is drawn: 60 times by seed, and 60 times by layer."""
    lengths = [64] * 64
    draws = [reference.background(lengths, 1024, seed, LAYER) for seed in range(60)]
    draws += [reference.background(lengths, 1024, 0, layer) for layer in range(60)]
    for drawn in (draws[:60], draws[60:]):
        count = np.zeros((64, 64))
        for sample in drawn:
            np.add.at(count, tuple(np.array(sample).T), 1)
        # Each count is binomial; a sum of 4,096 of their squared z-scores has this deviation.
        assert abs((((count - 15) ** 2) / (60 * 0.25 * 0.75)).sum() - 4096) < 5 * math.sqrt(2 * 4096)
    # Two independent quarters share a sixteenth of the tokens.
    shared = [len(set(one) & set(other)) for one, other in itertools.pairwise(draws)]
    assert abs(np.mean(shared) - 256) < 5 * 12 / math.sqrt(len(shared))


def test_a_background_is_independent_of_what_bands_draw() -> None:
    tokens = [(context, position) for context in range(64) for position in range(64)]
    for block in range(8):
        first = sorted(tokens, key=lambda token: reference.token_priority(0, LAYER, 16 * block, *token))[:1024]
        shared = len(set(first) & set(reference.background([64] * 64, 1024, 0, LAYER)))
        assert abs(shared - 256) < 5 * 12


# In whole passes.


@pytest.fixture(params=["gpt2", "gated", "sae", "crate"])
def kind(request: pytest.FixtureRequest, configure: Configure, tmp_path: Path) -> Configuration:
    """Settings of a tiny model with units of one kind."""
    if request.param in ("sae", "crate"):
        return trained_units(request, configure, tmp_path)
    folder = request.getfixturevalue("llama_folder" if request.param == "gated" else "gpt2_folder")
    return configure(model={"name": str(folder)})


def _collected(settings: Configuration, output: Path, pool: Executor) -> Collected:
    build(settings, output, until="collect", executor=pool)
    return Collected(work_folder(output) / "collect")


def test_a_background_is_what_units_of_any_kind_read(kind: Configuration, pool: Executor, tmp_path: Path) -> None:
    """Every context run on its own, by the second implementation of units."""
    collected = _collected(kind, tmp_path / "site", pool)
    read = collected.contexts
    assert read.token_count > 2 * BACKGROUND_TOKENS
    again = second_reading(kind, language_model.load_model(kind.model))
    layers = [layer.layer for layer in collected.layers]
    runs = [again(torch.from_numpy(read.stack(np.array([context]))), layers) for context in range(len(read))]
    head = int(read.bos is not None)
    assert head == 1
    for layer in collected.layers:
        places = reference.background(np.diff(read.starts).tolist(), BACKGROUND_TOKENS, 0, layer.layer)
        wanted = [runs[context][layer.layer][0][0, head + position].numpy() for context, position in places]
        np.testing.assert_allclose(layer.background, wanted, rtol=1e-3, atol=1e-4)
        ids = [int(read.text_of(context)[position]) for context, position in places]
        assert layer.background_tokens.tolist() == ids
        assert layer.background.shape == (BACKGROUND_TOKENS, layer.inputs.shape[1])
        assert layer.background.dtype == np.float32
        assert layer.background_tokens.dtype == np.int32


def test_a_small_corpus_is_taken_whole_and_its_beginnings_never(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    collected = _collected(configure(corpus={"max_tokens": 300}), tmp_path / "site", pool)
    for layer in collected.layers:
        assert len(layer.background) == 300
        assert collected.contexts.bos not in layer.background_tokens
        assert Counter(layer.background_tokens.tolist()) == Counter(collected.contexts.tokens.tolist())
    first, second = (layer.background_tokens for layer in collected.layers)
    assert not np.array_equal(first, second)


def test_other_batches_have_the_same_background(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _collected(configure(), tmp_path / "whole", pool)
    monkeypatch.setattr(memory, "BATCH_TOKENS", 64)
    small = _collected(configure(), tmp_path / "small", pool)
    for one, other in zip(whole.layers, small.layers, strict=True):
        np.testing.assert_array_equal(one.background_tokens, other.background_tokens)
        # Products of another shape round otherwise in the last bit.
        np.testing.assert_allclose(one.background, other.background, rtol=1e-3, atol=1e-4)
