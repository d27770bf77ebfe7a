"""An atlas fits what its host allows, and says what it left out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest

from atlas_builder.config import SiteSettings
from atlas_builder.files import read_json
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.hosting import budget
from atlas_builder.site.hosting.check import check
from tests.support.atlases import Configure, Listener

_EXAMPLES = {"examples_per_behaviour", "examples_at_least"}


def test_less_is_shown_step_by_step_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 1000)

    def size(settings: Sequence[SiteSettings], units: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.array([[site.examples_per_unit * 10] * len(own) for site in settings]) for own in units]

    settings = SiteSettings(host="github-pages")
    assert budget.fitted(settings, [7], size, Progress(quiet=True)) == settings
    listener = Listener()
    less = budget.fitted(settings, [5, 3], size, listener)
    assert (less.examples_per_unit, less.band_examples_shown) == (8, 1)
    (said,) = listener.lines
    assert "examples_per_unit 10 → 8" in said
    assert "examples_at_least" not in said
    assert "75% are for them" in said
    assert budget.fitted(SiteSettings(host="none"), [1000], size, listener) == SiteSettings(host="none")
    # What is less already stays.
    assert (
        budget.fitted(SiteSettings(host="github-pages", examples_per_unit=3), [1000], size, listener).examples_per_unit
        == 3
    )


def test_where_nothing_suffices_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", 1000)
    listener = Listener()
    settings = SiteSettings(host="github-pages")
    less = budget.fitted(settings, [1000], lambda steps, units: [np.full((len(steps), len(units[0])), 10)], listener)
    assert less.examples_per_behaviour == 1
    assert "less is shown" in listener.lines[0]
    assert "Publish fewer layers" in listener.lines[1]


def test_examples_of_main_behaviours_are_given_up_last() -> None:
    kept = SiteSettings(examples_at_least=3)
    shown = [[min(step.get(name, 99), getattr(kept, name)) for step in budget.STEPS] for name in sorted(_EXAMPLES)]
    assert all(one >= other for steps in shown for one, other in itertools.pairwise(steps))
    least = [min(values) for values in zip(*shown, strict=True)]
    assert least[:-3] == [3] * (len(budget.STEPS) - 3)
    for name in {name for step in budget.STEPS for name in step} - _EXAMPLES - {"tokens_before", "tokens_after"}:
        assert budget.STEPS[-4][name] == budget.STEPS[-1][name], "it is given up before the third example"


def test_many_behaviours_leave_less_for_pages_and_records() -> None:
    assert budget.share_of_units(10**9, 100_000) == 0.75
    assert budget.share_of_units(10**9, 800_000) == pytest.approx(0.59)
    assert budget.share_of_units(10**9, 10**7) == 0


def test_small_atlases_are_counted_whole() -> None:
    sizes = np.random.default_rng(0).integers(1, 1000, size=200)
    layers = np.split(sizes, [120, 121])
    drawn = budget.sampled_units([120, 1, 79])
    found = budget.estimate([120, 1, 79], [own[places] for own, places in zip(layers, drawn, strict=True)])
    assert found.total == pytest.approx(sizes.sum())
    assert found.error == 0


def test_every_unit_counts_though_layers_differ_in_size() -> None:
    # A layer of few units and large ones: a sample that passes it over would be far off.
    layers = [3000, 3000, 10]
    drawn = [len(own) for own in budget.sampled_units(layers)]
    sizes = [np.full(drawn[0], 10), np.full(drawn[1], 10), np.full(drawn[2], 100_000)]
    assert budget.estimate(layers, sizes).total == 6000 * 10 + 10 * 100_000


def test_the_error_of_the_estimate_is_what_it_says() -> None:
    layers = [3072] * 12
    chance = np.random.default_rng(1)
    outside, errors = 0, []
    for _ in range(100):
        # Sizes as on a built site: a long tail, and layers that differ.
        means = chance.uniform(10_000, 30_000, size=(12, 1))
        sizes = means * chance.lognormal(0, 0.4, size=(12, 3072))
        found = budget.estimate(
            layers, [own[drawn] for own, drawn in zip(sizes, budget.sampled_units(layers), strict=True)]
        )
        outside += abs(found.total - sizes.sum()) > found.error
        errors.append(found.error / sizes.sum())
    assert 1 <= outside <= 12  # two standard errors hold 95 of 100
    assert max(errors) < 0.08


def test_a_site_too_large_for_its_host_shows_less_and_holds_together(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    build(configure(), tmp_path / "site", executor=pool, progress=listener)
    assert any(line.startswith("unit pages ") for line in listener.lines)
    pages = list((tmp_path / "site").glob("L*/N*.*"))
    whole = sum(path.stat().st_size for path in pages)
    monkeypatch.setitem(budget.SIZE_BUDGET, "github-pages", round(whole))
    listener = Listener()
    build(configure(site={"host": "github-pages"}), tmp_path / "site", executor=pool, progress=listener)
    assert sum(path.stat().st_size for path in pages) <= whole * 0.75 * 1.02
    assert any("less is shown of each unit" in line for line in listener.lines)
    facts = read_json(tmp_path / "site" / "atlas.json")
    assert facts["shown"]["band_examples_shown"] < facts["configuration"]["site"]["band_examples_shown"]
    problems = [problem for problem in check(tmp_path / "site", Progress(quiet=True)).problems if " MB" not in problem]
    assert not problems


def test_pages_without_planes_and_titles_show_their_records_whole(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    shown = {"planes": False, "activation_titles": False, "examples_at_least": 3, "examples_per_unit": 1}
    build(configure(site=shown), tmp_path / "site", executor=pool, progress=Progress(quiet=True))
    assert not check(tmp_path / "site", Progress(quiet=True)).problems
    for path in (tmp_path / "site").glob("L*/N*.html"):
        page, record = path.read_text(encoding="utf-8"), read_json(path.with_suffix(".json"))
        assert "<svg class=plane" not in page
        assert not re.search(r"<i [^>]*title=", page)
        sides = [record["polysemanticity"], (record["negative"] or {}).get("polysemanticity")]
        for sign, side in zip((1, -1), sides, strict=True):
            own = [behaviour for behaviour in record["behaviours"] if behaviour["sign"] == sign]
            for behaviour in own[: side["main_behaviours"] if side else 0]:
                assert len(behaviour["examples"]) <= 3
