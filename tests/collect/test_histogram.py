from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.collect import statistics
from atlas_builder.collect.bands import band_edges
from atlas_builder.collect.histogram import BINS, SIDE, bin_edges, coarse_histogram, fine_histogram
from atlas_builder.collect.sampling import SIDE_BY_SIDE

floats = st.floats(-1000, 1000, width=32) | st.floats(-(2.0**-14), 2.0**-14, width=32) | st.just(0.0)


def _bin(value: float) -> int:
    """The bin of a value, looked for edge by edge."""
    edges = bin_edges()
    magnitude = abs(value)
    if magnitude < 2.0**-16:
        return SIDE
    place = max(i for i in range(SIDE + 1, BINS) if edges[i] <= magnitude)
    return place if value > 0 else BINS - 1 - place


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(floats, min_size=4, max_size=4), min_size=1, max_size=12))
def test_statistics_equal_those_of_the_whole_list(rows: list[list[float]]) -> None:
    values = np.array(rows, dtype=np.float32)
    parts = [counted(values[start : start + 3]) for start in range(0, len(values), 3)]
    whole = statistics.empty_tally(4)
    for part in reversed(parts):
        statistics.add(whole, part)
    exact = values.astype(np.float64)
    found = statistics.moments(whole)
    np.testing.assert_array_equal(found.maximum, values.max(axis=0))
    np.testing.assert_array_equal(found.minimum, values.min(axis=0))
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.deviation, exact.std(axis=0), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.density, (values > 0).mean(axis=0))
    wanted = np.zeros((4, BINS), dtype=int)
    for unit in range(4):
        for value in values[:, unit]:
            wanted[unit, _bin(float(value))] += 1
    np.testing.assert_array_equal(whole.histogram, wanted)


def counted(values: np.ndarray) -> statistics.Tally:
    """One context of four units, as the scan counts it."""
    found, counts = statistics.empty_tally(4), statistics.no_counts()
    tile = np.zeros((len(values), SIDE_BY_SIDE), np.float32)
    tile[:, :4] = values
    statistics.find_peaks(tile, counts)
    assert statistics.count_activations(tile, 4, 0, counts, np.zeros(tile.shape, np.int32), found)
    found.tokens[0] += len(values)
    return found


def test_edges_rise_and_are_a_sixteenth_of_themselves_apart() -> None:
    edges = bin_edges()
    assert len(edges) == BINS + 1
    assert (np.diff(edges) > 0).all()
    positive = edges[SIDE + 1 :]
    assert (np.diff(positive) <= positive[:-1] / 16 * (1 + 1e-12)).all()
    assert positive[0] == 2.0**-16
    assert positive[-1] == 2.0**16


def _counts(values: np.ndarray) -> np.ndarray:
    counts = np.zeros(BINS, dtype=np.int64)
    for value in values:
        counts[_bin(float(value))] += 1
    return counts


def test_a_coarse_histogram_loses_no_token_and_splits_no_bin() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 500).astype(np.float32)
    edges, counts = coarse_histogram(_counts(values))
    assert sum(counts) == 500
    assert len(edges) == len(counts) + 1 <= 42
    assert set(edges) <= set(bin_edges().tolist())
    inner, _ = np.histogram(values, bins=[-np.inf, *edges[1:-1], np.inf])
    # An edge below zero belongs to the bin farther from zero; random values lie on none.
    np.testing.assert_array_equal(counts, inner)
    assert coarse_histogram(np.zeros(BINS, dtype=np.int64)) == ([], [])


def test_band_edges_are_the_quantiles_of_positive_activations_to_a_sixteenth() -> None:
    values = np.random.default_rng(1).exponential(1, 4000).astype(np.float32)
    counts = np.stack([_counts(np.concatenate([values, -values])), np.zeros(BINS, dtype=np.int64)])
    found, never = band_edges(counts, np.array([values.max(), 0.0]), [0, 0.5, 0.9, 0.99, 1])
    assert found[0] == 0
    assert found[-1] == pytest.approx(values.max())
    for edge, quantile in zip(found[1:], [0.5, 0.9, 0.99], strict=False):
        exact = float(np.quantile(values, quantile))
        assert exact * (1 - 1 / 15) <= edge <= exact * 1.001
    assert np.isnan(never).all()


@settings(max_examples=80, deadline=None)
@given(st.lists(floats | st.sampled_from(bin_edges()[::16].tolist()), max_size=12))
def test_each_value_is_counted_in_its_bin(values: list[float]) -> None:
    expected = np.zeros(BINS, np.int64)
    for value in values:
        expected[_bin(value)] += 1
    np.testing.assert_array_equal(fine_histogram(np.array(values)), expected)
