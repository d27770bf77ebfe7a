"""How well tokens predict where a unit fires: against slow counting, and where the truth is planted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.collect.results import Collected
from atlas_builder.describe.results import Described
from atlas_builder.describe.token_predictors import NEEDED
from atlas_builder.describe.token_scores import (
    COUNTS,
    FIRES,
    HELD_OUT_EVERY,
    UNTRIED,
    LookUp,
    Patterns,
    TextOrder,
    count_predictions,
    firing_threshold,
    held_out_contexts,
    predictor_scores,
)
from atlas_builder.models import language_model
from atlas_builder.pipeline.build import build
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure

_tokens = st.integers(0, 3)
_pattern = st.tuples(
    st.integers(0, 2), _tokens, st.dictionaries(st.integers(1, 3), _tokens, max_size=2).map(lambda f: tuple(f.items()))
)


def _met(pattern: tuple[int, int, tuple[tuple[int, int], ...]], context: list[int], place: int) -> bool:
    _, key, others = pattern
    return context[place] == key and all(
        place >= before and context[place - before] == token for before, token in others
    )


@given(
    patterns=st.lists(_pattern, max_size=5),
    contexts=st.integers(1, 6).flatmap(
        lambda length: st.lists(st.lists(_tokens, min_size=length, max_size=length), min_size=1, max_size=4)
    ),
)
def test_patterns_are_met_where_every_token_is_in_its_place(
    patterns: list[tuple[int, int, tuple[tuple[int, int], ...]]], contexts: list[list[int]]
) -> None:
    place, unit = Patterns.of(patterns).met(np.array(contexts, np.int64))
    length = len(contexts[0])
    found = {
        (row * length + at, pattern[0])
        for row, context in enumerate(contexts)
        for at in range(length)
        for pattern in patterns
        if _met(pattern, context, at)
    }
    assert sorted(zip(place.tolist(), unit.tolist(), strict=True)) == sorted(found)


def test_a_unit_of_one_token_is_predicted_by_it_and_one_of_two_by_its_context() -> None:
    chance = np.random.default_rng(0)
    text = chance.integers(0, 6, size=(50, 20))
    follows = np.zeros_like(text, dtype=bool)
    follows[:, 1:] = (text[:, 1:] == 4) & (text[:, :-1] == 2)
    never = np.zeros_like(follows)
    fired = np.stack([text == 5, follows, never], axis=2).reshape(-1, 3).astype(np.float32)
    look_up = LookUp.of(np.array([1, 0, 2, 1]), np.array([4, 5, 1, 4]))
    context = Patterns.of([(0, 5, ()), (1, 4, ((1, 2),))])
    counts = np.zeros(3, COUNTS)
    for part in np.split(np.arange(50), 5):
        rows = (part[:, None] * 20 + np.arange(20)).ravel()
        place, unit = np.nonzero(3 * fired[rows] >= firing_threshold(np.array([3.0, 3.0, 0.0])))
        count_predictions(counts, look_up, context, TextOrder(text[part]), place, unit)
    by_token, by_context = predictor_scores(counts, "lookup"), predictor_scores(counts, "context")
    assert by_token.f1[0] == by_context.f1[0] == by_context.f1[1] == by_context.precision[1] == 1
    share = follows.sum() / (text == 4).sum()
    assert by_token.precision[1] == pytest.approx(share)
    assert by_token.recall[1] == 1
    assert by_token.f1[1] == pytest.approx(2 * share / (1 + share))
    # What never fires cannot be predicted, but predictions of it can be wrong.
    assert by_token.precision[2] == 0
    assert math.isnan(by_token.recall[2])
    assert math.isnan(by_token.f1[2])
    assert math.isnan(by_context.precision[2])


@given(
    st.lists(st.floats(-1e30, 1e38, allow_subnormal=True), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), max_size=6),
)
def test_a_unit_fires_from_half_of_its_maximum_to_the_last_bit(maxima: list[float], activations: list[float]) -> None:
    maximum = np.array(maxima)
    near = (FIRES * maximum).astype(np.float32)
    values = np.concatenate([np.array(activations, np.float32), near, np.nextafter(near, np.float32(np.inf))])
    slow = (values[:, None].astype(np.float64) >= FIRES * maximum) & (maximum > 0)
    assert np.array_equal(values[:, None] >= firing_threshold(maximum), slow)


@given(
    examples=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=8),
    patterns=st.lists(_pattern, max_size=5),
    texts=st.lists(st.lists(_tokens, min_size=4, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_predictions_are_counted_as_pattern_by_pattern_and_place_by_place(
    examples: list[tuple[int, int]],
    patterns: list[tuple[int, int, tuple[tuple[int, int], ...]]],
    texts: list[list[int]],
    seed: int,
) -> None:
    fires = np.random.default_rng(seed).random((len(texts), 4, 3)) < 0.4
    counts = np.zeros(3, COUNTS)
    units, keys = np.array(examples, np.int64).reshape(-1, 2).T
    place, unit = np.nonzero(fires.reshape(-1, 3))
    order = TextOrder(np.array(texts, np.int64))
    count_predictions(counts, LookUp.of(units, keys), Patterns.of(patterns), order, place, unit)
    for one in range(3):
        of_unit = fires[:, :, one]
        assert counts["positives"][one] == of_unit.sum()
        look_up: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(each, key, ()) for each, key in examples]
        ways = {"lookup": look_up, "context": patterns}
        for name, known in ways.items():
            said = np.array([
                [any(_met(pattern, text, at) for pattern in known if pattern[0] == one) for at in range(4)]
                for text in texts
            ])  # fmt: skip
            assert counts[f"{name}_predicted"][one] == said.sum()
            assert counts[f"{name}_true_positives"][one] == (said & of_unit).sum()


def test_an_atlas_counts_what_slow_loops_count(built: Path, configure: Configure) -> None:
    settings, work = configure(), work_folder(built)
    collected = Collected(work / "collect")
    read = collected.contexts
    units = open_units(language_model.load_model(settings.model), settings)
    held_out = [number for number in range(len(read)) if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    assert held_out == held_out_contexts(len(read)).tolist()
    assert len(held_out) > 3
    activations: dict[tuple[int, int], np.ndarray] = {}
    for number in held_out:
        seen: dict[int, np.ndarray] = {}
        tokens = torch.tensor([[read.bos, *read.text_of(number).tolist()]])

        def keep(layer: int, _: torch.Tensor, fired: torch.Tensor, seen: dict[int, np.ndarray] = seen) -> None:
            seen[layer] = fired[0, 1:].numpy()

        units.run(tokens, keep)
        activations |= {(layer, number): fired for layer, fired in seen.items()}
    predicted = 0
    for layer in collected.layers:
        described = Described(layer.layer, work / "describe")
        assert described.prediction is not None
        for unit in range(0, layer.units, 5):
            maximum = float(layer.moments.maximum[unit])
            words, patterns = set(), set()
            for place in range(int(layer.starts[unit]), int(layer.starts[unit + 1])):
                example = layer.examples[place]
                if int(example["context"]) in held_out:
                    continue
                text = read.text_of(int(example["context"])).tolist()
                key = int(example["position"])
                words.add((unit, text[key], ()))
                importance = described.importance.of(place)
                if importance is not None:
                    reach = len(importance) - 1
                    needed = [(reach - at, text[key - (reach - at)]) for at in range(reach) if importance[at] > NEEDED]
                    patterns.add((unit, text[key], tuple(needed)))
            wanted = dict.fromkeys(COUNTS.names or (), 0)
            wanted |= {"graph_predicted": UNTRIED}  # nobody asked for graphs
            for number in held_out:
                text = read.text_of(number).tolist()
                for at in range(len(text)):
                    fires = activations[layer.layer, number][at, unit] >= FIRES * maximum and maximum > 0
                    wanted["positives"] += fires
                    for name, found in (("lookup", words), ("context", patterns)):
                        said = any(_met(pattern, text, at) for pattern in found)
                        wanted[f"{name}_predicted"] += said
                        wanted[f"{name}_true_positives"] += said and fires
            assert {name: int(described.prediction[name][unit]) for name in wanted} == wanted
            predicted += wanted["lookup_true_positives"]
    assert predicted > 0


def test_records_and_pages_say_how_well(built: Path) -> None:
    paths = sorted(built.glob("L*/N*.json"))
    records = [json.loads(path.read_bytes()) for path in paths]
    path, record = next(
        (path, record) for path, record in zip(paths, records, strict=True) if record["prediction"]["fired"]
    )
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    found = record["prediction"]["lookup"]
    assert f"<dt>Token F1<dd>{found['f1']:.2g}<" in page
    if found["precision"] and found["recall"]:
        both = 2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"])
        assert found["f1"] == pytest.approx(both, rel=2e-3)


def test_context_predicts_nothing_where_no_token_was_masked(configure: Configure, built: Path) -> None:
    build(configure(describe={"importance": "none"}), built)
    record = json.loads((built / "L0" / "N0.json").read_bytes())
    assert record["prediction"]["context"] == {"precision": None, "recall": None, "f1": None}
    assert record["prediction"]["lookup"]["f1"] is not None
    assert "Context F1<dd>–" in (built / "L0" / "N0.html").read_text(encoding="utf-8")


def test_what_was_not_tried_is_not_said(configure: Configure, built: Path) -> None:
    build(configure(describe={"prediction": False, "importance": "none"}), built)
    record = json.loads((built / "L0" / "N0.json").read_bytes())
    assert record["prediction"] is None
    assert "Token F1" not in (built / "L0" / "N0.html").read_text(encoding="utf-8")
