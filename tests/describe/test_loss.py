"""The loss of a model on the text of its atlas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from atlas_builder.collect.results import Collected
from atlas_builder.describe.held_out import measure_held_out
from atlas_builder.describe.loss import CONTEXTS, LEAST_CONTEXTS, loss_contexts, loss_of
from atlas_builder.describe.results import read_loss
from atlas_builder.models import language_model
from atlas_builder.progress import Progress
from atlas_builder.rounding import significant
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure


@pytest.mark.parametrize("prediction", [True, False])
def test_the_loss_is_that_of_plain_loops(
    prediction: bool, tiny_site: Path, gpt2_folder: Path, configure: Configure, tmp_path: Path
) -> None:
    """Whether or not the predictors run over the same contexts."""
    settings = configure()
    collected = Collected(work_folder(tiny_site) / "collect")
    read = collected.contexts
    loaded = language_model.load_model(settings.model)
    units = open_units(loaded, settings)
    quiet = Progress(quiet=True)
    measure_held_out(loaded, units, collected, tmp_path, "cpu", quiet, predicts=prediction)
    assert (tmp_path / "L0.prediction.npy").exists() == prediction
    plain = AutoModelForCausalLM.from_pretrained(gpt2_folder).eval()
    losses = []
    for context in loss_contexts(len(read)).tolist():
        tokens = [loaded.bos, *read.text_of(context).tolist()]
        with torch.inference_mode():
            chances = plain(torch.tensor([tokens])).logits[0].log_softmax(-1)
        losses.append([-float(chances[place, tokens[place + 1]]) for place in range(len(tokens) - 1)])
    nats = float(np.mean(np.concatenate(losses)))
    published = read_loss(tmp_path)
    assert published is not None
    assert published["tokens"] == sum(map(len, losses))
    assert published["nats"] == pytest.approx(nats, rel=1e-3)
    squares = sum((sum(one) - nats * len(one)) ** 2 for one in losses)
    error = (len(losses) / (len(losses) - 1) * squares) ** 0.5 / published["tokens"]
    assert published["error"] == pytest.approx(error, rel=1e-2)


@given(st.integers(0, 20_000))
def test_contexts_of_the_loss_are_every_tenth_spread_evenly_and_never_too_few(number: int) -> None:
    chosen = loss_contexts(number).tolist()
    assert chosen == sorted(set(chosen))
    assert all(0 <= one < number for one in chosen)
    if number // 10 >= LEAST_CONTEXTS:
        assert all(one % 10 == 9 for one in chosen)
        assert len(chosen) == min(number // 10, CONTEXTS)
        # As even as whole tenths allow.
        steps = np.diff(chosen) // 10
        assert steps.max() - steps.min() <= 1
    else:
        assert len(chosen) == min(number, LEAST_CONTEXTS)


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9)), max_size=12))
def test_the_error_of_the_loss_is_that_of_a_ratio_over_contexts(measured: list[tuple[float, int]]) -> None:
    sums, tokens = np.array([one for one, _ in measured]), np.array([many for _, many in measured], np.int64)
    loss = loss_of(sums, tokens)
    counted = [(one, many) for one, many in measured if many]
    if loss is None:
        assert not counted
        return
    total = sum(many for _, many in counted)
    assert loss.tokens == total
    assert loss.nats == pytest.approx(sum(one for one, _ in counted) / total)
    if len(counted) == 1:
        assert loss.error is None
        return
    squares = sum((one - loss.nats * many) ** 2 for one, many in counted)
    assert loss.error == pytest.approx((len(counted) / (len(counted) - 1) * squares) ** 0.5 / total)


def test_the_error_of_the_loss_covers_the_loss_of_all_the_text() -> None:
    """Contexts drawn at random from a population: 95 % intervals hold its mean in about 95 of 100 draws."""
    chance = np.random.default_rng(0)
    tokens = chance.integers(20, 128, 20_000)
    sums = tokens * chance.gamma(9, 1 / 3, len(tokens))
    truth = sums.sum() / tokens.sum()
    held = []
    for _ in range(400):
        drawn = chance.integers(0, len(tokens), 64)
        loss = loss_of(sums[drawn], tokens[drawn])
        assert loss is not None
        assert loss.error is not None
        held.append(abs(loss.nats - truth) < 1.96 * loss.error)
    assert 0.9 < np.mean(held) < 0.98


def test_an_atlas_says_its_models_loss(tiny_site: Path) -> None:
    said = json.loads((tiny_site / "atlas.json").read_bytes())["model"]["loss"]
    assert said["nats"] > 1
    assert said["tokens"] > 100
    assert said["error"] > 0
    assert said["error"] == significant(said["error"])
    page = (tiny_site / "index.html").read_text()
    assert f"nats a token, on {said['tokens']:,} tokens of this text" in page
    assert f"{said['nats']:.3g} ± " in page
