"""Units that are odd, each with its page, beside which the others are as they would be."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from atlas_builder.config import Configuration
from atlas_builder.models.sae import save_sae
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.rerun.source import open_rerun
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.run import Verification
from tests.support.atlases import Configure, Once, records_of
from tests.support.models import save_tiny
from tests.support.saes import an_sae

Change = Callable[[torch.Tensor, torch.Tensor], object]

# Of a unit's input weights, (width,), and its bias, (1,).
KINDS: dict[str, Change] = {
    "constant": lambda weights, bias: (weights.zero_(), bias.fill_(0.5)),
    "constant, below zero": lambda weights, bias: (weights.zero_(), bias.fill_(-0.5)),
    "constant zero": lambda weights, bias: (weights.zero_(), bias.zero_()),
    "constant and tiny": lambda weights, bias: (weights.zero_(), bias.fill_(1e-42)),
    "constant and large": lambda weights, bias: (weights.zero_(), bias.fill_(1e7)),
    "denormal weights": lambda weights, bias: (weights.mul_(1e-41), bias.zero_()),
    "squares underflow": lambda weights, bias: (weights.mul_(1e-25), bias.zero_()),
    "activations beyond the histogram": lambda weights, bias: weights.mul_(1e6),
    "squares overflow": lambda weights, bias: (weights.copy_(torch.arange(16) % 2 * 1e22), bias.fill_(-1e30)),
    "one coordinate": lambda weights, bias: (weights.zero_(), weights[3:4].fill_(2.0)),
    "never active": lambda weights, bias: bias.fill_(-1e6),
    "always active": lambda weights, bias: bias.fill_(50.0),
}  # fmt: skip
EACH = 3
UNITS = 48


def _save(folder: Path, *, odd: bool) -> None:
    """A model whose last layer begins with units that write nothing, `odd` ones or as they come."""
    shape = GPT2Config(
        n_positions=64, n_embd=16, n_layer=2, n_head=2, n_inner=UNITS, activation_function="relu",
        vocab_size=2048, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    save_tiny(shape, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    mlp = model.transformer.h[1].mlp
    with torch.no_grad():
        for number, change in enumerate(KINDS.values()):
            for unit in range(EACH * number, EACH * (number + 1)):
                mlp.c_proj.weight[unit] = 0
                if odd:
                    change(mlp.c_fc.weight[:, unit], mlp.c_fc.bias[unit : unit + 1])
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def sites(configure: Configure, pool: Executor, once: Once) -> dict[bool, Path]:
    """An atlas of a model with odd units, and of one with others in their place."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for odd in (True, False):
            _save(folder / f"model-{odd}", odd=odd)
            build(_configured(configure, folder / f"model-{odd}"), folder / str(odd), executor=pool)

    folder = once("odd-units", make)
    return {odd: folder / str(odd) for odd in (True, False)}


def _configured(configure: Configure, model: Path) -> Configuration:
    return configure(model={"name": str(model)}, examples={"per_unit": 12})


def _units(kind: str) -> range:
    first = EACH * list(KINDS).index(kind)
    return range(first, first + EACH)


def test_each_unit_has_its_page_and_the_atlas_is_sound(sites: dict[bool, Path]) -> None:
    report = check(sites[True], Progress(quiet=True))
    assert report.problems == []
    assert all((sites[True] / f"L{layer}" / f"N{unit}.html").is_file() for layer in (0, 1) for unit in range(UNITS))


def test_other_units_are_as_they_would_be_without_them(sites: dict[bool, Path]) -> None:
    with_odd, without = records_of(sites[True]), records_of(sites[False])
    for one, other in zip(with_odd, without, strict=True):
        if one["layer"] == 0 or one["unit"] >= EACH * len(KINDS):
            assert _own(one) == _own(other)


def _own(record: dict[str, Any]) -> dict[str, Any]:
    """What a record says of its unit alone: labels tell it from others, and others are its neighbours."""
    behaviours = [
        {key: value for key, value in behaviour.items() if key not in ("neighbours", "label", "label_tokens", "words")}
        for behaviour in record["behaviours"]
    ]
    return {**{key: value for key, value in record.items() if key != "hash"}, "behaviours": behaviours}


def test_a_constant_unit_has_no_behaviour_and_no_number_that_does_not_exist(sites: dict[bool, Path]) -> None:
    records = {record["unit"]: record for record in records_of(sites[True]) if record["layer"] == 1}
    for unit in _units("constant"):
        stats, measures = records[unit]["stats"], records[unit]["polysemanticity"]
        assert (stats["max"], stats["min"], stats["mean"], stats["std"], stats["density"]) == (0.5, 0.5, 0.5, 0, 1)
        assert records[unit]["behaviours"] == []
        assert measures["intra_distance"] is None
        assert measures["inter_distance"] is None
    for unit in (*_units("never active"), *_units("constant zero"), *_units("constant, below zero")):
        stats, measures = records[unit]["stats"], records[unit]["polysemanticity"]
        assert (stats["max"], stats["min"], stats["density"], measures["examples"]) == (0, 0, 0, 0)
        assert measures["mean_distance"] is None
    for unit in _units("activations beyond the histogram"):
        assert records[unit]["stats"]["max"] > 2**16


@pytest.mark.parametrize("kind", ["denormal weights", "squares underflow"])
def test_the_scale_of_weights_changes_no_behaviour(sites: dict[bool, Path], kind: str) -> None:
    odd, usual = ({r["unit"]: r for r in records_of(sites[way]) if r["layer"] == 1} for way in (True, False))
    for unit in _units(kind):
        measured = odd[unit]["polysemanticity"]
        assert measured["examples"] > 0
        assert measured["max_distance"] != 1 or usual[unit]["polysemanticity"]["max_distance"] == 1


def test_verify_agrees_with_the_pages_of_odd_units(sites: dict[bool, Path]) -> None:
    source = open_rerun(sites[True], ())
    chosen = {1: [_units(kind)[0] for kind in KINDS]}
    report = Verification(sites[True], source, chosen, 0, Progress(quiet=True)).report()
    assert report.problems == []


def test_latents_without_input_weights_have_their_pages(
    configure: Configure, gpt2_folder: Path, pool: Executor, tmp_path: Path
) -> None:
    sae = an_sae("standard", layer=1, place="mlp.hook_in")
    sae.tensors["W_enc"][:, :12] = 0  # constant, above zero or never active
    sae.tensors["b_enc"][:6], sae.tensors["b_enc"][6:12] = 0.5, -0.5
    sae.tensors["W_dec"][12:18] = 0
    sae.tensors["W_enc"][:, 18:24] *= 1e-30
    sae.tensors["b_enc"][18:24] = 0
    save_sae(sae, tmp_path / "sae")
    config = configure(units={"kind": "sae", "path": str(tmp_path / "sae")}, examples={"per_unit": 12})
    build(config, tmp_path / "site", executor=pool)
    assert check(tmp_path / "site", Progress(quiet=True)).problems == []
    records = records_of(tmp_path / "site")
    assert [record["stats"]["max"] for record in records[:12]] == [0.5] * 6 + [0] * 6
    assert all(record["behaviours"] == [] for record in records[:12])
    assert any(record["behaviours"] for record in records[18:24])
    source = open_rerun(tmp_path / "site", ())
    chosen = {1: [0, 6, 12, 18, 30]}
    assert Verification(tmp_path / "site", source, chosen, 0, Progress(quiet=True)).report().problems == []
