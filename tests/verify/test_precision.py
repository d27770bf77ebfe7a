"""Atlases of models that run in 16 bits: sound ones pass, wrong ones do not, and the tolerances follow one rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from atlas_builder.models.precision import DTYPES, epsilon
from atlas_builder.pipeline.build import build
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.verify.precision import tolerance
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure, Once

Record = dict[str, Any]


@pytest.fixture(scope="session")
def site_in(configure: Configure, pool: Executor, once: Once) -> Callable[[str], Path]:
    """A small atlas of the tiny GPT-2 in a precision."""

    def make(dtype: str) -> Path:
        settings = configure(
            model={"dtype": dtype}, corpus={"max_tokens": 1200}, describe={"steering": True}, units={"layers": [1]}
        )
        return once(f"in-{dtype}", lambda output: build(settings, output, executor=pool))

    return make


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sound_atlas_in_16_bits_passes(dtype: str, site_in: Callable[[str], Path]) -> None:
    report = verify(site_in(dtype), units=12)
    assert report.problems == []
    assert report.compared["activations"] > 500
    assert report.compared["labels"] > 10
    assert f"a tolerance of {tolerance('activation', dtype):.2g}" in report.summary


def five_per_cent_off(values: list[float], others: list[float]) -> list[float]:
    return [value * 1.05 for value in values]


def of_another_unit(values: list[float], others: list[float]) -> list[float]:
    return (others * len(values))[: len(values)]


def a_token_late(values: list[float], others: list[float]) -> list[float]:
    return values[-1:] + values[:-1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("alter", [five_per_cent_off, of_another_unit, a_token_late])
def test_wrong_activations_in_16_bits_are_found_out(
    alter: Callable[[list[float], list[float]], list[float]],
    dtype: str,
    site_in: Callable[[str], Path],
    copy_of: Callable[[Path], Path],
    configure: Configure,
) -> None:
    site = copy_of(site_in(dtype))
    records = {path: json.loads(path.read_bytes()) for path in sorted(site.glob("L1/N*.json"))}
    values_of = [[example["values"] for example in record["examples"]] for record in records.values()]
    for number, (path, record) in enumerate(records.items()):
        others = values_of[(number + 1) % len(values_of)]
        for example, other in zip(record["examples"], others, strict=False):
            example["values"] = alter(example["values"], other)
        path.write_bytes(serialise(record | {"hash": content_hash(record)}))
    settings = configure()
    report = verify(
        site, units=3, overrides=(f"model.name={settings.model.name}", f"corpus.path={settings.corpus.path}")
    )
    units = {problem.split(":")[0].split(",")[0] for problem in report.problems}
    assert len(units) == 3, report.problems[:5]


def test_the_tolerance_is_that_of_float32_or_so_many_epsilons() -> None:
    assert tolerance("activation", "float32") == 1e-4
    for dtype in ("bfloat16", "float16"):
        assert tolerance("activation", dtype) == 2.5 * epsilon(DTYPES[dtype])
        assert tolerance("order", dtype) == epsilon(DTYPES[dtype])
