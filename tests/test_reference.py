"""What an atlas claims equals what a slow, independent reading of the model finds."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest

from atlas_builder import config
from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.corpus import documents
from atlas_builder.demo import MODEL
from atlas_builder.describe.run import Described
from atlas_builder.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.pipeline import build
from tests import reference

UNITS = 50
TOLERANCE = 2e-4  # relative to a unit's maximum: float32, other batch sizes


def _cases() -> list[str]:
    cases = ["demo", "gpt2", "llama"]
    # Any model can be checked the same way: ATLAS_MODEL=folder ATLAS_CORPUS=file.jsonl pytest tests/test_reference.py
    return [*cases, "given"] if os.environ.get("ATLAS_MODEL") else cases


@pytest.fixture(scope="module", params=_cases())
def built(
    request: pytest.FixtureRequest, pool: Executor, jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[config.Configuration, Path, Path]:
    """A configuration, its model's folder and the work folder of its build."""
    policy = "top" if request.param == "llama" else "threshold"
    data: dict[str, dict[str, object]] = {
        "corpus": {"source": "jsonl", "path": str(jsonl), "context": 32},
        "examples": {"policy": policy, "per_unit": 15, "threshold": 0.6, "seed": 3},
    }
    if request.param == "demo":
        folder = MODEL
        data["corpus"] = {"source": "stdlib", "max_tokens": 12_000}
    elif request.param == "given":
        folder = Path(os.environ["ATLAS_MODEL"])
        data["corpus"] = {"source": "jsonl", "path": os.environ["ATLAS_CORPUS"], "max_tokens": 12_000}
    else:
        folder = request.getfixturevalue(f"{request.param}_folder")
    settings = config.validate({"model": {"name": str(folder)}, **data})
    output = tmp_path_factory.mktemp("reference") / request.param
    build(settings, output, executor=pool)
    return settings, folder, output.parent / f".{output.name}.work"


