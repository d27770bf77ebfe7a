"""Atlases of the same text, compared."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import html5lib
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_array

from atlas_builder.cli import main
from atlas_builder.comparison import _SEEN, SHARED, Mean, compare, matches, mean
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.results import beside, digest
from atlas_builder.pipeline.build import build
from atlas_builder.records.explanations import Explanation, ExplanationScores
from tests.support.atlases import Configure, records_of


@pytest.fixture(scope="module")
def other_site(
    configure: Configure, crate_folder: Path, pool: Executor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A CRATE on the text of the tiny atlas."""
    settings = configure(
        atlas={"title": "A tiny <CRATE>"}, model={"name": str(crate_folder)}, units={"kind": "crate"},
        describe={"importance": "none"},
    )  # fmt: skip
    return build(settings, tmp_path_factory.mktemp("sites") / "crate", executor=pool)


def test_the_page_says_the_means_of_both_and_leads_to_their_pages(
    tiny_site: Path, other_site: Path, tmp_path: Path
) -> None:
    page = compare([tiny_site, other_site], tmp_path / "compared")
    text = page.read_text(encoding="utf-8")
    parser = html5lib.HTMLParser(strict=True)
    parser.parse(page.read_bytes())
    assert "A tiny &lt;CRATE&gt;" in text
    for site in (tiny_site, other_site):
        values = [
            record["polysemanticity"]["standard_behaviours"]
            for record in records_of(site)
            if record["polysemanticity"]["standard_behaviours"] is not None
        ]
        error = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
        low, high = np.mean(values) - error, np.mean(values) + error
        assert f"<td class=number>{np.mean(values):#.3g} <span class=note>{low:#.3g} to {high:#.3g}" in text
    assert _SEEN.why not in text
    for link in re.findall(r'(?:href|src)="([^"#]+)(?:#[^"]*)?"', text):
        assert (page.parent / link).is_file(), link
    assert text.count("<svg class=") >= 5


def test_matches_are_what_slow_loops_find() -> None:
    chance = np.random.default_rng(0)
    one, other = (chance.random((number, 60)) < 0.2 for number in (12, 9))
    other[3], other[4, :] = one[5], one[7] & (chance.random(60) < 0.9)
    shares = np.array([[(a & b).sum() / max((a | b).sum(), 1) for b in other] for a in one])
    wanted = {
        (row, column): shares[row, column]
        for row in range(len(one))
        for column in range(len(other))
        if shares[row, column] >= SHARED and shares[row, column] == shares[row].max() == shares[:, column].max()
    }
    found = matches(csr_array(one.astype(np.int64)), csr_array(other.astype(np.int64)))
    assert {(match.row, match.other): pytest.approx(match.share) for match in found} == wanted
    assert (found[0].row, found[0].other, found[0].share) == (5, 3, 1)
    assert [match.share for match in found] == sorted((match.share for match in found), reverse=True)


def test_an_atlas_matches_itself_and_has_nothing_of_its_own(tiny_site: Path, tmp_path: Path) -> None:
    text = compare([tiny_site, tiny_site], tmp_path / "compared").read_text(encoding="utf-8")
    behaviours = sum(len(record["behaviours"]) for record in records_of(tiny_site))
    found = re.search(r"<p id=\"match-0-1\">([\d,]+) of ([\d,]+) and ([\d,]+) behaviours match", text)
    assert found
    assert int(found[2].replace(",", "")) == int(found[3].replace(",", "")) == behaviours
    # Two behaviours of one set of examples are each other's best, and count as one pair each.
    assert int(found[1].replace(",", "")) >= behaviours
    assert "Only in" not in text


def test_a_mean_of_one_has_no_interval() -> None:
    assert mean(np.array([1.0])) is None
    assert mean(np.array([1.0, 1.0, 1.0])) == Mean(1, 1, 1, 3)


def test_settings_that_scores_rest_on_are_named_where_they_differ(
    configure: Configure, tiny_site: Path, pool: Executor, tmp_path: Path
) -> None:
    settings = configure(
        examples={"policy": "top"}, clusters={"method": "agglomerative", "cut": 0.4}, site={"noise_shown": 0}
    )
    other = build(settings, tmp_path / "other", executor=pool)
    text = compare([tiny_site, other], tmp_path / "compared").read_text(encoding="utf-8")
    for name, values in (("policy", "threshold; top"), ("method", "linkage; agglomerative"), ("cut", "0.55; 0.4")):
        assert f".{name}</code> ({values})" in text
    assert "noise_shown" not in text
    # The highest examples tell nothing at equal coverage, so what was seen is compared too.
    assert all(record["polysemanticity"]["standard_behaviours"] is None for record in records_of(other))
    assert _SEEN.why in text


def test_an_atlas_is_not_written_over(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    with pytest.raises(ConfigurationError, match="is an atlas, whose first page would be overwritten"):
        compare([tiny_site, site], site)
    assert (site / "index.html").read_bytes() == (tiny_site / "index.html").read_bytes()


def test_what_cannot_be_compared_is_said_in_a_sentence(tiny_site: Path, demo_site: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="built from different texts"):
        compare([tiny_site, demo_site], tmp_path / "compared")
    with pytest.raises(ConfigurationError, match="requires two atlases or more"):
        compare([tiny_site], tmp_path / "compared")
    with pytest.raises(ConfigurationError, match=r"compare: .*nowhere"):
        compare([tiny_site, tmp_path / "nowhere"], tmp_path / "compared")
    assert not (tmp_path / "compared").exists()
    result = CliRunner().invoke(main, ["compare", str(tiny_site), "--output", str(tmp_path / "compared")])
    assert result.exit_code == 2
    assert "requires two atlases or more" in result.output


def test_what_another_model_said_is_compared_too(
    tiny_site: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    site = copy_of(tiny_site)
    said = [
        Explanation(
            f"tiny/L0/N{unit}",
            0,
            unit,
            None,
            digest(site, 0, unit),
            "a <model>",
            scores=ExplanationScores(score, None, 1.0),
        )
        for unit, score in enumerate((0.25, 0.5, 0.75))
    ]
    # Of another atlas, and of this unit before it changed.
    wrong = ExplanationScores(-1, -1, -1)
    said += [replace(said[0], id="big/L0/N0"), replace(said[0], unit=5, id="tiny/L0/N5", does="0" * 64, scores=wrong)]
    # Of a behaviour, and by what others asked.
    said += [replace(said[0], behaviour=1, does=digest(site, 0, 0, 1), model="another", scores=wrong)]
    said += [replace(said[0], source="neuronpedia", model="another", scores=wrong)]
    beside(site).write_text("".join(one.line for one in said), encoding="utf-8")
    text = compare([site, tiny_site], tmp_path / "compared").read_text(encoding="utf-8")
    assert "<td class=number>0.500 <span class=note>0.217 to 0.783<br>of 3 units</span><td class=number>–" in text
    assert "Explained by a &lt;model&gt;" in text
    assert "random only" not in text
    other = Path(shutil.copytree(site, tmp_path / "other"))
    beside(other).write_text(replace(said[0], model="other").line, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="explained by a <model> and other: explain all with one model"):
        compare([site, other], tmp_path / "again")
