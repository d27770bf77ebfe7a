"""Both implementations of each method of clustering, on similarities with groups within groups."""

from __future__ import annotations

import numpy as np
import pytest

from atlas_builder.cluster import linkage as compiled
from atlas_builder.cluster.clustering import cluster
from atlas_builder.cluster.tree import average_tree, groups_below
from atlas_builder.config import ClusterSettings
from atlas_builder.verify import linkage as plain
from atlas_builder.verify.clusterings import clusters_of


@pytest.mark.parametrize("method", ["linkage", "agglomerative", "hdbscan", "components"])
def test_both_implementations_agree(method: str) -> None:
    settings = ClusterSettings.model_validate({"method": method})
    several = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        wide, narrow = chance.normal(size=(3, 24)), 0.8 * chance.normal(size=(9, 24))
        owner = chance.integers(0, 9, 40)
        embeddings = wide[owner // 3] + narrow[owner] + chance.normal(size=(40, 24)) * chance.uniform(0.4, 1.6)
        embeddings += chance.uniform(0, 1) * chance.normal(size=24)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        distances = (1 - embeddings @ embeddings.T).astype(np.float32)
        np.fill_diagonal(distances, 0)
        labels = np.full(len(distances), -1)
        found = clusters_of(distances.astype(np.float64), 20.0, settings)
        for number, members in enumerate(found):
            labels[members] = number
        assert labels.tolist() == cluster(distances, settings, 20.0).tolist(), seed
        several += len(found) > 1
    assert several > 10


def test_a_group_of_the_tree_is_whole_above_a_divided_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tight groups are two, ρ = 0.49 / 0.9, but one with a looser group that is like both."""
    owner = np.repeat([0, 1, 2], [5, 5, 10])
    cosines = np.array([[0.9, 0.49, 0.47], [0.49, 0.9, 0.47], [0.47, 0.47, 0.48]])[owner][:, owner]
    np.fill_diagonal(cosines, 1)
    joins, heights = average_tree(1 - cosines)
    assert groups_below(compiled._divided(joins, heights, 0.55), joins).tolist() == [0] * 20
    monkeypatch.setattr(plain, "tidy", lambda cosines, dimensions, clusters, *more: clusters)
    assert [sorted(members) for members in plain.linked(1 - cosines, np.inf, 2)] == [list(range(20))]
    assert len(plain.linked(1 - cosines[:10, :10], np.inf, 2)) == 2