def test_examples_statistics_embeddings_distances_and_measures_equal_a_slow_reading(
    built: tuple[config.Configuration, Path, Path],
) -> None:
    settings, folder, work = built
    slow = reference.SlowModel(folder)
    collected = Collected(work / "collect")
    texts = [document.text for document in documents(settings.corpus)]
    generator = np.random.default_rng(0)
    checked = looked_at = 0
    for layer in collected.layers:
        readings = slow.read(texts, settings.corpus.context, layer.layer, settings.corpus.max_tokens)
        parts = slow.read_weights(layer.layer)
        clustered = Clustered(layer.layer, work / "cluster")
        assert layer.tokens == sum(len(reading.tokens) for reading in readings)
        count = min(layer.units, -(-UNITS // len(collected.layers)))
        for unit in generator.choice(layer.units, count, replace=False):
            courses = [reading.activations[:, unit] for reading in readings]
            _check_statistics(layer.moments[:, unit], np.concatenate(courses))
            if _check_selection(layer.of(unit), courses, settings, layer.layer, int(unit)):
                checked += 1
            looked_at += 1
            embeddings = _check_embeddings(layer, layer.of(unit), readings, parts, int(unit))
            labels = clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
            wanted = reference.measures(embeddings, [int(label) for label in labels])
            for name, value in wanted.items():
                assert clustered.measures[unit][name] == pytest.approx(value, abs=2e-4, nan_ok=True), (unit, name)
    # A context at the very border may fall on either side of it in another batch; most units have none.
    assert checked > looked_at / 2


def _check_statistics(moments: np.ndarray, activations: np.ndarray) -> None:
    maximum, mean, deviation, density = moments
    scale = float(np.abs(activations).max())
    assert maximum == pytest.approx(float(activations.max()), abs=TOLERANCE * scale)
    assert mean == pytest.approx(activations.mean(dtype=np.float64), abs=TOLERANCE * scale)
    assert deviation == pytest.approx(activations.std(dtype=np.float64), abs=TOLERANCE * scale)
    assert density == pytest.approx((activations > 0).mean(), abs=2 / len(activations))


def _check_selection(
    examples: np.ndarray, courses: list[np.ndarray], settings: config.Configuration, layer: int, unit: int
) -> bool:
    """Whether the choice could be compared exactly, that is, no key activation is too near a border."""
    keys = [float(course.max()) for course in courses]
    for example in examples:
        course = courses[example["context"]]
        assert example["value"] == pytest.approx(keys[example["context"]], abs=TOLERANCE * max(keys))
        assert course[example["position"]] == pytest.approx(float(course.max()), abs=TOLERANCE * max(keys))
        before, after = settings.examples.window
        first = example["position"] - before
        for place, value in enumerate(example["window"]):
            if 0 <= first + place < len(course):
                assert value == pytest.approx(float(course[first + place]), abs=TOLERANCE * max(keys))
            else:
                assert np.isnan(value)
        assert len(example["window"]) == before + 1 + after
    rule = settings.examples
    wanted = reference.select(keys, rule.policy, rule.per_unit, rule.threshold, rule.seed, layer, unit)
    near = 2 * TOLERANCE * max(keys)
    border = rule.threshold * max(keys) if rule.policy == "threshold" else keys[wanted[-1]] if wanted else 0.0
    if sum(abs(key - border) < near for key in keys) > (rule.policy == "top"):
        return False
    assert set(examples["context"].tolist()) == set(wanted)
    return True


def _check_embeddings(
    layer: object, examples: np.ndarray, readings: list[reference.Reading], parts: list[np.ndarray], unit: int
) -> list[np.ndarray]:
    slow = []
    for example in examples:
        given = readings[example["context"]].inputs[example["position"]]
        slow.append(np.concatenate([given * part[unit] for part in parts]))
    fast = neuron_embeddings(layer.inputs[examples["row"]], layer.read_weights[:, unit])  # type: ignore[attr-defined]
    np.testing.assert_allclose(fast, np.array(slow).reshape(fast.shape), atol=1e-4 * max(1e-3, np.abs(fast).max()))
    distances = cosine_distances(fast)
    for i in range(0, len(slow), 4):
        for j in range(1, len(slow), 3):
            if i != j:
                assert distances[i, j] == pytest.approx(reference.distance(slow[i], slow[j]), abs=2e-4)
    return slow


def test_logit_effects_equal_the_definition_written_out(built: tuple[config.Configuration, Path, Path]) -> None:
    _, folder, work = built
    slow = reference.SlowModel(folder)
    gain = slow.norm.weight.detach().numpy().astype(np.float64)
    unembed = slow.model.lm_head.weight.detach().numpy().astype(np.float64)  # (vocabulary, d_model)
    for layer in Collected(work / "collect").layers:
        effects = Described(layer.layer, work / "describe").effects
        for unit in range(0, layer.units, 11):
            direction = slow.write_weights(layer.layer)[unit].astype(np.float64)
            if slow.is_gpt2:
                direction = direction - direction.mean()
            logits = unembed @ (gain * direction)
            logits = logits - logits.mean()
            np.testing.assert_allclose(effects.positive_values[unit], np.sort(logits)[::-1][:10], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(effects.negative_values[unit], np.sort(logits)[:10], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                logits[effects.positive[unit]], effects.positive_values[unit], rtol=1e-3, atol=1e-4
            )


def test_records_say_what_the_stages_found(built: tuple[config.Configuration, Path, Path]) -> None:
    _, _, work = built
    collected = Collected(work / "collect")
    site = work.parent / work.name.removeprefix(".").removesuffix(".work")
    for layer in collected.layers:
        for unit in range(0, layer.units, 7):
            record = json.loads((site / f"L{layer.layer}" / f"N{unit}.json").read_text(encoding="utf-8"))
            found = layer.of(unit)
            assert record["polysemanticity"]["examples"] == len(found)
            document = collected.contexts.document[found["context"]].tolist()
            position = (collected.contexts.offset[found["context"]] + found["position"]).tolist()
            by_place = dict(zip(zip(document, position, strict=True), found, strict=True))
            for shown in record["examples"]:
                example = by_place[shown["document"], shown["position"]]
                # Three digits of the unit's maximum.
                half = 0.501 * 10.0 ** (math.floor(math.log10(layer.moments[0, unit])) - 2)
                assert shown["values"][shown["key"]] == pytest.approx(float(example["value"]), abs=half)
                text = collected.contexts.text_of(int(example["context"]))
                assert shown["tokens"][shown["key"]] == collected.token_texts[text[example["position"]]]
