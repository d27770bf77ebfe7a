"""What an atlas claims equals what a slow, independent reading of the model finds."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder import config
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.bands import DRAWN
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config_file import validate
from atlas_builder.corpus.documents import documents
from atlas_builder.describe.results import Described
from atlas_builder.pipeline.build import build
from tests.support import reference
from tests.support.models import SHAPES

UNITS = 24
TOLERANCE = 2e-4  # relative to a unit's largest activation: float32, other batch sizes


class Case:
    """An atlas, and the model it was made from."""

    def __init__(self, settings: config.Configuration, model: Path, site: Path) -> None:
        self.settings, self.site = settings, site
        self.work = site.parent / f".{site.name}.work"
        self.collected = Collected(self.work / "collect")
        self.slow = reference.SlowModel(model)


@functools.lru_cache(maxsize=4)
def _readings(case: Case, layer: int) -> list[reference.Reading]:
    texts = [document.text for document in documents(case.settings.corpus)]
    return case.slow.read(texts, case.settings.corpus.context, layer, case.settings.corpus.max_tokens)


class Unit:
    """A unit, with its activations as the slow reading has them."""

    def __init__(self, case: Case, layer: CollectedLayer, number: int) -> None:
        self.layer, self.number = layer, number
        self.rule = case.settings.examples
        self.readings = _readings(case, layer.layer)
        self.courses = [reading.activations[:, number] for reading in self.readings]
        self.activations = np.concatenate(self.courses)
        # Activations that differ by less may come in either order.
        self.near = TOLERANCE * float(np.abs(self.activations).max())
        self.of_bands = layer.bands["unit"] == number  # of the tokens drawn

    def window(self, token: np.ndarray) -> np.ndarray:
        """The activations around the key token of an example or of a band, NaN outside the context."""
        before, after = self.rule.window
        padded = np.pad(self.courses[token["context"]], (before, after), constant_values=np.nan)
        return padded[token["position"] : token["position"] + before + 1 + after]


def _cases() -> list[str]:
    cases = ["demo", *SHAPES]
    # Any model can be checked the same way: ATLAS_MODEL=folder ATLAS_CORPUS=file.jsonl pytest tests/test_reference.py
    return [*cases, "given"] if os.environ.get("ATLAS_MODEL") else cases


@pytest.fixture(scope="module", params=_cases())
def case(
    request: pytest.FixtureRequest,
    pool: Executor,
    jsonl: Path,
    tiny_model: Callable[[str], Path],
    narrow_demo: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    policy = {"llama": "top", "gemma": "top", "gpt2": "robust", "mistral": "robust"}.get(request.param, "threshold")
    data: dict[str, dict[str, object]] = {
        "corpus": {"source": "jsonl", "path": str(jsonl), "context": 32, "max_tokens": 2500},
        "examples": {"policy": policy, "per_unit": 15, "threshold": 0.6, "least": 8, "seed": 3},
        # What takes longest has tests of its own.
        "clusters": {"resamples": 4},
        "describe": {"importance": "none"},
        "link": {"map": False},
    }
    if request.param == "demo":
        folder = narrow_demo
        data["corpus"] = {"source": "stdlib", "max_tokens": 12_000}
    elif request.param == "given":
        folder = Path(os.environ["ATLAS_MODEL"])
        data["corpus"] = {"source": "jsonl", "path": os.environ["ATLAS_CORPUS"], "max_tokens": 12_000}
    else:
        folder = tiny_model(request.param)
    settings = validate({"model": {"name": str(folder)}, **data})
    return Case(settings, folder, build(settings, tmp_path_factory.mktemp("reference") / request.param, executor=pool))


def test_examples_statistics_bands_embeddings_distances_and_measures_equal_a_slow_reading(case: Case) -> None:
    generator = np.random.default_rng(0)
    examples_exact: list[bool] = []
    bands_exact: list[bool] = []
    for layer in case.collected.layers:
        parts = case.slow.read_weights(layer.layer)
        clustered = Clustered(layer.layer, case.work / "cluster")
        assert layer.tokens == sum(len(reading.tokens) for reading in _readings(case, layer.layer))
        assert layer.signs == len(parts)
        count = min(layer.units, -(-UNITS // len(case.collected.layers)))
        for number in generator.choice(layer.units, count, replace=False):
            unit = Unit(case, layer, int(number))
            _check_statistics(unit)
            bands_exact += _check_bands(unit)
            known = 0  # behaviours of the unit so far
            for sign in (1, -1)[: layer.signs]:
                examples_exact.append(_check_selection(unit, sign))
                known += _check_behaviours(unit, sign, _check_embeddings(unit, sign, parts), clustered, known)
    # An activation at the very border may fall on either side of it in another batch; most lie elsewhere.
    for exact in (examples_exact, bands_exact):
        assert sum(exact) > len(exact) / 2


def _check_statistics(unit: Unit) -> None:
    values = unit.activations.astype(np.float64)
    *found, density = (float(part[unit.number]) for part in unit.layer.moments)
    wanted = [float(value) for value in (values.max(), values.min(), values.mean(), values.std())]
    assert found == pytest.approx(wanted, abs=unit.near)
    assert density == pytest.approx((values > 0).mean(), abs=2 / len(values))


def _check_selection(unit: Unit, sign: int) -> bool:
    """Whether the choice could be compared exactly, that is, no key activation is too near a border."""
    _, examples = unit.layer.of_side(unit.number, sign)
    keys = [float((sign * course).max()) for course in unit.courses]
    for example in examples:
        key = pytest.approx(keys[example["context"]], abs=unit.near)
        assert example["sign"] == sign
        assert sign * example["value"] == key
        assert sign * unit.courses[example["context"]][example["position"]] == key
        np.testing.assert_allclose(example["window"], unit.window(example), rtol=0, atol=unit.near)
    rule = unit.rule
    slow = reference.Rule(**{field.name: getattr(rule, field.name) for field in dataclasses.fields(reference.Rule)})
    wanted = reference.select(keys, slow, unit.layer.layer, unit.number, sign)
    borders = [max(0.0, border) for border in reference.borders(keys, slow)[: 2 if rule.policy == "robust" else 1]]
    if len(wanted) == {"top": rule.per_unit, "robust": rule.least}.get(rule.policy):
        borders.append(keys[wanted[-1]])
    if any(sum(abs(key - border) < 2 * unit.near for key in keys) > (border in keys) for border in borders):
        return False
    assert sorted(examples["context"].tolist()) == sorted(wanted)
    return True


def _check_bands(unit: Unit) -> list[bool]:
    """For each band whether its draw could be compared exactly: it is the same with activations a little off."""
    rule, edges = unit.rule, unit.layer.band_edges[unit.number]
    found = unit.layer.bands[unit.of_bands]
    off = [unit.activations + shift for shift in (-unit.near, 0.0, unit.near)]
    all_wanted = [reference.band_edges(activations.tolist(), rule.bands) for activations in off]
    wanted = [found for found in all_wanted if found is not None]
    if len(wanted) < len(all_wanted):  # it hardly fires, or never
        assert all_wanted[1] is not None or (np.isnan(edges).all() and not len(found))
        return []
    assert np.all((np.min(wanted, axis=0) <= edges) & (edges <= np.max(wanted, axis=0)))

    places = [(context, place) for context, course in enumerate(unit.courses) for place in range(len(course))]
    bounds = edges.tolist()
    if rule.bands[-1] == 1:
        bounds[-1] = math.inf  # nothing is above the maximum, even where it is a little off
    draws = []
    for activations in off:
        tokens = [(value, *place) for value, place in zip(activations.tolist(), places, strict=True)]
        drawn = rule.per_band * DRAWN
        draws.append(reference.draw_bands(tokens, bounds, drawn, rule.seed, unit.layer.layer, unit.number))
    exact = []
    for band, (lower, drawn, upper) in enumerate(zip(*draws, strict=True)):
        these = found[found["band"] == band]
        assert these["rank"].tolist() == list(range(len(these)))
        exact.append(lower == drawn == upper)
        if exact[-1]:
            assert list(zip(these["context"].tolist(), these["position"].tolist(), strict=True)) == drawn
    for token in found:
        value = float(unit.courses[token["context"]][token["position"]])
        assert token["value"] == pytest.approx(value, abs=unit.near)
        assert bounds[token["band"]] - unit.near <= value <= bounds[token["band"] + 1] + unit.near
    shown = unit.layer.bands[unit.layer.bands["rank"] < rule.per_band]
    for token, window in zip(shown, unit.layer.band_windows, strict=True):
        if token["unit"] == unit.number:
            np.testing.assert_allclose(window, unit.window(token), rtol=0, atol=unit.near)
    return exact


def _check_embeddings(unit: Unit, sign: int, parts: list[np.ndarray]) -> list[np.ndarray]:
    _, examples = unit.layer.of_side(unit.number, sign)
    inputs = unit.layer.inputs[examples["row"]]
    fast = neuron_embeddings(inputs, unit.layer.read_weights[:, unit.number])
    slow = []
    for example, given, embedding in zip(examples, inputs, fast, strict=True):
        wanted = unit.readings[example["context"]].inputs[example["position"]]
        slow.append(np.concatenate([wanted * part[unit.number] for part in parts]))
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-4 * np.abs(inputs).max())
        np.testing.assert_allclose(embedding, slow[-1], rtol=0, atol=1e-4 * np.abs(fast).max())
    distances = cosine_distances(fast)
    for i in range(0, len(slow), 4):
        for j in range(1, len(slow), 3):
            if i != j:
                assert distances[i, j] == pytest.approx(reference.distance(slow[i], slow[j]), abs=2e-4)
    return slow


def _check_behaviours(unit: Unit, sign: int, embeddings: list[np.ndarray], clustered: Clustered, known: int) -> int:
    """How many behaviours there are on this side; those of the other side before it are `known`."""
    first, examples = unit.layer.of_side(unit.number, sign)
    labels = [int(label) for label in clustered.labels[first : first + len(examples)]]
    wanted = reference.measures(embeddings, labels)
    found = clustered.measures[unit.number, 0 if sign > 0 else 1]
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=2e-4, nan_ok=True), (unit.number, sign, name)
    behaviours = clustered.behaviours[clustered.starts[unit.number] : clustered.starts[unit.number + 1]]
    behaviours = behaviours[behaviours["sign"] == sign]
    assert behaviours["id"].tolist() == sorted({label for label in labels if label >= 0})
    assert behaviours["id"].tolist() == list(range(known, known + len(behaviours)))
    assert behaviours["size"].tolist() == [labels.count(label) for label in behaviours["id"]]
    return len(behaviours)


def test_logit_effects_equal_the_definition_written_out(case: Case) -> None:
    for layer in case.collected.layers:
        effects = Described(layer.layer, case.work / "describe").effects
        for unit in range(0, layer.units, 11):
            logits = case.slow.logits(case.slow.write_weights(layer.layer)[unit].astype(np.float64))
            logits = logits - logits.mean()
            np.testing.assert_allclose(effects.positive_values[unit], np.sort(logits)[::-1][:10], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(effects.negative_values[unit], np.sort(logits)[:10], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                logits[effects.positive[unit]], effects.positive_values[unit], rtol=1e-3, atol=1e-4
            )


def test_records_say_what_the_stages_found(case: Case) -> None:
    for layer in case.collected.layers:
        for number in range(0, layer.units, 7):
            record = json.loads((case.site / f"L{layer.layer}" / f"N{number}.json").read_text(encoding="utf-8"))
            _check_record(record, Unit(case, layer, number), case.collected.token_texts)


def _check_record(record: dict[str, Any], unit: Unit, texts: list[str]) -> None:
    sides = {1: record, -1: record["negative"]} if unit.layer.signs == 2 else {1: record}
    for sign, side in sides.items():
        assert side["polysemanticity"]["examples"] == len(unit.layer.of_side(unit.number, sign)[1])
    assert record["stats"]["min"] == pytest.approx(float(unit.layer.moments.minimum[unit.number]), rel=1e-3)

    in_bands = [index for band in record["bands"] for index in band["examples"]]
    others = len(record["examples"]) - len(in_bands)
    # Those of bands come last: any of them may be an example as well.
    assert in_bands == list(range(others, len(record["examples"])))
    signs = {behaviour["id"]: behaviour["sign"] for behaviour in record["behaviours"]}
    examples = {(e["context"], e["position"], e["sign"]) for e in unit.layer.of(unit.number)}
    for shown in record["examples"][:others]:
        context, position, value = _check_shown(shown, unit, texts)
        sign = 1 if value > 0 else -1
        assert (context, position, sign) in examples
        assert shown["behaviour"] is None or signs[shown["behaviour"]] == sign
    drawn = {(token["context"], token["position"], token["band"]) for token in unit.layer.bands[unit.of_bands]}
    for number, band in enumerate(record["bands"]):
        for index in band["examples"]:
            context, position, _ = _check_shown(record["examples"][index], unit, texts)
            assert (context, position, number) in drawn
            assert record["examples"][index]["behaviour"] is None


def _check_shown(shown: dict[str, Any], unit: Unit, texts: list[str]) -> tuple[int, int, float]:
    """Context, position and activation of the key token that a record shows."""
    context, reading = next(
        (context, reading)
        for context, reading in enumerate(unit.readings)
        if reading.document == shown["document"] and 0 <= shown["position"] - reading.offset < len(reading.tokens)
    )
    position = shown["position"] - reading.offset
    course = unit.courses[context]
    value = float(course[position])
    # To three digits of the unit's maximum, or of its minimum below zero.
    peak = float(unit.layer.moments.maximum[unit.number] if value > 0 else -unit.layer.moments.minimum[unit.number])
    half = 0.5 * 10.0 ** (math.floor(math.log10(peak)) - 2)
    seen = slice(position - shown["key"], position - shown["key"] + len(shown["tokens"]))
    np.testing.assert_allclose(shown["values"], course[seen], rtol=0, atol=half + unit.near)
    assert shown["tokens"] == [texts[token] for token in reading.tokens[seen]]
    return context, position, value
