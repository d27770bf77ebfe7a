from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.curate import associations, balanced, mid_range
from atlas_builder.describe.association_test import association_test

PAGE = Path(__file__).parents[2] / "site_config/guide/library.md"
QUANTILES = ["0", "0.1", "0.25", "0.3", "0.7", "1"]
LOGIT = st.sampled_from([0.0, -1.0, 2.5, 3.0, math.inf, -math.inf, math.nan])


def slow_mid_range(own: list[float], labels: list[int], low: str, high: str) -> list[int]:
    """By the definition, one sample after the other."""
    chosen = []
    for sample, logit in enumerate(own):
        if math.isnan(logit):
            continue
        others = [(own[n], n) for n in range(len(own)) if labels[n] == labels[sample] and not math.isnan(own[n])]
        rank = sum(other < (logit, sample) for other in others)
        if Fraction(low) * len(others) <= rank < Fraction(high) * len(others):
            chosen.append(sample)
    return chosen


@settings(max_examples=200, deadline=None)
@given(samples=st.lists(st.tuples(LOGIT, st.integers(0, 3)), max_size=40), edges=st.permutations(QUANTILES))
def test_mid_range_is_that_of_the_definition_with_ties_nan_and_empty_classes(samples: Any, edges: list[str]) -> None:
    low, high = sorted(edges[:2], key=float)
    own, labels = [logit for logit, _ in samples], [label for _, label in samples]
    expected = slow_mid_range(own, labels, low, high)
    band = (float(low), float(high))
    assert mid_range(own, labels, band=band).tolist() == expected
    logits = np.full((len(samples), 5), 7.0)
    logits[np.arange(len(samples)), np.array(labels, int)] = own
    assert mid_range(logits, np.array(labels, int), band=band).tolist() == expected


def test_a_tenth_of_thirty_is_three() -> None:
    assert mid_range(np.arange(30), np.zeros(30)).tolist() == [0, 1, 2]


def test_bands_that_adjoin_share_no_sample_and_leave_out_none() -> None:
    drawn = np.random.default_rng(0)
    logits, labels = drawn.integers(0, 5, 203).astype(float), drawn.integers(0, 7, 203)
    edges = [0, 0.1, 0.15, 0.3, 0.99, 1]
    bands = [mid_range(logits, labels, band=(low, high)) for low, high in pairwise(edges)]
    assert sorted(np.concatenate(bands)) == list(range(203))


def test_a_band_from_nought_has_one_of_each_class() -> None:
    assert mid_range([3.0, 2.0, 1.0, math.nan], ["b", "a", "b", "c"], band=(0, 0.01)).tolist() == [1, 2]
    assert mid_range([3.0, 2.0], [0, 1], band=(0.1, 0.2)).tolist() == []


def test_without_samples_nothing_is_chosen() -> None:
    for logits in (np.zeros(0), np.zeros((0, 3)), np.zeros((0, 0))):
        assert mid_range(logits, np.zeros(0)).tolist() == []
    assert mid_range([math.nan], [0]).tolist() == []
    assert balanced([], [], seed=0).tolist() == balanced([1, 2], [], seed=0).tolist() == []


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40), seed=st.integers(0, 5), data=st.data())
def test_balanced_has_equally_many_of_each_label_and_all_of_the_rarest(labels: list[int], seed: int, data: Any) -> None:
    mid = data.draw(st.lists(st.integers(0, len(labels) - 1), max_size=60))
    chosen = balanced(labels, np.array(mid, int), seed=seed).tolist()
    at_hand = Counter(labels[sample] for sample in set(mid))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(mid)
    assert Counter(labels[sample] for sample in chosen) == dict.fromkeys(at_hand, min(at_hand.values(), default=0))


def test_the_seed_decides_what_balanced_chooses() -> None:
    labels = np.repeat([0, 1], [5, 200])
    first, again, other = (balanced(labels, np.arange(205), seed=seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("band", [(0.2, 0.1), (0.1, 0.1), (-0.1, 0.5), (0.5, 1.1), (math.nan, 1), (0, math.nan)])
def test_quantiles_out_of_order_are_refused_in_a_sentence(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^band must be two ascending quantiles from 0 to 1, .*\.$"):
        mid_range([1.0], [0], band=band)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([1.0, 2.0], [0]),
        ([[1.0, 2.0]], [[0]]),
        (1.0, 0),
        (np.zeros((2, 2, 2)), [0, 0]),
        ([[1.0, 2.0]], [2]),
        ([[1.0, 2.0]], [-1]),
        ([[1.0, 2.0]], [0.5]),
        (np.zeros((1, 0)), [0]),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_refused_in_a_sentence(logits: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match=r"^(logits|labels) must be [^\n]*\.$"):
        mid_range(logits, labels)


@pytest.mark.parametrize("mid", [[2], [-1], [0.5], [True, False], [[0]], 0])
def test_what_is_no_index_is_refused_in_a_sentence(mid: Any) -> None:
    with pytest.raises(ValueError, match=r"^mid must be [^\n]*\.$"):
        balanced([1, 2], mid, seed=0)
    with pytest.raises(ValueError, match=r"^labels must be one a sample"):
        balanced([[1, 2]], [0], seed=0)


def test_associations_are_those_of_an_atlas() -> None:
    drawn = np.random.default_rng(0)
    activations, own, attributes = drawn.normal(size=200), drawn.random(200) < 0.5, drawn.random((200, 4)) < 0.4
    activations += attributes[:, 2]
    contexts = drawn.integers(0, 300, 200)
    for given_contexts, of_samples in ((None, np.arange(200)), (contexts, contexts)):
        effect, p = associations(activations, own, attributes, contexts=given_contexts, rolls=500, seed=3)
        scores = association_test(activations, own, of_samples, attributes, rolls=500, seed=3)
        assert (effect == scores.effect).all()
        assert (p == scores.p).all()
        assert np.flatnonzero(p <= 0.01).tolist() == [2]
        assert effect[2] > 0.1


def test_the_example_in_the_guide_prints_what_the_page_shows(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## The middle of a range")[2]
    code, shown = (re.findall(f"```{kind}\n(.*?)```", section, re.DOTALL)[0] for kind in ("python", "text"))
    ended = code + "\nimport sys\nassert 'torch' not in sys.modules\n"
    printed = subprocess.run(
        [sys.executable, "-c", ended], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert printed == shown


def test_curating_needs_no_torch() -> None:
    said = "import sys, atlas_builder.curate; print({'torch', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
