"""Output neurons by a second run: their tokens, and the bands of own positions and of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.rerun.source import open_rerun
from atlas_builder.verify.run import verify
from tests.attacks.claims import Alteration, Attacker
from tests.support.atlases import records_of

Record = dict[str, Any]


def test_records_of_output_neurons_hold(logits_site: Path) -> None:
    report = verify(logits_site, units=12)
    assert report.problems == []
    assert report.compared["bands"] > 100


def _own(record: Record, place: int) -> Record:
    band: Record = [band for band in record["bands"] if band["side"] == "own"][place]
    return band


ALTERATIONS: dict[str, Callable[[Record], Any]] = {
    "token": lambda record: record.update(token={**record["token"], "id": record["token"]["id"] + 1}),
    "text": lambda record: record["token"].update(text="other"),
    "own positions": lambda record: _own(record, 1).update(positions=_own(record, 1)["positions"] + 3),
    "side": lambda record: _own(record, 0).update(side="others"),
    "quantiles": lambda record: _own(record, 1).update(quantiles=[0.1, 0.4]),
    "edge": lambda record: _own(record, 1)["range"].__setitem__(0, _own(record, 1)["range"][0] * 1.1),
    "drawn": lambda record: _own(record, 2).update(drawn=_own(record, 2)["drawn"] - 1),
    "left out": lambda record: record["bands"].pop(0),
    "in another order": lambda record: record["bands"].reverse(),
    "differs": lambda record: record.update(middle_differs=not record["middle_differs"]),
}


def test_what_is_altered_is_found(logits_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(logits_site)
    chosen = max(records_of(site), key=lambda record: sum(len(band["examples"]) for band in record["bands"]))
    attacker = Attacker(site, chosen["layer"], chosen["unit"], source=open_rerun(logits_site))
    missed = [name for name, alter in ALTERATIONS.items() if not attacker.problems(Alteration("range", name, alter))]
    assert missed == []


@pytest.mark.parametrize("number", [3])
def test_tokens_of_another_configuration_are_found(number: int, logits_site: Path) -> None:
    report = verify(logits_site, units=1, overrides=(f"units.tokens=[{number}]",))
    assert any("as the configuration has it" in problem for problem in report.problems)
