"""Neighbours that were looked for approximately: what is listed is verified, what is missed is no error."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from atlas_builder.pipeline.build import build
from atlas_builder.verify import neighbours
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure


def test_an_atlas_with_an_approximate_search_says_so_and_can_be_verified(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: Any
) -> None:
    settings = configure(
        units={"layers": [0]},
        link={"approximate_above": 1, "threshold": -1.0, "map": False},
        describe={"importance": "none", "prediction": False},
    )
    site = build(settings, tmp_path / "site", executor=pool)
    pages = [page.read_text(encoding="utf-8") for page in (site / "L0").glob("N*.html")]
    assert any("found by an approximate search" in page for page in pages)
    report = verify(site, units=3)
    assert report.problems == []
    assert report.compared["neighbours"] > 0
    honest = neighbours.Centrals.cosines
    monkeypatch.setattr(neighbours.Centrals, "cosines", lambda self, number: honest(self, number) * 0.9)
    assert any("similarity" in problem for problem in verify(site, units=3).problems)
