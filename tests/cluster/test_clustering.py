from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from atlas_builder.cluster.clustering import central_examples, cluster, coverage, measure
from atlas_builder.cluster.embeddings import cosine_distances
from atlas_builder.config import ClusterSettings
from tests.support import reference

METHODS: list[Any] = ["linkage", "hdbscan", "agglomerative", "components"]


def _plant(sizes: list[int], noise: float, seed: int, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of behaviours in random directions, and which is whose."""
    chance = np.random.default_rng(seed)
    directions = chance.normal(size=(len(sizes), width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    scatter = noise * chance.normal(size=(len(truth), width)) / np.sqrt(width)
    return (directions[truth] + scatter).astype(np.float32), truth


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [[60], [50, 50], [40, 30, 20], [30, 25, 20, 15, 10]])
def test_planted_behaviours_are_found(method: Any, sizes: list[int]) -> None:
    for seed in range(5):
        embeddings, truth = _plant(sizes, 0.5, seed)
        labels = cluster(cosine_distances(embeddings), ClusterSettings(method=method))
        assert labels.max() + 1 == len(sizes)
        assert adjusted_rand_score(truth, labels) > 0.95


def test_noise_is_never_merged_into_a_cluster() -> None:
    planted, _ = _plant([40, 40], 0.3, 0)
    unrelated = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)
    distances = cosine_distances(np.concatenate([planted, unrelated]))
    for method, dimensions in ((ClusterSettings(method="agglomerative"), np.inf), (ClusterSettings(), 64)):
        labels = cluster(distances, method, dimensions)
        assert labels.max() == 1
        assert (labels[80:] == -1).all()


def test_behaviours_are_numbered_by_falling_size_then_by_first_member() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    embeddings = np.stack([b, a, b, c, a, c, c])
    labels = cluster(cosine_distances(embeddings), ClusterSettings(method="agglomerative"))
    assert labels.tolist() == [1, 2, 1, 0, 2, 0, 0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("examples", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["identical", "zero", "apart"])
def test_few_or_odd_examples_have_a_defined_answer_without_a_warning(method: Any, examples: int, kind: str) -> None:
    embeddings = {
        "identical": np.ones((examples, 8)),
        "zero": np.zeros((examples, 8)),
        "apart": np.eye(8)[:examples],
    }[kind].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distances = cosine_distances(embeddings)
        labels = cluster(distances, ClusterSettings(method=method))
        found = measure(distances, labels)
        centres = central_examples(distances, labels)
        shares = coverage(np.ones(examples, np.float32), labels)
    assert len(labels) == found.examples == examples
    assert found.behaviours == len(centres) == len(shares) == labels.max(initial=-1) + 1
    if examples == 1 or (kind == "identical" and examples):
        assert found.behaviours == 1
        assert found.noise_fraction == 0


def test_measures_of_a_case_worked_by_hand() -> None:
    # Two clusters, {0, 1} and {2, 3}, and 4 unclustered.
    distances = np.array(
        [
            [0.0, 0.2, 0.8, 0.6, 1.0],
            [0.2, 0.0, 0.6, 0.4, 1.0],
            [0.8, 0.6, 0.0, 0.4, 1.0],
            [0.6, 0.4, 0.4, 0.0, 1.2],
            [1.0, 1.0, 1.0, 1.2, 0.0],
        ],
        dtype=np.float32,
    )
    found = measure(distances, np.array([0, 0, 1, 1, -1], dtype=np.int32))
    assert found.behaviours == 2
    assert found.effective_behaviours == pytest.approx(2)
    assert found.noise_fraction == pytest.approx(0.2)
    assert found.mean_distance == pytest.approx((0.2 + 0.8 + 0.6 + 1 + 0.6 + 0.4 + 1 + 0.4 + 1 + 1.2) / 10)
    assert found.max_distance == pytest.approx(1.2)
    assert found.intra_distance == pytest.approx((0.2 + 0.4) / 2)
    assert found.inter_distance == pytest.approx((0.8 + 0.6 + 0.6 + 0.4) / 4)
    assert found.examples == 5


def test_unequal_shares_make_fewer_effective_behaviours() -> None:
    labels = np.array([0] * 9 + [1], dtype=np.int32)
    found = measure(cosine_distances(np.eye(10, dtype=np.float32)), labels)
    assert found.effective_behaviours == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.integers(0, 1000))
def test_measures_equal_those_taken_pair_by_pair(labels: list[int], seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(len(labels), 5)).astype(np.float32)
    compact = np.unique([label for label in labels if label >= 0]).tolist()
    numbered = [compact.index(label) if label >= 0 else -1 for label in labels]
    found = measure(cosine_distances(embeddings), np.array(numbered, dtype=np.int32))._asdict()
    expected = reference.measures(list(embeddings), numbered)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name


def test_the_central_example_is_the_one_most_like_its_fellows() -> None:
    embeddings = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1], [0.01, 1]], dtype=np.float32)
    distances = cosine_distances(embeddings)
    labels = np.array([0, 0, 0, 1, 1], dtype=np.int32)
    assert central_examples(distances, labels).tolist() == [1, 3]


def test_coverage_is_the_share_of_the_summed_activation() -> None:
    shares = coverage(np.array([4, 3, 2, 1], dtype=np.float32), np.array([0, 1, 0, -1], dtype=np.int32))
    assert shares.tolist() == pytest.approx([0.6, 0.3])
