"""The generated atlas of the benchmarks: what it claims holds, and today's code publishes it."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.hosting.check import check
from atlas_builder.workspace import work_folder
from tests.benchmarks.generated import Shape, configuration, generate
from tests.support.atlases import Listener

SHAPE = Shape(layers=2, units=48, vocabulary=1000, tokens=20_000)


@pytest.fixture(scope="module")
def site(pool: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site of a generated atlas goes; the stages before it are there."""
    output = tmp_path_factory.mktemp("generated") / "site"
    generate(SHAPE, configuration(SHAPE), work_folder(output), pool, Progress(quiet=True))
    return output


def test_a_generated_atlas_is_published_as_it_is_and_holds_together(site: Path, pool: Executor) -> None:
    listener = Listener()
    build(configuration(SHAPE), site, executor=pool, progress=listener)
    assert listener.unchanged() == ["collect", "cluster", "describe", "link"]
    report = check(site, Progress(quiet=True))
    assert not report.problems
    assert report.records == SHAPE.layers * SHAPE.units


def test_what_is_counted_of_its_units_is_what_they_have(site: Path) -> None:
    work = work_folder(site)
    for layer in Collected(work / "collect").layers:
        clustered = Clustered(layer.layer, work / "cluster")
        np.testing.assert_array_equal(layer.histogram.sum(axis=1), SHAPE.tokens)
        assert 1 < len(clustered.behaviours) / layer.units < 2 * SHAPE.behaviours
        for unit in range(layer.units):
            examples, measures = layer.of(unit), clustered.measures[unit, 0]
            labels = clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
            own = clustered.behaviours[clustered.starts[unit] : clustered.starts[unit + 1]]
            assert len(np.unique(examples["context"])) == len(examples) == measures["examples"]
            assert (np.diff(examples["value"]) <= 0).all()
            assert (examples["value"] <= np.float32(layer.moments.maximum[unit])).all()
            np.testing.assert_array_equal(own["size"], [(labels == number).sum() for number in range(len(own))])
            assert [labels[place] for place in own["central"] - layer.starts[unit]] == own["id"].tolist()
            assert own["coverage"].sum() <= 1 + 1e-6


@pytest.mark.parametrize("policy", ["robust", "top"])
def test_its_selection_is_that_of_the_policy(policy: str, pool: Executor, tmp_path: Path) -> None:
    settings = configuration(SHAPE)
    examples = settings.examples.model_copy(update={"policy": policy, "least": 40})
    generate(SHAPE, settings.model_copy(update={"examples": examples}), tmp_path, pool, Progress(quiet=True))
    filled = 0
    for layer in Collected(tmp_path / "collect").layers:
        for unit in range(layer.units):
            values, selection = layer.of(unit)["value"].astype(np.float64), layer.selection[unit, 0]
            if policy == "robust":
                assert selection["robust"] == pytest.approx(values[:10].sum() / 10, rel=1e-6)
                assert selection["filled"] == (len(values) > selection["reach"])
                assert (values >= 0.999 * examples.weakest * selection["robust"]).all()
            else:
                assert selection["robust"] == pytest.approx(values.max(initial=0), rel=1e-6)
                assert len(values) <= examples.per_unit
            filled += selection["filled"]
    assert 0 < filled < SHAPE.layers * SHAPE.units


def test_the_same_seed_gives_the_same_bytes(site: Path, pool: Executor, tmp_path: Path) -> None:
    generate(SHAPE, configuration(SHAPE), tmp_path, pool, Progress(quiet=True))
    for stage in ("collect", "cluster", "describe", "link"):
        assert _contents(tmp_path / stage) == _contents(work_folder(site) / stage)


def _contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
