"""Output neurons: where their token comes next and where not, however the pass is divided."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import Executor
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_builder.collect import run
from atlas_builder.collect.checkpoints import Collectors
from atlas_builder.collect.own import OWN_SAMPLE
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.errors import AtlasError, ConfigurationError
from atlas_builder.models import memory
from atlas_builder.models.language_model import load_plain
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import work_folder
from tests.support import reference
from tests.support.atlases import Configure, digests

TOP = 8
DRAWS = 5
BANDS = [0, 0.1, 0.5, 0.9, 1]


@pytest.fixture
def settings(configure: Configure) -> Configuration:
    return configure(
        units={"kind": "logits", "top": TOP}, examples={"association_draws": DRAWS, "per_band": 2, "own_bands": BANDS}
    )


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCH_TOKENS", 128)
    monkeypatch.setattr(run, "_CONTEXTS_BETWEEN_CHECKPOINTS", 8)


def _activations(
    settings: Configuration, collected: Collected, tokens: np.ndarray
) -> dict[tuple[int, int], np.ndarray]:
    """By context and position, each unit's activation: logits of transformers' own model less their mean."""
    model = load_plain(settings.model)
    found = {}
    for context in range(len(collected.contexts)):
        rows = torch.from_numpy(collected.contexts.stack(np.array([context])).copy())
        with torch.inference_mode():
            logits = model(rows).logits[0].double()
        logits = (logits - logits.mean(-1, keepdim=True)).numpy()[collected.contexts.bos is not None :]
        for position, row in enumerate(logits[:, tokens]):
            found[context, position] = row
    return found


def _next_token(collected: Collected, context: int, position: int) -> int | None:
    text = collected.contexts
    place = int(text.starts[context]) + position + 1
    ends = context + 1 == len(text) or text.document[context + 1] != text.document[context]
    return None if place == text.starts[context + 1] and ends else int(text.tokens[place])


def _chance(settings: Configuration, layer: int, unit: int, place: tuple[int, int]) -> int:
    return reference.token_priority(settings.examples.seed, layer, unit, *place)


def test_every_position_is_an_own_one_or_another_or_a_documents_end(settings: Configuration, tmp_path: Path) -> None:
    output = tmp_path / "logits"
    build(settings, output, until="collect")
    collected = Collected(work_folder(output) / "collect")
    (layer,) = collected.layers
    tokens, own, draws = layer.output_tokens, layer.own, layer.draws
    assert tokens is not None
    assert own is not None
    assert draws is not None
    counts = np.bincount(np.asarray(collected.contexts.tokens))
    assert counts[tokens].tolist() == sorted(counts.tolist(), reverse=True)[:TOP]
    activations = _activations(settings, collected, tokens)
    following = {place: _next_token(collected, *place) for place in activations}
    for unit, token in enumerate(tokens.tolist()):
        of_unit = own[own["unit"] == unit]
        assert {(row["context"], row["position"]) for row in of_unit} == {
            place for place, comes in following.items() if comes == token
        }
        for row in (*of_unit, *draws[draws["unit"] == unit]):
            assert row["value"] == pytest.approx(activations[row["context"], row["position"]][unit], abs=1e-5)
        others = [
            (float(values[unit]), *place)
            for place, values in activations.items()
            if following[place] not in (token, None)
        ]
        chance = partial(_chance, settings, layer.layer, unit)
        others.sort(key=lambda other: chance(other[1:]))
        drawn = [(int(row["context"]), int(row["position"])) for row in draws[draws["unit"] == unit]]
        assert drawn == sorted(drawn, key=chance)
        edges = layer.band_edges[unit].tolist()
        values = sorted(of_unit["value"].tolist())
        exact = [
            values[min(math.ceil(Fraction(str(quantile)) * len(values)), len(values) - 1)] for quantile in BANDS[:-1]
        ]
        assert edges == [-math.inf, *exact, layer.moments.maximum[unit]]
        for low, high in itertools.pairwise(edges):
            first = [place for value, *place in others if value >= low - 1e-7][:DRAWS]
            known = [
                (int(row["context"]), int(row["position"]))
                for row in draws[draws["unit"] == unit]
                if row["value"] >= low
            ]
            assert known[:DRAWS] == [tuple(place) for place in first]
            assert high >= low
        sampled = layer.own_bands
        assert sampled is not None
        for row in sampled[sampled["unit"] == unit]:
            band = row["band"]
            assert edges[band] <= row["value"] <= edges[band + 1]
            rank = [(one["context"], one["position"]) for one in of_unit].index((row["context"], row["position"]))
            assert rank < OWN_SAMPLE


@pytest.mark.usefixtures("small_batches")
def test_neither_shards_nor_a_failure_leave_a_trace(
    settings: Configuration, configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neurons = configure(describe={"associations": True}, examples={"association_draws": DRAWS})
    for name, chosen in (("logits", settings), ("neurons", neurons)):
        whole = tmp_path / name
        build(chosen, whole, until="collect", executor=pool)
        wanted = digests(work_folder(whole) / "collect")
        parts = tmp_path / f"{name}-parts"
        for number in (1, 2, 3):
            shards.collect_shard(chosen, parts, number, 3)
        shards.merge_shards(chosen, parts)
        assert digests(work_folder(parts) / "collect") == wanted

        again = tmp_path / f"{name}-again"
        with monkeypatch.context() as patch:
            patch.setattr(Collectors, "checkpoint", _fails_at(3))
            with pytest.raises(AtlasError, match="Full"):
                build(chosen, again, until="collect", executor=pool)
        build(chosen, again, until="collect", executor=pool)
        assert digests(work_folder(again) / "collect") == wanted


def _fails_at(time: int) -> Callable[[Collectors], None]:
    """A checkpoint that fails when it is written for so many times."""
    written, write = itertools.count(1), Collectors.checkpoint

    def checkpoint(self: Collectors) -> None:
        if next(written) == time:
            raise AtlasError("Full.")
        write(self)

    return checkpoint


def test_a_unit_that_never_comes_has_no_bands(configure: Configure, tmp_path: Path) -> None:
    output = tmp_path / "never"
    build(configure(units={"kind": "logits", "tokens": [0]}), output, until="collect")
    (layer,) = Collected(work_folder(output) / "collect").layers
    assert layer.own is not None
    if not len(layer.own):
        assert np.isnan(layer.band_edges).all()
        assert len(layer.bands) == 0


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        ({"tokens": ["no such word here"]}, r"units\.tokens: 'no such word here' is \d+ tokens, .*one token each"),
        ({"tokens": [10**6]}, r"there is no token 1,000,000"),
        ({"tokens": [1, 1]}, "token 1 is the same token as token 1: remove one"),
        ({"top": 10**6}, "more than the vocabulary"),
        ({"file": "nowhere.txt"}, "is not a file"),
    ],
)
def test_tokens_that_are_none_are_refused(
    units: dict[str, object], sentence: str, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        build(configure(units={"kind": "logits", **units}), tmp_path / "refused", until="collect")


def test_tokens_are_named_in_a_file(configure: Configure, tmp_path: Path) -> None:
    text, numbers = tmp_path / "tokens.txt", tmp_path / "tokens.json"
    text.write_text("a\n\ne\n", encoding="utf-8")
    numbers.write_text('["a", 5]', encoding="utf-8")
    for file, count in ((text, 2), (numbers, 2)):
        output = tmp_path / file.stem / file.suffix[1:]
        build(configure(units={"kind": "logits", "file": str(file)}), output, until="collect")
        assert len(Collected(work_folder(output) / "collect").facts["output_tokens"]) == count
    text.write_text("a\n" + "x y " * 1000, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="longer than any token"):
        build(configure(units={"kind": "logits", "file": str(text)}), tmp_path / "x", until="collect")
    numbers.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not a JSON list"):
        build(configure(units={"kind": "logits", "file": str(numbers)}), tmp_path / "x", until="collect")
