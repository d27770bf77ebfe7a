"""All that is shipped, built and compared as one site."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from atlas_builder.cli import main
from atlas_builder.demo.gallery import ATLASES, build_gallery
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.results import beside, digest
from atlas_builder.progress import Progress
from atlas_builder.records.explanations import Explanation, ExplanationScores
from atlas_builder.shipped import CRATE, RELU
from atlas_builder.site.hosting.check import check
from atlas_builder.workspace import work_folder
from tests.support.atlases import Listener, Once

SMALL = (
    "corpus.max_tokens=8000",
    "units.layers=[2]",
    "examples.per_unit=20",
    "examples.per_band=1",
    "clusters.resamples=2",
    "describe.importance=none",
    "describe.graphs=false",
    "link.map=false",
)


@pytest.fixture(scope="module")
def gallery(pool: Executor, once: Once) -> Path:
    return once("gallery", lambda output: build_gallery(output, overrides=SMALL, executor=pool))


def test_all_open_as_one_site_that_leads_everywhere_and_back(gallery: Path) -> None:
    assert sorted(path.name for path in gallery.iterdir()) == sorted([*ATLASES, "assets", "index.html"])
    pages = [
        gallery / "index.html",
        *(gallery / name / page for name in ATLASES for page in ("index.html", "methods.html")),
    ]
    for page in pages:
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
            assert (page.parent / unquote(link)).is_file(), (page, link)
    for name in ATLASES:
        assert '../index.html">Atlases</a>' in (gallery / name / "methods.html").read_text(encoding="utf-8")
        assert f'href="{name}/index.html"' in pages[0].read_text(encoding="utf-8")


def test_all_of_it_is_checked_at_once(gallery: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(gallery)
    page = site / "index.html"
    page.write_text(re.sub(r"#b1\b", "#b99", page.read_text(encoding="utf-8"), count=1), encoding="utf-8")
    (site / "sae-demo" / "L2" / "N7.json").unlink()
    report = check(site, Progress(quiet=True))
    assert any("#b99 leads nowhere" in problem for problem in report.problems)
    assert any(problem.startswith("sae-demo/L2/N7.json: cannot be read") for problem in report.problems)
    # All the rest holds.
    assert [problem for problem in report.problems if not re.search(r"N7\b|L2/N0*7\.|^index.html", problem)] == []
    assert report.records == 512 * 4 + 127 * 2 - 1
    assert report.pages > report.records


def test_the_first_page_says_what_each_is(gallery: Path) -> None:
    text = re.sub(r"<[^>]*>", " ", (gallery / "index.html").read_text(encoding="utf-8"))
    for said in (
        "Small CRATE",
        "ReLU twin",
        "SAE latents",
        "coordinates",
        "latents",
        "neurons",
        "6 atlases of the same text",
        "directions",
        "Random directions",
        "behaviours at",
    ):
        assert said in text, said


def test_building_them_again_finds_nothing_to_do(gallery: Path, pool: Executor) -> None:
    before = (gallery / "index.html").read_bytes()
    heard = Listener()
    build_gallery(gallery, overrides=SMALL, executor=pool, progress=heard)
    assert len(heard.unchanged()) == 5 * len(ATLASES) + 4  # those with directions rotate first
    assert (gallery / "index.html").read_bytes() == before


def test_explanations_beside_an_atlas_are_kept_and_compared(
    gallery: Path, pool: Executor, copy_of: Callable[[Path], Path]
) -> None:
    site = copy_of(gallery)
    shutil.copytree(work_folder(gallery), work_folder(site))
    said = Explanation(
        "demo/L2/N7", 2, 7, None, digest(site / "demo", 2, 7), "a model", explanation="x", range_explanation="y",
        scores=ExplanationScores(0.5, 0.5, 0.5),
    )  # fmt: skip
    other = replace(said, unit=8, id="demo/L2/N8", does=digest(site / "demo", 2, 8))
    beside(site / "demo").write_text(said.line + other.line, encoding="utf-8")
    build_gallery(site, overrides=SMALL, executor=pool)
    assert beside(site / "demo").read_text(encoding="utf-8") == said.line + other.line
    assert "Explained by a model" in (site / "index.html").read_text(encoding="utf-8")


def test_atlases_beside_others_are_not_taken_for_such_a_site(gallery: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(gallery)
    (site / "my-model").mkdir()
    with pytest.raises(ConfigurationError, match="holds something that is not an atlas"):
        build_gallery(site, overrides=SMALL)
    assert (site / "my-model").is_dir()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    result = CliRunner().invoke(main, ["demo", "--all", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds something that is not an atlas" in result.output
    with pytest.raises(ConfigurationError, match="contains the current one"):
        build_gallery(Path.cwd().parent, fresh=True)
    assert (tmp_path / "thesis.txt").read_text() == "chapter one"


def test_crate_and_its_twin_were_trained_alike() -> None:
    one, other = (json.loads((model / "training.json").read_bytes()) for model in (CRATE, RELU))
    assert {**one["recipe"], "model": ""} == {**other["recipe"], "model": ""}
    assert one["corpus"] == other["corpus"]
    assert {path.name: path.read_bytes() for path in CRATE.glob("tokenizer*")} == {
        path.name: path.read_bytes() for path in RELU.glob("tokenizer*")
    }
