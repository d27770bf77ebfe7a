"""CRATE: what its layers compute, by the paper's equations, and its files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from atlas_builder.config import ModelSettings
from atlas_builder.config_file import validate
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import crate, language_model
from atlas_builder.models.crate import Crate, CrateShape
from atlas_builder.models.packing import Rows
from atlas_builder.units.crate import CrateUnits
from atlas_builder.units.open import open_units
from tests.support.models import CRATE_SHAPE, RunsCode

SHAPE = CRATE_SHAPE
TOKENS = torch.tensor([[0, 5, 99, 1000, 7], [0, 3, 3, 2047, 12]])


@pytest.fixture
def folder(crate_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(crate_folder, tmp_path / "crate"))


@pytest.fixture
def made(crate_folder: Path) -> Crate:
    return crate.load_crate(crate_folder)


def _slow(state: dict[str, np.ndarray], tokens: list[int]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Inputs and codes of each layer and the logits, token by token and head by head, from the equations."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean()
        scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
        return np.asarray(scaled * state[f"{name}.weight"] + state[f"{name}.bias"])

    xs = [state["tokens.weight"][token] + state["positions.weight"][place] for place, token in enumerate(tokens)]
    inputs, codes = [], []
    size = SHAPE.width // SHAPE.heads
    for layer in range(SHAPE.layers):
        name = f"blocks.{layer}"
        values = [state[f"{name}.attention.subspaces.weight"] @ norm(x, f"{name}.norm_1") for x in xs]
        after = []
        for place, x in enumerate(xs):
            heads = []
            for head in range(SHAPE.heads):
                own = slice(head * size, (head + 1) * size)
                scores = np.array(
                    [values[place][own] @ values[past][own] / math.sqrt(size) for past in range(place + 1)]
                )
                weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                heads.append(sum(weight * values[past][own] for past, weight in enumerate(weights)))
            joined = state[f"{name}.attention.join.weight"] @ np.concatenate(heads)
            after.append(x + joined + state[f"{name}.attention.join.bias"])
        columns = state[f"{name}.ista.dictionary"].T  # D: (width, codes)
        read = [norm(x, f"{name}.norm_2") for x in after]
        code = []
        for x in read:
            first = np.maximum(0.1 * (columns.T @ x) - 0.1 * 0.1, 0)
            code.append(np.maximum(first + 0.1 * (columns.T @ x - columns.T @ columns @ first) - 0.1 * 0.1, 0))
        xs = [columns @ found for found in code]
        inputs.append(np.stack(read))
        codes.append(np.stack(code))
    logits = np.stack([state["tokens.weight"] @ norm(x, "ln_final") for x in xs])
    return inputs, codes, logits


def test_codes_and_logits_are_those_of_the_equations(made: Crate) -> None:
    state = {name: tensor.double().numpy() for name, tensor in made.state_dict().items()}
    units, seen = CrateUnits(made), {}
    units.run(TOKENS, lambda layer, read, code: seen.update({layer: (read.clone(), code.clone())}))
    with torch.no_grad():
        logits = made(TOKENS)
    for row, tokens in enumerate(TOKENS.tolist()):
        inputs, codes, wanted = _slow(state, tokens)
        np.testing.assert_allclose(logits[row], wanted, rtol=1e-4, atol=1e-3)
        for layer in range(SHAPE.layers):
            np.testing.assert_allclose(seen[layer][0][row], inputs[layer], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(seen[layer][1][row], codes[layer], rtol=1e-4, atol=1e-4)
            assert (codes[layer] > 0).any()
            assert (codes[layer] == 0).any()


def test_tokens_after_a_cache_are_coded_as_in_one_run(made: Crate) -> None:
    units, whole, parts, rows = CrateUnits(made, [1]), {}, {}, Rows(DynamicCache())
    units.run(TOKENS, lambda layer, _, code: whole.update({layer: code.clone()}))
    units.run(TOKENS[:, :2], lambda *_: None, 1, rows)
    units.run(TOKENS[:, 2:], lambda layer, _, code: parts.update({layer: code.clone()}), 1, rows)
    torch.testing.assert_close(parts[1], whole[1][:, 2:])


@pytest.mark.parametrize(("layers", "width", "heads"), [(1, 128, 4), (3, 128, 4), (6, 768, 12)])
def test_parameters_are_counted_by_the_published_formula(layers: int, width: int, heads: int) -> None:
    made = Crate(CrateShape(vocabulary=99, layers=layers, heads=heads, width=width, context=16))
    counted = sum(parameter.numel() for parameter in made.parameters()) - 16 * width
    assert counted == made.shape.parameters == 99 * width + layers * (6 * width**2 + 5 * width) + 2 * width


def test_what_is_saved_is_loaded(made: Crate, folder: Path) -> None:
    loaded = language_model.load_model(ModelSettings(name=str(folder)))
    with torch.no_grad():
        torch.testing.assert_close(loaded.bridge(TOKENS), made(TOKENS))
    assert loaded.facts["architecture"] == "CRATE"
    assert loaded.facts["width"] == SHAPE.width


def test_a_checkpoint_of_the_authors_layout_is_read(made: Crate, tmp_path: Path) -> None:
    theirs = {"tokens": "transformer.wte", "positions": "transformer.wpe", "ln_final": "transformer.ln_f"}
    inner = {"norm_1": "prenorm_1", "norm_2": "prenorm_2", "attention.subspaces": "attn.c_attn"}
    inner |= {"attention.join": "attn.c_proj", "ista.dictionary": "ista.weight"}
    state = {}
    for name, tensor in made.state_dict().items():
        for own, other in {**theirs, **inner, "blocks": "transformer.h"}.items():
            name = name.replace(own, other)
        state[f"_orig_mod.{name}"] = tensor
    state["_orig_mod.lm_head.weight"] = made.tokens.weight.detach()
    sizes = {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 8,
        "block_size": 32,
        "vocab_size": 2048,
        "bias": False,
        "dropout": 0.0,
    }
    torch.save(
        {"model": state, "model_args": sizes, "iter_num": 10, "config": {"device": "cuda"}}, tmp_path / "ckpt-10.pt"
    )
    with torch.no_grad():
        torch.testing.assert_close(crate.load_crate(tmp_path)(TOKENS), made(TOKENS))


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": RunsCode(), "model_args": {}}, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match="is not a checkpoint"):
        crate.load_crate(tmp_path)
    assert "unpickled!" not in capsys.readouterr().out


def test_a_folder_with_missing_or_other_tensors_is_refused_in_a_sentence(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = load_file(folder / "model.safetensors")

    def refused(tensors: dict[str, torch.Tensor], match: str) -> None:
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ModelError, match=match) as caught:
            language_model.load_model(ModelSettings(name=str(folder)))
        assert "\n" not in str(caught.value)

    name = "blocks.1.ista.dictionary"
    refused(
        {key: value for key, value in whole.items() if key != name}, f"lacks the tensor {name} of a CRATE of 2 layers"
    )
    refused({**whole, name: whole[name][:-1].contiguous()}, r"has the shape \(31, 8\), but .* requires \(32, 8\)")
    refused({**whole, "more": whole[name].clone()}, "contains more, which a CRATE of 2 layers does not have")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del settings["heads"]
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    refused(whole, "config.json lacks the key 'heads'")


def test_units_are_those_of_the_model(folder: Path, gpt2_folder: Path) -> None:
    def opened(name: Path, kind: str) -> None:
        made = {"model": {"name": str(name)}, "corpus": {"source": "stdlib", "context": 16}, "units": {"kind": kind}}
        settings = validate(made)
        open_units(language_model.load_model(settings.model), settings)

    opened(folder, "crate")
    with pytest.raises(ConfigurationError, match=r"is not a CRATE model: set units\.kind to mlp"):
        opened(gpt2_folder, "crate")
    with pytest.raises(ConfigurationError, match=r"is a CRATE model: set units\.kind to crate"):
        opened(folder, "mlp")
