"""The experiment on mid-range curation: what the guide's page shows of it is so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import midrange
from tests.benchmarks.confounded import Confounded, Split, digits, shapes
from tests.benchmarks.midrange import ERM, MID, MID_READ, ORACLE, TOP, Outcome, Size, Tenths
from tests.benchmarks.retraining import l1_logistic

GUIDE = Path(__file__).parent.parent.parent / "site_config" / "guide"
PAGE = (GUIDE / "midrange.md").read_text(encoding="utf-8")

SIZE = Size(digit_epochs=40, redraws=5)

Results = tuple[list[Outcome], list[Tenths]]


@pytest.fixture(scope="module")
def small() -> Results:
    """Two seeds of the digits."""
    runs = [midrange.experiment("digits 95 %", seed, SIZE) for seed in (0, 1)]
    return [outcome for outcomes, _ in runs for outcome in outcomes], [tenths for _, tenths in runs]


@pytest.fixture(scope="module")
def published() -> Results:
    return midrange.read_results(GUIDE / "midrange.json")


def _of(outcomes: Sequence[Outcome], way: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.way == way and not outcome.unbroken]


def test_samples_of_the_middle_break_the_confound_more_often_than_those_of_the_top(small: Results) -> None:
    outcomes, tenths = small
    for mid, top in zip(_of(outcomes, MID.name), _of(outcomes, TOP.name), strict=True):
        assert mid.breaks is not None
        assert top.breaks is not None
        assert mid.breaks > 0.15 > 0.02 >= top.breaks
    assert all(each.breaks[0] == max(each.breaks) for each in tenths)


def test_the_attribute_read_in_the_middle_mends_the_worst_group_for_a_tenth_of_the_labels(small: Results) -> None:
    erm, mid, oracle = (_of(small[0], name) for name in (ERM, MID_READ.name, ORACLE.name))
    assert np.mean([each.worst for each in mid]) > np.mean([each.worst for each in erm])
    assert [round(each.read, 2) for each in mid] == [0.1, 0.1]
    assert [each.read for each in oracle] == [1, 1]


def test_features_without_the_class_cannot_be_mended(small: Results) -> None:
    lacking = [outcome for outcome in small[0] if outcome.unbroken]
    assert {outcome.way for outcome in lacking} >= {ERM, MID_READ.name}
    assert max(outcome.worst for outcome in lacking if outcome.way == MID_READ.name) < 0.5


def test_the_same_seed_gives_the_same_numbers(small: Results) -> None:
    again, tenths = midrange.experiment("digits 95 %", 0, SIZE)
    assert [outcome for outcome in small[0] if outcome.seed == 0] == again
    assert tenths == small[1][0]


@pytest.mark.parametrize(
    ("made", "bias"), [(shapes(0.9, 1800, 0), 0.9), (digits(0.95, 0), 0.95)], ids=["shapes", "digits"]
)
def test_a_confound_is_planted_where_it_is_said_to_be(made: Confounded, bias: float) -> None:
    def share(split: Split) -> float:
        return float(np.mean(~split.breaks))

    assert share(made.train) == pytest.approx(bias, abs=0.03)
    assert share(made.held_out) == pytest.approx(bias, abs=0.03)
    assert share(made.unbroken) == 1
    test = made.test
    for label in np.unique(test.labels):
        assert np.ptp(np.bincount(test.attributes[test.labels == label])) == 0


def test_the_last_layer_is_at_the_optimum_of_its_loss() -> None:
    """At it the loss's slope is −λ·sign(w) where a weight is, within ±λ where it is 0, and 0 for the bias."""
    chance = np.random.default_rng(0)
    inputs, labels = chance.normal(size=(2, 60, 8)), chance.integers(3, size=(2, 60))
    labels[:, :40] = inputs[:, :40, :3].argmax(axis=2)
    one_hot = np.eye(3)[labels]
    weights = l1_logistic(inputs, one_hot, strength=0.3)
    design = np.concatenate([np.ones((2, 60, 1)), inputs], axis=2)
    shares = np.exp(design @ weights)
    shares /= shares.sum(axis=2, keepdims=True)
    slope = 0.3 * design.transpose(0, 2, 1) @ (shares - one_hot)
    held, rest = weights[:, 1:] != 0, weights[:, 1:] == 0
    assert held.any()
    assert rest.any()
    np.testing.assert_allclose(slope[:, 0], 0, atol=0.01)
    np.testing.assert_allclose(slope[:, 1:][held], -np.sign(weights[:, 1:][held]), atol=0.01)
    assert np.abs(slope[:, 1:][rest]).max() <= 1.01


def test_the_page_has_the_tables_and_the_figure_of_its_numbers(published: Results) -> None:
    outcomes, tenths = published
    for table in (midrange.main_table(outcomes), midrange.lacking_table(outcomes), midrange.tenths_table(tenths)):
        assert table in PAGE
    assert (GUIDE / "images" / "midrange.svg").read_text(encoding="utf-8") == midrange.draw(outcomes, tenths)


def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    (code,), (text,) = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "text"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == text
