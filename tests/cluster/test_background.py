from __future__ import annotations

import numpy as np
import pytest

from atlas_builder.cluster.background import LayerBackground, _low_quantiles


@pytest.mark.parametrize("parts", [1, 2])
def test_a_block_of_units_has_the_backgrounds_of_its_units(parts: int) -> None:
    chance = np.random.default_rng(0)
    tokens = chance.normal(size=(60, 12)) * chance.uniform(0.2, 3, 12) + chance.normal(size=12)
    layer = LayerBackground(tokens.astype(np.float32), np.arange(60) % 9)
    read_weights = chance.normal(size=(parts, 5, 12)).astype(np.float32)
    for unit, of_block in enumerate(layer.of_units(read_weights)):
        alone = layer.of_unit(read_weights[:, unit])
        inputs = (tokens[:8] + 2 * read_weights[0, unit]).astype(np.float32)
        assert of_block.dimensions == alone.dimensions
        np.testing.assert_allclose(of_block.similarities(inputs).distances, alone.similarities(inputs).distances, 1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 100, 5000])
def test_low_quantiles_are_numpys(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)
    expected = np.quantile(values.astype(np.float64), [0.01, 0.001, 0.05])
    np.testing.assert_allclose(_low_quantiles(values, [0.01, 0.001, 0.05]), expected, rtol=1e-12)
