"""The page on the library says what is so, and the library needs no language model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder.config import ClusterSettings
from tests.benchmarks.digits import CENTRED, FIGURE, METHOD, PAGE, code, doubles, example, figure, shares

PROSE = " ".join(PAGE.read_text(encoding="utf-8").split())

PLANTED = """
import sys
import numpy as np
from atlas_builder.cluster.clustering import cluster, measure
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.stability import mono_score, stability
from atlas_builder.config import ClusterSettings

chance = np.random.default_rng(0)
truth = np.repeat([0, 1, 2], [30, 20, 10])  # three behaviours
read = chance.normal(size=(1, 60))
features = np.kron(np.eye(3), np.ones(20)) * np.sign(read)  # each makes the unit fire by coordinates of its own
inputs = features[truth] + chance.normal(size=(60, 60)) * 0.2
distances = cosine_distances(neuron_embeddings(inputs, read))
labels = cluster(distances, ClusterSettings())
assert (labels == truth).all()
assert measure(distances, labels).behaviours == 3
assert (stability(distances, labels, ClusterSettings()) == 1).all()
assert 0 < mono_score(distances, inputs @ read[0]) < 1
print(sorted({"torch", "transformer_lens", "transformers"} & {name.split(".")[0] for name in sys.modules}))
"""


def _run(code: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout


@cache
def _example(*changes: tuple[str, str]) -> Mapping[str, Any]:
    return example(dict(changes))


def _cut(cut: float) -> dict[str, Any]:
    return dict(_example((METHOD, METHOD.replace(")", f", cut={cut})"))))


def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    # To the digit: the network is trained in float64, and neither five kinds of OpenBLAS kernels nor the number of
    # threads moved anything as far as the second decimal.
    printed = _run(code(), tmp_path)
    assert printed.startswith(code("text"))
    assert printed.removeprefix(code("text")).startswith("   8 ")
    assert not list(tmp_path.iterdir())


def test_the_figure_is_the_examples() -> None:
    assert FIGURE.read_text(encoding="utf-8") == figure(dict(_example()))
    assert FIGURE.stat().st_size < 60_000


def test_shares_in_the_prose_are_so() -> None:
    unit, behaviour, dealt = (f"{share:.0%}".replace("%", " %") for share in shares(dict(_example())))
    assert f"{behaviour} show the main digit of their behaviour and {unit} that of their unit; {dealt} would" in PROSE
    seeds = [shares(dict(_example(("random_state=0", f"random_state={seed}")))) for seed in (1, 2, 3)]
    units, behaviours = ("{:.0f}, {:.0f} and {:.0f}".format(*(100 * s[which] for s in seeds)) for which in (0, 1))
    assert f"seeds 1, 2 and 3 give {behaviours} % against {units}." in PROSE


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        (0.4, "At 0.4, {share:.0f} % show the main digit, in {number} behaviours where there were 30;"),
        (0.3, "at 0.3, {share:.0f} %, in {number}, and in {doubles} of the 16 units two or more behaviours are one"),
    ],
)
def test_lower_cuts_do_what_the_prose_says(cut: float, sentence: str) -> None:
    found = _cut(cut)
    number = sum(map(len, found["behaviours"].values()))
    assert sentence.format(share=100 * shares(found)[1], number=number, doubles=doubles(found)) in PROSE


def test_units_in_the_prose_are_so() -> None:
    found = _example()
    parts, digits = found["behaviours"], found["digits"]
    assert sum(map(len, parts.values())) == 30
    mains = {unit: [int(np.bincount(digits[part]).argmax()) for part in parts[unit]] for unit in parts}
    assert mains[5] == [3, 2, 5]
    assert mains[9] == [6, 4]
    assert [set(digits[part]) for part in parts[0]] == [{2, 3}]
    assert [set(digits[part]) for part in parts[7]] == [{1, 9}]
    assert mains[14] == [2, 1]
    foot = found["pixels"].reshape(-1, 8, 8)[:, 7, 5:].mean(axis=1)  # of 16: how dark the lower right is
    without, with_foot = (np.median(foot[part[digits[part] == 1]]) for part in parts[14])
    assert without < 3 < 12 < with_foot
    assert f"the cut of {ClusterSettings().cut:g}" in PROSE


def test_without_centring_each_unit_has_one_behaviour() -> None:
    assert {len(parts) for parts in _example((CENTRED, "pixels / 16"))["behaviours"].values()} == {1}


def test_a_planted_truth_is_found_without_torch(tmp_path: Path) -> None:
    assert _run(PLANTED, tmp_path).strip() == "[]"
