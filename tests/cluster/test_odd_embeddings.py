"""Embeddings that are zero, equal, orthogonal, tiny, huge or no numbers: each has an answer, without a warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.cluster import clustering, stability
from atlas_builder.cluster.background import LayerBackground
from atlas_builder.cluster.clustering import cluster_examples, measure
from atlas_builder.cluster.diversity import diversity_measures
from atlas_builder.cluster.embeddings import principal_coordinates
from atlas_builder.config import ClusterSettings

WIDTH = 8
_SCALES = [0.0, 1e-45, 1e-30, 1e-10, 1.0, 1e10, 1e30, np.inf, np.nan]
METHODS: list[Any] = ["linkage", "hdbscan", "agglomerative", "components"]


@st.composite
def _inputs(draw: st.DrawFn) -> np.ndarray:
    """Up to thirty inputs, many of them odd or equal: (examples, width)."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distinct = np.concatenate([np.eye(WIDTH), -np.eye(2, WIDTH), chance.normal(size=(6, WIDTH)), np.zeros((1, WIDTH))])
    scale = np.array(_SCALES)
    count = draw(st.integers(0, 30))
    rows = distinct[chance.integers(0, len(distinct), count)]
    with np.errstate(all="ignore"):
        scaled = rows * scale[chance.integers(0, draw(st.integers(1, len(_SCALES))), count)][:, None]
        return np.asarray(scaled, np.float32)


@st.composite
def _weights(draw: st.DrawFn) -> np.ndarray:
    """Read weights of a unit, (parts, width)."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = draw(st.integers(1, 2))
    rows = draw(st.sampled_from([np.ones(WIDTH), np.eye(WIDTH)[0], np.zeros(WIDTH), chance.normal(size=WIDTH)]))
    with np.errstate(all="ignore"):
        return np.asarray(np.tile(rows, (parts, 1)) * draw(st.sampled_from(_SCALES)), np.float32)


@given(
    inputs=_inputs(), weights=_weights(), method=st.sampled_from(METHODS), known=st.booleans(), low=st.integers(2, 4),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_every_matrix_of_inputs_has_behaviours_and_measures(
    inputs: np.ndarray, weights: np.ndarray, method: Any, known: bool, low: int
) -> None:
    chosen = ClusterSettings.model_validate({"method": method, "min_size": low})
    background = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32) if known else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = cluster_examples(inputs, weights, background=background, settings=chosen)
        layer = LayerBackground(
            np.zeros((0, WIDTH), np.float32) if background is None else background, np.arange(40 * known)
        )
        alike = clustering.similarities_of(inputs, layer.of_unit(weights), chosen)
        halves = stability.half_samples(alike, chosen)
        strengths = np.ones(len(inputs), np.float32)
        found, _ = stability.stability_measures(alike.distances, labels, strengths, chosen, halves=halves)
        diversity_measures(labels, [half.labels for half in halves])
        plane = principal_coordinates(alike.distances)
    assert labels.shape == (len(inputs),)
    sizes = np.bincount(labels[labels >= 0])
    assert (np.diff(sizes) <= 0).all(), "numbered by falling size"
    assert len(inputs) < 2 or (sizes >= chosen.min_size).all()
    measures = measure(alike.distances, labels)
    assert 0 <= measures.noise_fraction <= 1
    assert np.isnan(measures.max_distance) or measures.max_distance >= 0
    assert np.isfinite(plane.points).all()
    assert np.isnan(found.mono_score) or np.isfinite(found.mono_score)


@given(inputs=_inputs(), power=st.integers(-120, 100), parts=st.integers(1, 2), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_scale_of_a_units_weights_changes_no_behaviour(
    inputs: np.ndarray, power: int, parts: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).normal(size=(parts, WIDTH)).astype(np.float32)
    background = np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float32)
    labels, scaled = (
        cluster_examples(inputs, np.ldexp(weights, by).astype(np.float32), background=background) for by in (0, power)
    )
    assert labels.tolist() == scaled.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_unit_whose_weights_are_no_numbers_leaves_the_others_as_they_are(bad: float) -> None:
    chance = np.random.default_rng(0)
    layer = LayerBackground(chance.normal(size=(40, WIDTH)).astype(np.float32), np.arange(40))
    weights = chance.normal(size=(1, 3, WIDTH)).astype(np.float32)
    weights[0, 1] = bad
    inputs = chance.normal(size=(12, WIDTH)).astype(np.float32)
    first, _, last = layer.of_units(weights)
    for unit, place in ((first, 0), (last, 2)):
        alone = layer.of_unit(weights[:, place])
        np.testing.assert_allclose(unit.similarities(inputs).distances, alone.similarities(inputs).distances, rtol=1e-5)
