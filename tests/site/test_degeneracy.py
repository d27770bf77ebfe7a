"""What pages say of degeneracy, and what they leave out."""

from __future__ import annotations

import re
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import orjson
import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.context import Site
from atlas_builder.site.degeneracy import neuron_pages
from atlas_builder.site.hosting.check import check
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.publish import publish
from atlas_builder.workspace import work_folder
from tests.attacks.alterations import rehash
from tests.site.test_pages import _all_faults
from tests.support.atlases import Configure, stages_of

QUIET = Progress(quiet=True)
NONE: dict[str, Any] = {"count": 0, "units": []}


def degeneracy(layer: int, **changed: Any) -> dict[str, Any]:
    return {
        "layer": layer,
        "width": 16,
        "activations_rank": 15,
        "gradients_rank": 16,
        "units": 24,
        "dead": {"count": 14, "units": list(range(10, 24))},
        "always_on": NONE,
        "groups": {"count": 2, "units": [[0, 3], [1, 2, 4]]},
        "nearest": {"units": [5, 6], "by": "jaccard", "value": 0.8312},
        "directions_99": 9,
        "parameters": 808,
        "independent": 700,
        "needed": 48,
        "tokens": 2500,
        "sampled_tokens": 2000,
        **changed,
    }


def without_firing(layer: int) -> dict[str, Any]:
    slopes = {"units": [5, 6], "by": "slope cosine", "value": 0.97}
    return degeneracy(layer, dead=None, always_on=None, groups=None, nearest=slopes)


def shown(text: str) -> str:
    """The section as people read it."""
    section = re.search(r"<section[^>]*aria-labelledby=degeneracy>.*?</section>", text, re.DOTALL)
    assert section is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section[0]))


def layer_page(site: Path, *layers: dict[str, Any], **more: Any) -> str:
    facts = orjson.loads((site / "atlas.json").read_bytes())
    facts |= {"interaction": {"degeneracy": list(layers)}, **more}
    return PublishedSite.at(site, facts).pages.layer(0, [], [0, 1])["index.html"]


def test_an_atlas_with_degeneracy_is_published_strictly_and_checked_against_its_facts(
    tiny_site: Path, configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    facts = orjson.loads((tiny_site / "atlas.json").read_bytes())
    for name in ("prose", "renderer", "sha256", "queries"):
        facts.pop(name, None)
    facts["interaction"] = {"degeneracy": [degeneracy(0), without_firing(1)]}
    config = configure()
    site = tmp_path / "site"
    publish(Site(stages_of(work_folder(tiny_site)), config, facts, facts["date"]), site, pool, QUIET)
    assert check(site, QUIET).problems == []
    pages = [site / name for name in ("index.html", "L0/index.html", "L1/index.html")]
    assert _all_faults(pages) == []
    links = re.findall(r'<a href="([^"]*)">', (site / "L0/index.html").read_text(encoding="utf-8"))
    assert {f"../L0/N{unit}.html" for unit in (0, 3, 10, 23, 5, 6)} <= set(links)
    # Whoever alters the facts alone is found out by the pages.
    original = (site / "L0/index.html").read_text(encoding="utf-8")
    (site / "L0/index.html").write_text(original.replace("at most 700", "at most 701"), encoding="utf-8")
    rehash(site, tiny_site)
    assert any(problem.startswith("L0/index.html") for problem in check(site, QUIET).problems)


def test_without_a_report_pages_have_no_such_section(tiny_site: Path) -> None:
    for name in ("index.html", "L0/index.html"):
        assert "Degeneracy" not in (tiny_site / name).read_text(encoding="utf-8")
    assert "Degeneracy" not in layer_page(tiny_site, degeneracy(1))


def test_what_was_not_found_is_said_with_the_number_of_tokens(tiny_site: Path) -> None:
    text = shown(layer_page(tiny_site, degeneracy(0, dead=NONE, groups=NONE, nearest=None)))
    for name in ("Dead neurons", "Always-on neurons", "Firing together"):
        assert f"{name} None found in 2,500 tokens." in text
    assert "Nearest pair None found in 2,000 tokens." in text


def test_lists_of_many_say_how_many_there_are(tiny_site: Path) -> None:
    found = {"count": 1200, "units": list(range(1000))}
    text = shown(layer_page(tiny_site, degeneracy(0, units=3000, dead=found)))
    assert "1,200 of 3,000 (40%)" in text
    assert "and 200 more" in text


def test_neurons_without_firing_sets_are_not_said_to_be_dead_or_alive(tiny_site: Path) -> None:
    text = shown(layer_page(tiny_site, without_firing(0)))
    assert "With gelu_new no neuron is exactly off" in text
    assert "Dead neurons" not in text
    assert "cosine 0.97 of their derivatives over 2,000 sampled tokens (our measure" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "at most 700 (87%), by our count"),
        ({"independent": None}, "not counted: it takes 48 sampled tokens, and there are 2,000"),
        ({"independent": None, "needed": None}, "not counted: the layer is too wide for it"),
    ],
)
def test_the_count_of_independent_parameters_is_named_ours(tiny_site: Path, changed: dict[str, Any], said: str) -> None:
    text = shown(layer_page(tiny_site, degeneracy(0, **changed)))
    assert f"Parameters 808 Independent {said}" in text
    assert ("is ours, not the paper’s" in text) == (not changed)


@pytest.mark.parametrize(
    ("kind", "counterpart", "expected"),
    [
        ("mlp", None, "../"),
        ("mlp", "../directions", "../"),
        ("basis", None, None),
        ("basis", "../neurons/", "../../neurons/"),
        ("basis", "https://example.org/neurons", "https://example.org/neurons/"),
        ("basis", "/neurons", "/neurons/"),
        ("sae", "../neurons", None),
    ],
)
def test_neurons_are_linked_where_they_have_pages(kind: str, counterpart: str | None, expected: str | None) -> None:
    assert neuron_pages(kind, counterpart, "../") == expected


def test_an_atlas_of_directions_without_one_of_neurons_names_them_plainly(tiny_site: Path) -> None:
    page = layer_page(tiny_site, degeneracy(0), kind="basis")
    section = re.search(r"<section class=degeneracy.*?</section>", page, re.DOTALL)
    assert section is not None
    assert "<dt>Firing together<dd><ul><li>0, 3</li><li>1, 2, 4</li></ul>" in section[0]


@pytest.mark.parametrize("units", [{}, {"kind": "basis"}])
def test_an_atlas_built_with_a_report_has_one_of_each_layer_and_passes_its_check(
    configure: Configure, pool: Executor, tmp_path: Path, units: dict[str, Any]
) -> None:
    site = build(configure(units=units, interaction={"report": True}), tmp_path / "site", executor=pool)
    facts = orjson.loads((site / "atlas.json").read_bytes())["interaction"]
    assert [one["layer"] for one in facts["degeneracy"]] == [0, 1]
    for one in facts["degeneracy"]:
        assert (one["width"] - one["activations_rank"], one["tokens"]) == (1, facts["tokens"])
        assert 0 < one["independent"] < one["parameters"]
        text = shown((site / f"L{one['layer']}/index.html").read_text(encoding="utf-8"))
        assert f"at most {one['independent']:,}" in text
    assert "Degeneracy by layer" in (site / "index.html").read_text(encoding="utf-8")
    assert check(site, QUIET).problems == []
