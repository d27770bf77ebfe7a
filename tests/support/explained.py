"""Explanations in words of a tiny atlas, written by hand."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.pipeline.build import build
from atlas_builder.records.explanations import digest_of
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Once, records_of

HOSTILE_WORDS = (
    "<script>window.pwned=6</script> & \u202eright\u202c \u0007bell\ud800 {{ 7*7 }} <img src=x onerror=alert(1)>"
)


def line_of(record: dict[str, Any], behaviour: int | None = None, **changes: Any) -> dict[str, Any]:
    """A line that explains a behaviour of a record or, without one, the whole unit."""
    return {
        "id": record["id"],
        "layer": record["layer"],
        "unit": record["unit"],
        "behaviour": behaviour,
        "does": digest_of(record, behaviour),
        "model": "Teller-1B",
        "source": "explain",
        "judge": "Teller-1B",
        "seed": 0,
        "explanation": "the word that zebras say after a comma",
        "range_explanation": "",
        "scores": {"simulation": 0.31, "random_only": 0.2, "whole_range": None, "detection": 0.8, "fuzzing": 0.71},
        "floor": {"simulation": 0.02, "detection": 0.52, "fuzzing": 0.5},
        **changes,
    }


def write_explanations(path: Path, lines: list[dict[str, Any]]) -> Path:
    """A file of these lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def explained_units(site: Path) -> list[dict[str, Any]]:
    """Records of units with a main behaviour, those with most behaviours first."""
    records = [record for record in records_of(site) if record["behaviours"]]
    return sorted(records, key=lambda record: -len(record["behaviours"]))


def lines_of(site: Path) -> list[dict[str, Any]]:
    """Lines on a few units of a site: of every kind."""
    first, second, third, fourth, *_ = explained_units(site)
    return [
        line_of(first, 1),
        line_of(first, 1, model="Other-7B", explanation="forms of “to be”", judge="Judge-70B"),
        line_of(first, 1, source="label", model="", explanation=first["behaviours"][0]["label"]),
        line_of(first, 1, source="tokens", model="", explanation="the, cat", scores={"detection": 0.66}, floor={}),
        line_of(first, len(first["behaviours"]), explanation="a rarely seen ending"),
        line_of(first, None, explanation="mostly grammar, some numbers", scores={"simulation": 0.4}, floor={}),
        line_of(second, 1, explanation=HOSTILE_WORDS, model="<b>Bold</b>\u202e"),
        line_of(second, None, source="neuronpedia", judge=None, explanation="brackets and quotes", scores={}, floor={}),
        line_of(second, None, source="delphi", judge=None, model="", explanation="by nobody", scores={}, floor={}),
        line_of(third, 1, explanation="flamingos in another edition", does="0" * 64),
        line_of(fourth, 1, explanation="long " * 2000),
    ]


@pytest.fixture(scope="session")
def explained_site(configure: Configure, tiny_site: Path, pool: Executor, once: Once) -> Path:
    """The tiny atlas, with explanations of every kind."""

    def fill(output: Path) -> None:
        said = write_explanations(output.with_name("said.jsonl"), lines_of(tiny_site))
        shutil.copytree(work_folder(tiny_site), work_folder(output))
        build(configure(site={"explanations": str(said)}), output, executor=pool)

    return once("explained", fill)
