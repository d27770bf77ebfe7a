from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder.collect.results import Collected
from atlas_builder.config import ExampleSettings
from atlas_builder.describe import associations
from atlas_builder.describe.associations import DrawnRows, Part, associate, associations_of, drawn_rows
from atlas_builder.describe.attributes import Attributes
from atlas_builder.describe.results import Described
from atlas_builder.progress import Progress
from tests.support.association_layers import CONTEXT, lately, slow_draws, text_of_words, write_layer

A, B = 0, 1
WORDS = [" def", " Class", *(f" w{number}" for number in range(2, 60))]
EXAMPLES = ExampleSettings()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """Units that are more active after A, that are less at their top after A, and that do not care."""
    text = text_of_words(len(WORDS), 400 * CONTEXT, {A: 0.02, B: 0.02})
    after, chance = lately(text, A), np.random.default_rng(1)
    noise = chance.exponential(size=(3, *text.shape))
    values = np.stack([noise[0] * (1 + 1.5 * after), noise[1] * (1 + 1.5 * ~after), noise[2]])
    return write_layer(tmp_path_factory.mktemp("planted"), WORDS, text, values.astype(np.float32))


def named(collected: Collected, folder: Path, executor: Executor) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    associate(collected, EXAMPLES, folder, executor, Progress(quiet=True))
    found = Described(0, folder).associations
    assert found is not None
    return found


