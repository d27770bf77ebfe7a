"""Families of models: what is read is what transformers computes, or a sentence says why there is no atlas."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from atlas_builder.config_file import validate
from atlas_builder.errors import ModelError
from atlas_builder.models import language_model
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.site.hosting.check import check
from atlas_builder.units.activation import measured_activation
from atlas_builder.units.open import open_units
from atlas_builder.verify.run import verify
from tests.support.atlases import Listener, Once, records_of
from tests.support.families import FAMILIES, differences, guide_table, save_family, settings_of

GUIDE = Path(__file__).parents[2] / "site_config" / "guide" / "families.md"


@pytest.fixture(scope="session")
def family_folder(once: Once) -> Callable[[str], Path]:
    """A random model of a family of `FAMILIES`."""
    return cache(lambda name: once(f"family-{name}", partial(save_family, name)))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.place])
def test_inputs_activations_and_weights_are_those_that_transformers_has(
    name: str, family_folder: Callable[[str], Path]
) -> None:
    assert differences(name, family_folder(name)) == []


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.refused])
def test_a_family_that_cannot_be_read_is_refused_in_one_sentence(
    name: str, family_folder: Callable[[str], Path], jsonl: Path
) -> None:
    settings = validate(settings_of(name, family_folder(name), jsonl))
    with pytest.raises(ModelError) as caught:
        open_units(language_model.load_model(settings.model), settings)
    assert str(FAMILIES[name].refused) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


# No final norm, matrices without a module around them, experts beside dense layers, no cache of keys and values.
@pytest.mark.parametrize("name", ["opt_350m", "qwen2_moe", "openai_gpt"])
def test_an_atlas_of_an_odd_family_holds(
    name: str, family_folder: Callable[[str], Path], jsonl: Path, pool: Executor, tmp_path: Path
) -> None:
    site = build(validate(settings_of(name, family_folder(name), jsonl)), tmp_path / "site", executor=pool)
    report = verify(site, units=4)
    assert report.problems == []
    assert report.compared["importance"] > 10
    assert read_facts(site)["model"]["activation"] == FAMILIES[name].activation
    assert all(bool(record["logits"]["positive"]) == (name == "qwen2_moe") for record in records_of(site))


def test_a_model_of_both_directions_says_that_it_predicts_no_next_token(
    family_folder: Callable[[str], Path], jsonl: Path, pool: Executor, tmp_path: Path
) -> None:
    listener = Listener()
    settings = validate(settings_of("bert", family_folder("bert"), jsonl))
    site = build(settings, tmp_path / "site", progress=listener, executor=pool)
    assert any("next-token loss would mean nothing" in line for line in listener.lines)
    facts = read_facts(site)["model"]
    assert facts["causal"] is False
    assert facts["loss"] is None
    for record in records_of(site):
        assert record["steering"] is None
        assert record["logits"] == {"positive": [], "negative": []}
    assert "predicts no next token" in (site / "index.html").read_text(encoding="utf-8")
    assert "Direct logit effect" not in (site / "L0" / "N0.html").read_text(encoding="utf-8")
    report = verify(site, units=6)
    assert report.problems == []
    assert report.compared["importance"] > 10
    assert not check(site, Progress(quiet=True)).problems


def test_layers_of_experts_name_the_dense_ones(family_folder: Callable[[str], Path], jsonl: Path) -> None:
    settings = settings_of("qwen2_moe", family_folder("qwen2_moe"), jsonl)
    chosen = validate(settings | {"units": {"layers": "all"}})
    with pytest.raises(ModelError, match=r"layer 1 .* mixture of experts.*: set units\.layers to some of \[0\]\."):
        open_units(language_model.load_model(chosen.model), chosen)


def test_an_activation_function_is_measured_and_left_out_where_none_fits() -> None:
    x = torch.linspace(-4, 4, 101)
    gelu = torch.nn.functional.gelu(x)
    assert measured_activation([x], gelu, "relu", torch.float32) == "gelu"
    assert measured_activation([x], gelu, "gelu", torch.float32) == "gelu"
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert measured_activation([x], tanh, None, torch.float32) == "gelu_new"
    assert measured_activation([x], tanh, "gelu_pytorch_tanh", torch.float32) == "gelu_pytorch_tanh"
    assert measured_activation([x, x.flip(0)], x.sigmoid() * x * x.flip(0), "relu", torch.float32) == "silu"
    assert measured_activation([x], torch.sin(x), "relu", torch.float32) is None


def test_the_guide_lists_every_family_as_it_is() -> None:
    assert guide_table() in GUIDE.read_text(encoding="utf-8")
