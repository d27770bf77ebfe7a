"""A published atlas compared with a second reading, and builds that went wrong in ways that happen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.models import language_model
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.rerun.source import open_rerun
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.verify.run import Verification, verify
from atlas_builder.verify.selection import orders
from tests.attacks.claims import Attacker, alterations, richest_unit
from tests.support.atlases import Configure


# Plain units and gated ones, each policy, and the methods that need a background; the tiny atlas has another.
@pytest.mark.parametrize(
    ("family", "policy", "least", "method"),
    [
        ("gpt2", "threshold", 12, "linkage"),
        ("llama", "top", 12, "hdbscan"),
        ("gpt2", "robust", 12, "linkage"),
        ("llama", "robust", 5, "linkage"),
    ],
)
def test_what_was_built_holds(
    family: str,
    policy: str,
    least: int,
    method: str,
    request: pytest.FixtureRequest,
    configure: Configure,
    pool: Executor,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    settings = configure(
        model={"name": str(folder)},
        examples={"policy": policy, "share": 0.8, "least": least},  # which some units have, others not
        clusters={"method": method},
        describe={"steering": True},
    )
    site = build(settings, tmp_path / "site", executor=pool)
    report = verify(site, units=12, seed=1)
    assert report.problems == []
    assert report.compared["activations"] > 500
    assert report.compared["measures"] > 20
    assert report.compared["behaviours"] > 20
    assert report.compared["labels"] > 50
    assert report.compared["statistics"] == 12 * 5
    assert report.compared["histograms"] == 12
    assert report.compared["logit effects"] == 12 * 20
    assert report.compared["token predictors"] > 12
    for kind in ("bands", "importance", "neighbours", "tokens"):
        assert report.compared[kind] > 12
    assert report.compared["clamped units"] > 40
    assert report.largest["activations"] < 0.01
    assert "all claims hold" in report.summary


Mutation = Callable[[pytest.MonkeyPatch], None]


def another_activation_function(patch: pytest.MonkeyPatch) -> None:
    """A close relative, as when a configuration says gelu and the code runs gelu_new or relu."""
    load = language_model.load_model

    def mutated(settings: Any) -> LanguageModel:
        loaded = load(settings)
        for block in loaded.bridge.original_model.transformer.h:
            block._original_component.mlp._original_component.act = torch.nn.SiLU()
        return loaded

    patch.setattr(language_model, "load_model", mutated)


def a_shifted_position(patch: pytest.MonkeyPatch) -> None:
    """Activations one token late."""
    run = MLPUnits.run

    def mutated(self: MLPUnits, tokens: torch.Tensor, visit: Any, **more: Any) -> None:
        run(self, tokens, lambda layer, inputs, fired: visit(layer, inputs, fired.roll(1, dims=1)), **more)

    patch.setattr(MLPUnits, "run", mutated)


def no_beginning_of_sequence(patch: pytest.MonkeyPatch) -> None:
    """Contexts without the token that should head them."""
    patch.setattr(LanguageModel, "bos", None)


def inputs_of_another_token(patch: pytest.MonkeyPatch) -> None:
    """Embeddings of the wrong token: nothing but distances can show it."""
    run = MLPUnits.run

    def mutated(self: MLPUnits, tokens: torch.Tensor, visit: Any, **more: Any) -> None:
        run(self, tokens, lambda layer, inputs, fired: visit(layer, inputs.roll(1, dims=1), fired), **more)

    patch.setattr(MLPUnits, "run", mutated)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        yield


@pytest.mark.parametrize(
    ("mutation", "shows_in"),
    [
        (another_activation_function, "activation"),
        (a_shifted_position, "activation"),
        (no_beginning_of_sequence, "max is published"),
        (inputs_of_another_token, "distance is published"),
    ],
)
def test_a_build_that_went_wrong_is_found_out(
    mutation: Mutation, shows_in: str, configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    with mutated(mutation):
        site = build(configure(describe={"importance": "none"}), tmp_path / "site", executor=pool)
    report = verify(site, units=6)
    assert any(shows_in in problem for problem in report.problems), report.problems[:5]
    assert "do not hold" in report.summary


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("value", lambda record: record["examples"][0]["values"].__setitem__(record["examples"][0]["key"], 0.001)),
        ("token", lambda record: record["examples"][0]["tokens"].__setitem__(0, "never")),
        ("position", lambda record: record["examples"][0].__setitem__("position", 10**6)),
        ("measure", lambda record: record["polysemanticity"].__setitem__("mean_distance", 1.9)),
        ("label", lambda record: record["examples"][0].__setitem__("behaviour", 99)),
        ("coverage", lambda record: [behaviour.__setitem__("coverage", 2.0) for behaviour in record["behaviours"]]),
        ("count", lambda record: record["polysemanticity"].__setitem__("examples", 999)),
        ("reach", lambda record: record["polysemanticity"].__setitem__("qualifying_contexts", 1)),
        ("look-up", lambda record: record["prediction"].__setitem__("fired", 10**6)),
        ("band", lambda record: record["bands"][1].__setitem__("range", [0.5, 9.0])),
    ],
)
def test_a_record_that_was_changed_is_found_out(
    field: str, change: Callable[[Any], None], tiny_site: Path, copy_of: Callable[[Path], Path], configure: Configure
) -> None:
    site = copy_of(tiny_site)
    for path in site.glob("L*/N*.json"):
        record = json.loads(path.read_bytes())
        if record["examples"]:
            change(record)
            path.write_text(json.dumps(record), encoding="utf-8")
    report = verify(site, units=4, overrides=_places(configure()))
    assert report.problems, field


def test_what_a_clamped_unit_does_is_compared_with_the_model(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    site = build(configure(describe={"importance": "none", "steering": True}), tmp_path / "site", executor=pool)
    for path in site.glob("L*/N*.json"):
        record = json.loads(path.read_bytes())
        if record["steering"]:
            record["steering"]["more"][0][1] += 0.05
            path.write_bytes(serialise(record | {"hash": content_hash(record)}))
    report = verify(site, units=6)
    assert report.problems
    assert all("clamped: more probable" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda file, other: file.unlink(), "is missing"),
        (lambda file, other: shutil.copyfile(other, file), "is that of tiny/L0/N1"),
        (lambda file, other: file.write_bytes(b"{"), "cannot be read"),
        (lambda file, other: file.write_bytes(b"{}"), "is not of the schema"),
        (lambda file, other: file.write_bytes(b"[]"), "is not of the schema"),
        (lambda file, other: file.write_bytes(other.read_bytes().replace(b'"kind"', b'"sort"')), "not of the schema"),
    ],
)
def test_a_record_that_is_not_the_units_is_one_sentence(
    spoil: Callable[[Path, Path], object], sentence: str, tiny_site: Path, copy_of: Callable[[Path], Path]
) -> None:
    site = copy_of(tiny_site)
    spoil(site / "L0" / "N0.json", site / "L0" / "N1.json")
    drawn = {0: [0], 1: [2]}
    (problem,) = Verification(site, open_rerun(tiny_site), drawn, 0, Progress(quiet=True)).report().problems
    assert sentence in problem
    assert problem.startswith("tiny/L0/N0: its record L0/N0.json")


def test_each_altered_fact_is_found(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    """A part of those that `tests.attacks.claims` alters."""
    site = copy_of(tiny_site)
    attacker = Attacker(site, *richest_unit(site), source=open_rerun(tiny_site))
    assert attacker.problems() == []
    tried = list(alterations(attacker.record, each=1, brief=True))[::9]
    assert len(tried) > 15
    assert [alteration.what for alteration in tried if not attacker.problems(alteration)] == []


def _places(config: Configuration) -> tuple[str, ...]:
    """Where model and corpus are: a copied site has no work folder beside it."""
    return f"model.name={config.model.name}", f"corpus.path={config.corpus.path}"


def test_an_atlas_carried_elsewhere_says_what_it_needs(
    tiny_site: Path, copy_of: Callable[[Path], Path], configure: Configure, tmp_path: Path
) -> None:
    site = copy_of(tiny_site)
    with pytest.raises(ConfigurationError, match=r"--set model\.name"):
        verify(site)
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "another text"}\n', encoding="utf-8")
    name, _ = _places(configure())
    with pytest.raises(ConfigurationError, match="name the same text"):
        verify(site, overrides=(name, f"corpus.path={other}"))
    lines = Path(str(configure().corpus.path)).read_text(encoding="utf-8").splitlines(keepends=True)
    other.write_text("".join(reversed(lines)), encoding="utf-8")  # as many tokens
    with pytest.raises(ConfigurationError, match="has other tokens than the text the atlas was built from"):
        verify(site, overrides=(name, f"corpus.path={other}"))
    assert verify(site, units=2, overrides=_places(configure())).problems == []


def test_examples_a_rounding_apart_may_stand_in_either_order() -> None:
    keys = np.array([1.0, 3.0, 3.0 - 1e-6, 0.5, 0.5])
    found = [order.tolist() for order in orders(np.lexsort([np.arange(5), -keys]), keys)]
    assert found == [[1, 2, 0, 3, 4], [1, 2, 0, 4, 3], [2, 1, 0, 3, 4], [2, 1, 0, 4, 3]]
    assert [order.tolist() for order in orders(np.array([], np.intp), np.array([]))] == [[]]


def test_what_is_no_atlas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="is not a built atlas"):
        verify(tmp_path)
    shutil.copyfile(__file__, tmp_path / "atlas.json")
    with pytest.raises(SiteError, match="is not JSON"):
        verify(tmp_path)
