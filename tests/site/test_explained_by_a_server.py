"""From a server's answers to what readers see: the file that `explain` writes is the one that a build publishes."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path

import pyarrow.parquet as pq
from click.testing import CliRunner

from atlas_builder.cli import main
from atlas_builder.explain.results import beside, read_explanations
from atlas_builder.pipeline.build import build
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import PUBLISHED, Explanation
from atlas_builder.site.html import markup
from atlas_builder.site.search.index import read_index_file
from tests.support.atlases import Configure, digests
from tests.support.explained import explained_units
from tests.support.servers import looks_up, serving


def _says(question: str) -> str:
    """A model that reasons first, and names tokens after a word of its own."""
    return f"<think>Hm.</think>\nxylophones: {looks_up(question)}" if "We study" in question else looks_up(question)


def _scores_in_words(one: Explanation) -> str:
    """The scores as readers see them, each with what chance gives."""
    parts = []
    for name in ("detection", "fuzzing", "simulation"):
        value, floor = one.scores._asdict()[name], one.floor._asdict()[name]
        if value is not None:
            parts.append(f"{name} {value:.2f}" + ("" if floor is None else f" (at random {floor:.2f})"))
    return ", ".join(parts).replace("-0.00", "0.00").replace("-", "−")


def test_what_a_server_says_is_shown_everywhere_and_gone_without_the_setting(
    built: Path, configure: Configure, pool: Executor
) -> None:
    before = digests(built)
    with serving(_says) as address:
        command = ["explain", str(built), "--server", address, "--model", "stand-in", "--behaviours", "4"]
        result = CliRunner().invoke(main, [*command, "--only", explained_units(built)[0]["id"]])
    assert result.exit_code == 0, result.output
    file = beside(built)
    assert digests(built) == before
    lines = read_explanations(file)
    said = [one for one in lines if one.source == "explain"]
    assert sorted(one.behaviour is None for one in said) == [False] * 4 + [True]
    assert {one.source for one in lines} == {"explain", "label", "tokens"}

    build(configure(site={"explanations": str(file)}), built, executor=pool)
    published = [json.loads(line) for line in (built / PUBLISHED).read_text(encoding="utf-8").splitlines()]
    key = ["id", "behaviour", "source"]
    assert sorted(published, key=lambda line: [str(line[name]) for name in key]) == sorted(
        (json.loads(one.line) | {"current": True} for one in lines), key=lambda line: [str(line[name]) for name in key]
    )
    rows = {
        (row["id"], row.get("behaviour")): row
        for name in ("behaviours", "units")
        for row in pq.ParquetFile(built / f"tables/{name}.parquet").read().to_pylist()
    }
    files = {kind: [read_index_file(path)[1] for path in (built / "search").glob(f"{kind}*.js")] for kind in "sx"}
    assert "xylophones" in {row[0] for shard in files["s"] for row in shard}
    found = [text for block in files["x"] for entry in block for text in (entry[4] if len(entry) > 4 else [])]
    for one in said:
        assert one.explanation.startswith("xylophones: [")
        page = (built / UnitAddress(one.layer, one.unit).page).read_text(encoding="utf-8")
        assert f"“{markup(one.explanation)}” <small>— stand-in: {_scores_in_words(one)}</small>" in page
        assert "(at random " in _scores_in_words(one)
        layer = (built / f"L{one.layer}/index.html").read_text(encoding="utf-8")
        row = layer.partition(f'<a href="N{one.unit}.html">')[2].partition("<tr>")[0]
        assert '<span class="said">“xylophones: ' in row
        assert "<small>— stand-in</small>" in row
        cells = rows[one.id, one.behaviour]
        assert (cells["explanation"], cells["explanation_model"]) == (one.explanation, "stand-in")
        for name in ("detection", "fuzzing", "simulation") if one.behaviour else ():
            assert cells[f"explanation_{name}"] == one.scores._asdict()[name]
        assert [one.explanation, "stand-in", "" if one.behaviour else "of the whole unit"] in found
    for one in lines:
        if one.is_computed and _scores_in_words(one):
            name = {"label": "its label", "tokens": "its top tokens"}[one.source]
            page = (built / UnitAddress(one.layer, one.unit).page).read_text(encoding="utf-8")
            assert f"{name}: {_scores_in_words(one).replace('at random ', '')}" in page

    build(configure(), built, executor=pool)
    assert digests(built) == before
