"""An atlas fits what its host allows, and says what it left out."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import pytest

from atlas_builder.config import Site
from atlas_builder.pipeline import build
from atlas_builder.progress import Progress
from atlas_builder.site import budget
from atlas_builder.site.check import check
from atlas_builder.store import read_json
from tests.conftest import Configure, Listener


def test_less_is_shown_step_by_step_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 1000)

    def size(site: Site, place: int) -> int:
        return site.examples_per_unit * 10

    settings = Site(host="github-pages")
    assert budget.fitted(settings, 9, size, Progress(quiet=True)) == settings
    listener = Listener()
    less = budget.fitted(settings, 11, size, listener)
    assert (less.examples_per_unit, less.band_examples_shown) == (8, 2)
    assert "examples_per_unit 10 → 8" in listener.lines[0]
    assert budget.fitted(settings, 1000, size, listener).examples_per_behaviour == 1
    assert budget.fitted(Site(host="none"), 1000, size, listener) == Site(host="none")
    # What is less already stays.
    assert budget.fitted(Site(host="github-pages", examples_per_unit=3), 1000, size, listener).examples_per_unit == 3


def test_a_site_too_large_for_its_host_shows_less_and_holds_together(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(configure(), tmp_path / "site", executor=pool)
    pages = list((tmp_path / "site").glob("L*/N*.*"))
    whole = sum(path.stat().st_size for path in pages)
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", round(whole * 0.9))
    listener = Listener()
    build(configure(site={"host": "github-pages"}), tmp_path / "site", executor=pool, progress=listener)
    assert sum(path.stat().st_size for path in pages) <= whole * 0.9 * 0.9 * 1.02
    assert any("less is shown of each unit" in line for line in listener.lines)
    facts = read_json(tmp_path / "site" / "atlas.json")
    assert facts["shown"]["examples_per_unit"] < facts["configuration"]["site"]["examples_per_unit"]
    problems = [problem for problem in check(tmp_path / "site", Progress(quiet=True)).problems if " MB" not in problem]
    assert not problems
