"""Each formula of the other stages altered in turn, in an atlas that is built with it: `verify` finds every one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlas_builder.collect import bands, statistics
from atlas_builder.collect.histogram import coarse_histogram
from atlas_builder.config import Configuration
from atlas_builder.describe import (
    ablation,
    labels,
    logits,
    novelty,
    shown_examples,
    steering,
    terms,
    token_predictors,
    token_scores,
)
from atlas_builder.describe import run as describe
from atlas_builder.link import run as link
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records import record
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import serialise
from atlas_builder.rerun.source import open_rerun
from atlas_builder.verify.records import Records
from atlas_builder.verify.run import Verification
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Once, records_of, stages_of

Patch = pytest.MonkeyPatch
STAGES = ["collect", "cluster", "describe", "link"]


@pytest.fixture(scope="module")
def config(configure: Configure) -> Configuration:
    return configure(
        examples={"policy": "robust", "per_unit": 80, "least": 60, "threshold": 0.5},
        describe={"steering": True},
        link={"map": False},
    )


@pytest.fixture(scope="module")
def unaltered(config: Configuration, pool: Executor, once: Once) -> Path:
    return once("formulas", lambda output: build(config, output, executor=pool))


@pytest.fixture(scope="module")
def verification(unaltered: Path) -> Verification:
    """Reads the model once, for all records."""
    drawn = {0: [*range(0, 24, 4)], 1: [0, 5]}
    records = records_of(unaltered)
    linked = [one for one in records for near in _neighbours(one) if near["wiring"] is not None]
    rare = [one for one in records for behaviour in one["behaviours"] if behaviour["size"] == 2]
    for one in (linked[0], rare[0]):  # rare things that some alterations need
        drawn[one["layer"]] = sorted({*drawn[one["layer"]], one["unit"]})
    return Verification(unaltered, open_rerun(unaltered), drawn, 0, Progress(quiet=True))


def _neighbours(one: dict[str, Any]) -> list[dict[str, Any]]:
    return [near for behaviour in one["behaviours"] for near in behaviour["neighbours"]]


def problems(verification: Verification, site: Path) -> list[str]:
    verification.records = Records(site, "tiny")
    return verification.report().problems


def test_what_is_not_altered_holds(unaltered: Path, verification: Verification) -> None:
    assert problems(verification, unaltered) == []


def constant(module: Any, name: str, value: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(module, name, value)


def result(module: Any, name: str, change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """What a function returns, changed."""
    as_it_is = getattr(module, name)
    return constant(module, name, lambda *given, **named: change(as_it_is(*given, **named)))


def argument(module: Any, name: str, change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """What a function is given first, changed."""
    as_it_is = getattr(module, name)
    return constant(module, name, lambda first, *given, **named: as_it_is(change(first), *given, **named))


ALTERATIONS: list[tuple[str, str, Callable[[Patch], None], str]] = [
    ("rarity", "describe", constant(terms.Terms, "rarity", property(
        lambda self: np.ones(int(self.term.max(initial=-1)) + 1)
    )), "label is"),
    ("separation", "describe", constant(
        terms.Terms, "separation", lambda self, pairs, group: np.ones(len(pairs))
    ), "label is"),
    ("key words", "describe", constant(labels, "_SHARE_OF_A_KEY", 0.9), "label is"),
    ("words listed", "describe", constant(labels, "_WORDS", 2), "label is"),
    ("token shares", "describe", argument(
        describe, "token_shares", lambda tokens: np.roll(tokens, 1, axis=1)
    ), "tokens"),
    ("tokens listed", "describe", constant(describe, "TOKENS_SHOWN", 4), "tokens"),
    ("next tokens", "describe", result(describe, "next_tokens", lambda tokens: tokens[::-1]), "next"),
    ("logit effects", "describe", constant(
        describe, "logit_effects", lambda write, unembedding: write @ unembedding + np.float32(0.1)
    ), "direct logit effects"),
    ("strongest", "describe", result(logits, "_top", lambda places: places[:, ::-1]), "direct logit effects"),
    ("importance", "describe", result(ablation.Masking, "importance", lambda values: values * 0.9), "importance"),
    ("fires", "describe", constant(token_scores, "FIRES", 0.3), "fires"),
    ("held out", "describe", constant(token_scores, "HELD_OUT_EVERY", 9), "fires|look-up|context"),
    ("needed", "describe", constant(token_predictors, "NEEDED", 0.05), "by the context"),
    ("scores", "publish", result(
        record, "predictor_scores", lambda scores: scores._replace(f1=scores.recall)
    ), "f1"),
    ("alike readings", "describe", constant(
        describe, "reads_like", lambda texts: np.arange(len(texts)) // 7
    ), "novelty"),
    ("significance", "publish", constant(novelty, "SIGNIFICANT", 1.1), "middle_differs"),
    ("clamped examples", "describe", constant(steering, "EXAMPLES_CLAMPED", 1), "clamped"),
    ("steering", "describe", result(steering, "largest", lambda found: found._replace(more_by=found.more_by * 1.1)),
     "clamped: more"),
    ("similarity", "link", argument(link, "directions", lambda inputs: inputs**3), "neighbour|similarity"),
    ("threshold", "link", constant(link, "_ONE_IN", 30), "neighbours"),
    ("weight cosine", "link", result(link, "_weight_cosines", lambda cosines: -cosines), "weight cosine"),
    ("tokens drawn", "collect", constant(bands, "DRAWN", 3), "drawn|is shown"),
    ("moments", "collect", result(statistics, "moments", lambda found: found._replace(
        deviation=found.deviation * 1.001
    )), "std"),
    ("edges of bands", "collect", result(bands, "band_edges", lambda edges: edges * np.array([1, 1, 1.1, 1, 1, 1])),
     "an edge"),
    ("histogram", "publish", constant(
        record, "coarse_histogram", lambda counts: coarse_histogram(counts, 16)
    ), "histogram"),
    ("same text", "publish", constant(shown_examples, "_ALIKE", 1), "shows|is shown"),
    ("grain", "publish", constant(record, "_IMPORTANCE_GRAIN", 0.1), "importance"),
    ("rare ones", "publish", constant(record, "_SHARE_OF_A_RARE_ONE", (1.0, 1.0)), "text around it"),
    ("bands' text", "publish", constant(record, "_AROUND_A_BAND", (4, 2)), "text around it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "alter", "shows_in"), [row[1:] for row in ALTERATIONS], ids=[row[0] for row in ALTERATIONS]
)
def test_an_altered_formula_is_found_out(
    stage: str,
    alter: Callable[[Patch], None],
    shows_in: str,
    config: Configuration,
    unaltered: Path,
    verification: Verification,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    site = tmp_path / "site"
    shutil.copytree(work_folder(unaltered), work_folder(site))
    alter(monkeypatch)
    if stage in STAGES:
        for later in STAGES[STAGES.index(stage) :]:
            shutil.rmtree(work_folder(site) / later)
        with ThreadPoolExecutor(1) as executor:  # in this process, which has the altered formula
            build(config, site, executor=executor, until="link")
    stages = stages_of(work_folder(site))
    for layer in stages.collected.layers:
        (site / f"L{layer.layer}").mkdir(parents=True)
        records = record.LayerRecords(stages, layer, config)
        for unit in range(layer.units):
            file = site / UnitAddress(layer.layer, unit).record
            file.write_bytes(serialise(records.record(unit)))
    monkeypatch.undo()
    found = problems(verification, site)
    assert any(re.search(shows_in, problem) for problem in found), found[:5]
