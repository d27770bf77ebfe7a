"""The background of a layer, chosen and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atlas_builder.rerun.passes import Reader, inputs_at
from atlas_builder.verify.background import Unrelated, background_places
from atlas_builder.workspace import work_folder
from tests.support import reference
from tests.support.atlases import Configure, stages_of


@pytest.mark.parametrize(("seed", "layer"), [(0, 0), (7, 3), (2**63, 11)])
def test_tokens_are_those_of_smallest_chance(seed: int, layer: int) -> None:
    lengths = [3, 1, 0, 700, 31, 600]
    assert background_places(lengths, seed, layer) == reference.background(lengths, 1024, seed, layer)
    assert background_places([], seed, layer) == []


def test_the_second_run_reads_what_the_pass_read(configure: Configure, tiny_site: Path) -> None:
    collected = stages_of(work_folder(tiny_site)).collected
    config = configure()
    reader = Reader(config)
    text = reader.text()
    lengths = [len(tokens) for _, _, tokens in text.contexts]
    places = {layer: background_places(lengths, config.examples.seed, layer) for layer in (0, 1)}
    inputs = inputs_at(reader, text, places)
    for layer in (0, 1):
        assert inputs[layer].shape == (1024, 16)
        np.testing.assert_allclose(inputs[layer], collected.layer(layer).background, atol=1e-4)
        ids = [text.contexts[context][2][position] for context, position in places[layer]]
        assert ids == collected.layer(layer).background_tokens.tolist()


def test_where_nothing_is_known_cosines_are_as_they_are() -> None:
    read = np.array([[1.0, 2.0]], np.float32)
    unrelated = Unrelated(np.full((3, 2), np.nan, np.float32), np.arange(3), read)
    inputs = np.array([[1, 0], [1, 0.5], [0, 0]], np.float32)
    np.testing.assert_allclose(unrelated.cosines(inputs), [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 1]])
    assert unrelated.dimensions == 2.0  # (1 + 4)² / (1 + 16) is less
