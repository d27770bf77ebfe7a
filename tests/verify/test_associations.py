"""Associations of a built atlas, drawn and tested again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.rerun.source import open_rerun
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.run import verify
from tests.attacks.claims import Alteration, Attacker, alterations
from tests.support.atlases import Configure, Once, records_of

Record = dict[str, Any]
_QUICK = {"importance": "none", "prediction": False, "associations": True}


@pytest.fixture(scope="module")
def associated_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """An atlas whose small draws leave room for what is not drawn, of a model that goes with words before."""
    settings = configure(
        units={"layers": [0]},
        corpus={"context": 16},
        examples={"association_draws": 100, "bands": [0, 0.3, 0.7, 1]},
        describe=_QUICK,
        link={"map": False},
    )
    return once("associated", lambda output: build(settings, output, executor=pool))


def test_associations_that_were_named_hold(associated_site: Path) -> None:
    records = records_of(associated_site)
    assert any(record["associations"]["found"] for record in records)
    report = verify(associated_site, units=24)
    assert report.problems == []
    assert report.compared["associations"] > 24 * 3


def _alterations(record: Record) -> dict[str, Record | None]:
    """Altered associations of a record that names one or more, by what was altered."""
    its = record["associations"]
    first, *others = its["found"]
    altered = {
        "effect": [{**first, "effect": round(first["effect"] * 1.01, 4)}, *others],
        "p": [{**first, "p": first["p"] * 0.99}, *others],
        **{part: [{**first, part: round(first[part] + 0.01, 4)}, *others] for part in ("top", "middle", "below")},
        "token": [{**first, "token": first["token"] + "x"}, *others],
        "spelling": [{**first, "token": first["token"].upper() + " "}, *others],
        "twice": [first, *others, first],
        "left out": others,
    }
    numbers = {name: {**its, name: its[name] + 1} for name in ("tested", "draws", "named")}
    lists = {what: {**its, "found": found} for what, found in altered.items()}
    return {**lists, **numbers, "all": None}  # null is what is published where nothing was measured


def _put(its: Record | None, record: Record) -> None:
    record.update(associations=its)


def test_what_is_altered_is_found(associated_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(associated_site)
    chosen = max(records_of(site), key=lambda record: len(record["associations"]["found"]))
    attacker = Attacker(site, chosen["layer"], chosen["unit"], source=open_rerun(associated_site))
    own = [Alteration("associations", what, partial(_put, its)) for what, its in _alterations(chosen).items()]
    others = [one for one in alterations(chosen, each=1, brief=True) if one.field.startswith("associations")]
    assert len(others) > 5
    assert [one.what for one in (*own, *others) if not attacker.problems(one)] == []


@pytest.fixture(scope="module")
def output_site(configure: Configure, pool: Executor, once: Once) -> Path:
    """An atlas of output neurons, of which associations are measured by default, own tokens and others apart."""
    settings = configure(
        units={"kind": "logits", "top": 10},
        corpus={"context": 16},
        examples={"association_draws": 60, "own_bands": [0, 0.5, 1]},
        describe={"importance": "none", "prediction": False},
        link={"map": False},
    )
    return once("associated-outputs", lambda output: build(settings, output, executor=pool))


def test_associations_of_output_neurons_hold(output_site: Path) -> None:
    assert any(record["associations"]["tested"] for record in records_of(output_site))
    report = verify(output_site, units=10)
    problems = [*check(output_site, Progress(quiet=True)).problems, *report.problems]
    assert _of_associations(problems) == []
    assert report.compared["associations"] + 3 * report.not_compared.get("associations", 0) >= 30


def test_where_another_run_may_draw_others_a_unit_is_counted_as_not_compared(
    output_site: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong whatever was drawn is found all the same."""
    site = copy_of(output_site)
    chosen = next(record for record in records_of(site) if len(record["associations"]["found"]) < 5)
    attacker = Attacker(site, chosen["layer"], chosen["unit"], source=open_rerun(output_site))

    def altered(**changed: int) -> VerificationReport:
        its = {**chosen["associations"], **changed}
        return attacker.report(Alteration("associations", "", lambda record: record.update(associations=its)))

    more = {"tested": chosen["associations"]["tested"] + 1}
    for unsure in (False, True):
        monkeypatch.setattr("atlas_builder.verify.run.draws_differ", lambda *_, unsure=unsure: unsure)
        report = altered(**more)
        assert bool(_of_associations(report.problems)) != unsure
        assert report.not_compared == ({"associations": 1} if unsure else {})
        assert ("associations of 1 unit" in report.summary) == unsure
        assert _of_associations(altered(named=chosen["associations"]["named"] + 1).problems)


def _of_associations(problems: list[str]) -> list[str]:
    return [problem for problem in problems if "association" in problem]