def test_a_planted_association_is_named_and_a_word_as_frequent_is_not(planted: Collected, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        top, middle, neither = named(planted, tmp_path / "out", executor)
    for unit, sign in ((top, 1), (middle, -1)):
        first = unit["found"][0]
        assert first["token"] == A
        assert first["effect"] * sign > 0.05
        assert first["p"] <= 0.01
        assert (first["top"] - first["middle"]) * sign > 0
        assert B not in [one["token"] for one in unit["found"]]
    assert neither["found"] == []
    assert neither["tested"] > 10


def test_associations_are_the_same_bytes_however_the_work_is_divided(
    planted: Collected, tmp_path: Path, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = named(planted, tmp_path / "one", pool)
    monkeypatch.setattr(associations, "_UNITS_AT_ONCE", 1)
    with ThreadPoolExecutor(3) as executor:
        assert named(planted, tmp_path / "other", executor) == expected
    files = [(tmp_path / name / "L0.associations.json").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]


def test_draws_are_the_first_of_each_band_at_or_above_its_lower_edge(planted: Collected) -> None:
    layer = planted.layer(0)
    assert layer.draws is not None
    for unit in range(layer.units):
        rows = layer.draws[layer.draws["unit"] == unit]
        edges, expected = layer.band_edges[unit], []
        for band in range(len(edges) - 1):
            above = [row for row in rows if row["value"] >= edges[band]][:256]
            last = band == len(edges) - 2
            part = Part.TOP if last else Part.MIDDLE if band else Part.BELOW
            expected += [
                (row["context"], row["position"], part) for row in above if row["value"] < edges[band + 1] or last
            ]
        drawn = drawn_rows(layer, unit, 256)
        found = list(zip(drawn.context, drawn.position, drawn.part, strict=True))
        assert found == expected
        assert len(set(found)) == len(found)
        assert not drawn.side.any()


def test_shares_are_of_the_tokens_drawn_in_each_part(planted: Collected) -> None:
    drawn = drawn_rows(planted.layer(0), 0, 256)
    first = associations_of(drawn, Attributes(planted, 20), [0, 0, 0])["found"][0]
    contexts = planted.contexts
    after = [
        A in contexts.text_of(context)[max(0, position - 20) : position + 1]
        for context, position in zip(drawn.context, drawn.position, strict=True)
    ]
    for part in Part:
        assert first[part.name.lower()] == pytest.approx(np.mean(np.array(after)[drawn.part == part]))


def test_tokens_that_read_alike_are_one_named_by_the_most_frequent(planted: Collected, tmp_path: Path) -> None:
    text = text_of_words(4, 200 * CONTEXT, {0: 0.01, 1: 0.03})
    collected = write_layer(
        tmp_path / "alike", ["Def", " def", " a", " b"], text, np.ones((1, *text.shape), np.float32)
    )
    context, position = (grid.reshape(-1).astype(np.int32) for grid in np.indices(text.shape))
    table = Attributes(collected, 3).at(context, position, np.ones(len(context), np.bool_), 10)
    either = lately(text, 0, 3) | lately(text, 1, 3)
    assert table.named[0] == 1
    assert (table.holds[:, 0] == either.reshape(-1)).all()


@pytest.mark.parametrize("missing", [Part.MIDDLE, Part.TOP])
def test_nothing_is_tested_where_the_middle_or_the_top_is_empty(planted: Collected, missing: Part) -> None:
    drawn = drawn_rows(planted.layer(0), 0, 256)
    left = DrawnRows(*(column[drawn.part != missing] for column in drawn))
    found = associations_of(left, Attributes(planted, 20), [0])
    assert found["tested"] == 0
    assert found["found"] == []


def test_a_field_of_documents_is_named_with_its_value(tmp_path: Path, pool: Executor) -> None:
    text = text_of_words(len(WORDS), 400 * CONTEXT, {A: 0.02, B: 0.02})
    genre = np.arange(len(text)) * 7919 % 11 < 3
    fields = [{"genre": "code" if one else "prose", "number": str(place)} for place, one in enumerate(genre.tolist())]
    del fields[5]["genre"]
    noise = np.random.default_rng(2).exponential(size=(1, *text.shape))
    values = (noise * (1 + genre[:, None])).astype(np.float32)
    collected = write_layer(tmp_path / "fields", WORDS, text, values, fields)
    (unit,) = named(collected, tmp_path / "out", pool)
    assert {(one.get("field"), one.get("value")) for one in unit["found"][:2]} == {
        ("genre", "code"),
        ("genre", "prose"),
    }
    assert all(one["effect"] > 0 for one in unit["found"] if one.get("value") == "code")


def test_the_own_and_the_other_tokens_of_an_output_neuron_are_compared_apart(tmp_path: Path, pool: Executor) -> None:
    """A word that goes with where the token comes next, and so with a high logit, but with neither side's logit."""
    text = text_of_words(len(WORDS), 400 * CONTEXT, {A: 0.03, B: 0.03})
    chance = np.random.default_rng(3)
    after_a, after_b = lately(text, A), lately(text, B)
    is_own = chance.random(text.shape) < np.where(after_a, 0.2, 0.02)
    values = (chance.normal(size=text.shape) + 1.5 * is_own + 1.5 * after_b).astype(np.float32)[None]
    collected = write_layer(tmp_path / "own", WORDS, text, values)
    layer = tmp_path / "own" / "L0"
    own = slow_draws(np.where(is_own, values, np.nan), values.size, -np.inf)
    np.save(layer / "own.npy", own)
    np.save(layer / "draws.npy", slow_draws(np.where(is_own, np.nan, values), 256, -np.inf))
    edges = [-np.inf, *np.quantile(own["value"], [0, 0.1, 0.5, 0.9]), values.max()]
    np.save(layer / "band_edges.npy", np.array([edges]))
    drawn = drawn_rows(collected.layer(0), 0, 256)
    assert not (drawn.part[drawn.side == 1] == Part.BELOW).any()
    for part in (Part.MIDDLE, Part.TOP):
        for side in (0, 1):
            assert (is_own[drawn.context, drawn.position][drawn.side == side] == side).all()
            assert ((drawn.part == part) & (drawn.side == side)).any()
    (unit,) = named(collected, tmp_path / "out", pool)
    tokens = [one["token"] for one in unit["found"]]
    assert B in tokens
    assert A not in tokens
